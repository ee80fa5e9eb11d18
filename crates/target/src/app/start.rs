//! The start, in its order: what is asked for is checked, sockets are made, the loop runs.

use std::os::fd::OwnedFd;
use std::time::Instant;

use super::listener::{Access, listen};
use super::options::Options;
use super::{journal, run};
use crate::control::core::Core;
use crate::control::server::Server;

pub fn run(options: Box<Options>) -> Result<(), String> {
    let begun = Instant::now();
    // From here on a new file, sockets above all, is nobody's but ours; `listen` widens what is to be wider.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    options.log_flags.iter().for_each(|flag| journal::set_flag(*flag, true));
    let context = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
    let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC)
        .map_err(|error| context("epoll", &error))?;
    let mut signals = run::Signals::start(&epoll).map_err(|error| context("signals", &error))?;
    let mut core = Core::new();
    core.running = !options.wait_for_rpc;
    let access = Access::default();
    let listener: OwnedFd =
        listen(&options.rpc, access).map_err(|error| context("the JSON-RPC socket", &error))?;
    let theirs = epoll.try_clone().map_err(|error| context("epoll", &error))?;
    let mut server =
        Server::new(theirs, listener, None).map_err(|error| context("the JSON-RPC server", &error))?;
    log::info!("ready after {} ms: JSON-RPC on {}", begun.elapsed().as_millis(), options.rpc.display());
    run::control(&epoll, &mut signals, &mut server, &mut core).map_err(|error| context("epoll", &error))?;
    let _ = std::fs::remove_file(&options.rpc);
    log::info!("the end");
    Ok(())
}
