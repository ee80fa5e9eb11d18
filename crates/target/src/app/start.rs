//! The start, in its order. What is irrevocable comes when everything that it would forbid is done:
//!
//! 1. options, descriptors that were handed over, the configuration's text;
//! 2. Landlock, which only threads to come are bound by;
//! 3. the reactors;
//! 4. bdevs and controllers, as configured: a controller's socket opens when what is behind it is there;
//! 5. the JSON-RPC socket;
//! 6. another user;
//! 7. seccomp, for all threads.

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::event::epoll;
use serde_json::Value;

use super::confine::files::{self, Enforced, Paths, directory};
use super::confine::syscalls;
use super::identity::{self, Identity};
use super::listener::{Access, listen};
use super::options::{Metrics, Options, Poll};
use super::ready::Manager;
use super::{journal, run};
use crate::control::core::{Confinement, Core};
use crate::control::load::{self, Entry, Strictness};
use crate::control::metrics;
use crate::control::saver::{Saver, replace};
use crate::control::server::Server;
use crate::control::sockets::Sockets;
use crate::reactor::PollPolicy;
use crate::sys;
use crate::target::{self, Target};

fn context<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> String {
    move |error| format!("{what}: {error}")
}

pub fn run(options: Box<Options>) -> Result<(), String> {
    let begun = Instant::now();
    // From here on a new file, sockets above all, is nobody's but ours; `listen` widens what is to be wider.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    options.log_flags.iter().for_each(|flag| journal::set_flag(*flag, true));
    let (rpc, inherited) = take_descriptors(&options)?;
    let identity = options.user.as_deref().map(Identity::find).transpose()?;
    let group = options.socket_group.as_deref().map(identity::group).transpose()?;
    let access = Access { owner: identity.as_ref().map(Identity::uid), group };
    let manager = Manager::connect();
    let configuration = read(&options)?;
    if let Some(path) = &options.pid_file {
        fs::write(path, format!("{}\n", std::process::id())).map_err(context(path.display()))?;
    }

    let confinement = confine_files(&options, configuration.as_ref())?;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(context("epoll"))?;
    let signals = run::Signals::start(&poll).map_err(context("signals"))?;
    let cpus = options.cpus.cpus().to_vec();
    let policy = match options.poll {
        Poll::Adaptive => PollPolicy::Adaptive,
        Poll::Always => PollPolicy::Always,
    };
    let target = Target::new(&target::Options { cpus, poll: policy })
        .map_err(context(format!("reactors on processors {} (option -m)", options.cpus)))?;
    let sockets = Sockets { directory: options.sockets.clone(), access, inherited };
    let mut core = Core::new(target, sockets).map_err(context("events of drives"))?;
    core.memory = options.memory.map(|mebibytes| mebibytes.saturating_mul(1 << 20));
    core.confinement = confinement;
    match configuration {
        None => core.running = !options.wait_for_rpc,
        Some(read) => load::run(&mut core, read.entries, read.strictness, options.wait_for_rpc)
            .map_err(context(read.path.display()))?,
    }

    let (listener, made) = match rpc {
        Some(listener) => (listener, None),
        None => (
            listen(&options.rpc, access).map_err(context("the JSON-RPC socket"))?,
            Some(options.rpc.as_path()),
        ),
    };
    let metrics = start_metrics(&options, &poll, access)?;
    if let Some(identity) = &identity {
        identity.assume()?;
    }
    let saver = start_saver(&options, &core)?;
    let theirs = poll.as_fd().try_clone_to_owned().map_err(context("epoll"))?;
    let server = Server::new(theirs, listener, saver).map_err(context("the JSON-RPC server"))?;
    if options.confine {
        syscalls::confine().map_err(context("the seccomp filter (--no-confine does without)"))?;
    }
    let shown = made.map_or("a socket that was handed over".into(), |path| path.display().to_string());
    log::info!("ready after {} ms: JSON-RPC on {shown}", begun.elapsed().as_millis());
    if let Some(manager) = &manager {
        manager.say("READY=1");
    }
    let mut parts = run::Parts { signals, server, metrics };
    let ended = run::control(&poll, &mut parts, &mut core).map_err(context("epoll"));
    if let Some(manager) = &manager {
        manager.say("STOPPING=1");
    }
    // Saves what is still to be saved, before anything is taken down.
    drop(parts);
    run::wind_up(&mut core);
    let metrics =
        options.metrics.as_ref().map(|(Metrics::Socket(path) | Metrics::File(path))| path.as_path());
    for path in made.into_iter().chain(options.pid_file.as_deref()).chain(metrics) {
        let _ = fs::remove_file(path);
    }
    log::info!("the end");
    ended
}

/// Makes the descriptors named on the command line ours, once, before any other is opened.
fn take_descriptors(options: &Options) -> Result<(Option<OwnedFd>, HashMap<String, OwnedFd>), String> {
    let mut inherited = HashMap::new();
    let mut numbers: Vec<_> =
        options.rpc_fd.iter().chain(options.vhost_fds.iter().map(|(_, number)| number)).collect();
    numbers.sort_unstable();
    if let Some(pair) = numbers.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("descriptor {} was handed over twice", pair[0]));
    }
    let rpc = options.rpc_fd.map(sys::inherited_listener).transpose().map_err(context("--rpc-fd"))?;
    for (name, number) in &options.vhost_fds {
        let socket =
            sys::inherited_listener(*number).map_err(context(format!("--vhost-fd {name}={number}")))?;
        if inherited.insert(name.clone(), socket).is_some() {
            return Err(format!("--vhost-fd: controller {name} has two sockets"));
        }
    }
    Ok((rpc, inherited))
}

struct Read {
    path: PathBuf,
    entries: Vec<Entry>,
    strictness: Strictness,
}

/// The configuration to begin with: what was kept, else what `-c` names.
fn read(options: &Options) -> Result<Option<Read>, String> {
    let parse = |path: &Path, text: String, strictness| {
        let entries = load::parse(&text).map_err(context(path.display()))?;
        Ok(Some(Read { path: path.to_owned(), entries, strictness }))
    };
    if let Some(path) = &options.state {
        match fs::read_to_string(path) {
            Ok(text) => {
                if let Some(other) = &options.configuration {
                    log::info!("{} is there, so {} is not read", path.display(), other.display());
                }
                return parse(path, text, Strictness::Lenient);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{}: {error}", path.display())),
        }
    }
    match &options.configuration {
        None => Ok(None),
        Some(path) => {
            let text = fs::read_to_string(path).map_err(context(path.display()))?;
            parse(path, text, Strictness::Strict)
        }
    }
}

fn confine_files(options: &Options, configuration: Option<&Read>) -> Result<Confinement, String> {
    if !options.confine {
        return Ok(Confinement::default());
    }
    let mut paths =
        Paths { disks: options.allowed.clone(), sockets: vec![options.sockets.clone()], replaced: vec![] };
    paths.disks.extend(configuration.into_iter().flat_map(|read| read.entries.iter()).filter_map(file_of));
    paths.sockets.push(directory(&options.rpc));
    paths.replaced.extend(options.state.as_deref().map(directory));
    match &options.metrics {
        Some(Metrics::Socket(path)) => paths.sockets.push(directory(path)),
        Some(Metrics::File(path)) => paths.replaced.push(directory(path)),
        None => {}
    }
    let enforced = files::confine(&paths).map_err(context("Landlock (--no-confine does without)"))?;
    Ok(match enforced {
        Enforced::Fully | Enforced::Partly => {
            log::debug!("Landlock: {enforced:?} enforced, with {paths:?}");
            Confinement { paths: Some(paths.disks) }
        }
        Enforced::Not => {
            log::info!("this kernel has no Landlock: files are not confined");
            Confinement::default()
        }
    })
}

/// The file that a call of the configuration opens.
fn file_of(entry: &Entry) -> Option<PathBuf> {
    let params: Value = serde_json::from_str(entry.params.as_ref()?.get()).ok()?;
    let name = params.get("filename").or_else(|| params.get("fname"))?;
    name.as_str().map(PathBuf::from)
}

fn start_metrics(
    options: &Options,
    poll: &OwnedFd,
    access: Access,
) -> Result<Option<metrics::Metrics>, String> {
    match &options.metrics {
        None => Ok(None),
        Some(Metrics::File(path)) => Ok(Some(metrics::Metrics::in_file(path.clone()))),
        Some(Metrics::Socket(path)) => {
            let listener = listen(path, access).map_err(context("the metrics' socket"))?;
            let theirs = poll.try_clone().map_err(context("epoll"))?;
            metrics::Metrics::on_socket(theirs, listener).map(Some).map_err(context("the metrics' socket"))
        }
    }
}

/// Writes the state once, so that a file that cannot be written is known before anybody relies on it.
fn start_saver(options: &Options, core: &Core) -> Result<Option<Saver>, String> {
    let Some(path) = &options.state else { return Ok(None) };
    replace(path, core.configuration_text().as_bytes())
        .map_err(context(format!("{} cannot be written", path.display())))?;
    Saver::start(path.clone()).map(Some).map_err(context("a thread that saves the state"))
}
