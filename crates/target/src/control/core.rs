//! What the methods work on.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nvlane_bdev::delay::Delay;
use nvlane_bdev::error::ErrorBdev;
use nvlane_bdev::{Bdev, ticks};
use rustix::event::{PollFd, PollFlags};
use serde_json::{Value, json};

use super::configuration::{Call, Configuration};
use super::drives::Drives;
use super::message::RpcError;
use super::method::{Methods, Outcome, Wait};
use super::parameters::Parameters;
use super::sockets::Sockets;
use crate::target::{Target, TargetError};

/// How long the deletion of a bdev waits for another that stood on it.
const RELEASE: Duration = Duration::from_secs(5);

pub struct Core {
    pub methods: Methods,
    /// After `framework_start_init`.
    pub running: bool,
    /// Somebody asked for the end, by a signal or by `spdk_kill_instance`.
    pub ending: bool,
    pub target: Target,
    pub configuration: Configuration,
    pub sockets: Sockets,
    /// What the runtime half of a configuration file asks for, while its startup half waits for `framework_start_init`.
    pub pending: Vec<super::load::Entry>,
    /// Bytes that malloc bdevs may take together.
    pub memory: Option<u64>,
    pub confinement: Confinement,
    pub drives: Drives,
    pub delays: HashMap<String, Arc<Delay>>,
    pub errors: HashMap<String, Arc<ErrorBdev>>,
    begun: u64,
}

/// What the process may still open, for errors that say so.
#[derive(Clone, Debug, Default)]
pub struct Confinement {
    /// Landlock rules are in force, with these paths among them.
    pub paths: Option<Vec<PathBuf>>,
}

impl Confinement {
    /// The kernel says EACCES to a path outside of the rules: the remedy is ours to know.
    pub fn explain(&self, path: &Path, error: RpcError) -> RpcError {
        let Some(paths) = self.paths.as_ref().filter(|_| error.code == -libc::EACCES) else { return error };
        if paths.iter().any(|allowed| path.starts_with(allowed)) {
            return error;
        }
        let why = error.detail.clone().unwrap_or_default();
        error.with(format!(
            "{why}: this process has confined itself and may not open it any more; start it with --allow-path {} (or a \
             directory above it), with the device in -c or --state, or with --no-confine",
            path.display()
        ))
    }
}

pub fn target_error(error: TargetError) -> RpcError {
    RpcError::errno(error.errno).with(error.message)
}

impl Core {
    pub fn new(target: Target, sockets: Sockets) -> std::io::Result<Core> {
        Ok(Core {
            methods: super::methods(),
            running: false,
            ending: false,
            target,
            configuration: Configuration::default(),
            sockets,
            pending: Vec::new(),
            memory: None,
            confinement: Confinement::default(),
            drives: Drives::new()?,
            delays: HashMap::new(),
            errors: HashMap::new(),
            begun: ticks::now(),
        })
    }

    /// Calls a method. The second value says whether its success changes the configuration.
    pub fn call(&mut self, name: &str, parameters: Parameters) -> (Result<Outcome, RpcError>, bool) {
        match self.methods.find(name, parameters, self.running) {
            Err(error) => (Err(error), false),
            Ok((method, parameters)) => {
                if let Some(current) = self.methods.current_name(name) {
                    log::info!("RPC method {name} is deprecated. Use {current} instead.");
                }
                ((method.run)(self, &parameters), method.saves)
            }
        }
    }

    /// By name, alias or UUID; else the error that SPDK gives.
    pub fn bdev(&self, name: &str) -> Result<Arc<dyn Bdev>, RpcError> {
        let found = self.target.bdev(name).cloned();
        found.ok_or_else(|| RpcError::errno(libc::ENODEV).with(format!("there is no bdev {name:?}")))
    }

    /// A bdev that this method made: what another one made is not found under its name, as with SPDK's modules.
    pub fn made_bdev(&self, name: &str, maker: &str) -> Result<Arc<dyn Bdev>, RpcError> {
        let bdev = self.bdev(name)?;
        match self.configuration.maker(&bdev.info().name) {
            Some(other) if other == maker => Ok(bdev),
            other => {
                let why = format!(
                    "bdev {name:?} was made by {}, not by {maker}",
                    other.unwrap_or("another method")
                );
                Err(RpcError::errno(libc::ENODEV).with(why))
            }
        }
    }

    pub fn bdevs(&self) -> Vec<Arc<dyn Bdev>> {
        self.target.bdevs().into_iter().map(|view| view.bdev).collect()
    }

    /// Before anything is made under a name.
    pub fn check_new(&self, name: &str) -> Result<(), RpcError> {
        if name.is_empty() {
            return Err(RpcError::errno(libc::EINVAL).with("a bdev needs a name"));
        }
        match self.target.bdev(name) {
            None => Ok(()),
            Some(_) => Err(RpcError::errno(libc::EEXIST).with(format!("there is a bdev {name:?} already"))),
        }
    }

    /// SPDK counts on without looking, and fails when the name is taken; here the next free one is.
    pub fn free_name(&self, prefix: &str) -> String {
        let names = (0..).map(|number: u64| format!("{prefix}{number}"));
        // There are fewer bdevs than numbers.
        names.into_iter().find(|name| self.target.bdev(name).is_none()).unwrap_or_default()
    }

    /// Whether `more` bytes for malloc bdevs are within `-s`.
    pub fn check_memory(&self, more: u64) -> Result<(), RpcError> {
        let Some(limit) = self.memory else { return Ok(()) };
        let malloc =
            |bdev: &Arc<dyn Bdev>| self.configuration.maker(&bdev.info().name) == Some("bdev_malloc_create");
        let used: u64 = self.bdevs().iter().filter(|bdev| malloc(bdev)).map(|bdev| bdev.bytes()).sum();
        if used.checked_add(more).is_some_and(|wanted| wanted <= limit) {
            return Ok(());
        }
        let why = format!("{more} more bytes for malloc bdevs: {used} of {limit} are used (option -s)");
        Err(RpcError::errno(libc::ENOMEM).with(why))
    }

    pub fn add_bdev(&mut self, bdev: Arc<dyn Bdev>, base: Option<&str>, call: Call) -> Result<(), RpcError> {
        let name = bdev.info().name.clone();
        self.target.add_bdev(bdev, Vec::new()).map_err(target_error)?;
        self.configuration.add_device(vec![name], base, call);
        Ok(())
    }

    /// Deletes a bdev and what stands on it. Channels close on their reactors, so the last of it may come a little later.
    pub fn delete_bdev(&mut self, name: &str) -> Result<Outcome, RpcError> {
        let mut left: Vec<String> = self.configuration.stacked_on(name);
        left.push(name.to_owned());
        left.reverse();
        if self.delete_next(&mut left)? {
            return Ok(json!(true).into());
        }
        let deadline = Instant::now().checked_add(RELEASE);
        let poll = move |core: &mut Core, expired: bool| match core.delete_next(&mut left) {
            Ok(true) => Some(Ok(json!(true))),
            Ok(false) if expired => Some(Err(RpcError::errno(libc::EBUSY)
                .with(format!("{} is still used by another bdev", left.last().map_or("", String::as_str))))),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        };
        Ok(Outcome::Wait(Wait { deadline, poll: Box::new(poll) }))
    }

    /// Deletes from the end of the list; true when nothing is left, false when something is still in use.
    fn delete_next(&mut self, left: &mut Vec<String>) -> Result<bool, RpcError> {
        while let Some(name) = left.last() {
            match self.target.remove_bdev(name) {
                Ok(_) => {}
                Err(error) if error.errno == libc::EBUSY => return Ok(false),
                Err(error) => return Err(target_error(error)),
            }
            self.delays.remove(name);
            self.errors.remove(name);
            self.configuration.remove_device(name);
            left.pop();
        }
        Ok(true)
    }

    /// A bdev has another size: guests hear of it, and it is made so the next time.
    pub fn resized(&mut self, bdev: &Arc<dyn Bdev>) {
        self.target.bdev_resized(bdev);
        let name = &bdev.info().name;
        if matches!(self.configuration.maker(name), Some("bdev_malloc_create" | "bdev_null_create")) {
            self.configuration.change(name, "num_blocks", bdev.blocks().into());
        }
        // What stands on it has its size.
        for name in self.configuration.stacked_on(name) {
            if let Some(above) = self.target.bdev(&name).cloned() {
                self.target.bdev_resized(&above);
            }
        }
    }

    pub fn allowed_paths(&self) -> Confinement {
        self.confinement.clone()
    }

    pub fn elapsed_ticks(&self) -> u64 {
        ticks::now().wrapping_sub(self.begun)
    }

    /// The configuration as it is kept in the state file.
    pub fn configuration_text(&self) -> String {
        self.configuration.to_text()
    }

    /// Lets the target do what it has to, for a moment.
    fn pause(&mut self) -> rustix::io::Result<()> {
        let moment = rustix::event::Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        let mut events = [PollFd::new(self.target.events(), PollFlags::IN)];
        rustix::event::poll(&mut events, Some(&moment))?;
        self.target
            .turn()
            .map_err(|error| rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO))
    }

    /// Calls a method and waits for its answer: for configurations, before anybody is served.
    pub fn call_and_wait(&mut self, name: &str, parameters: Parameters) -> Result<Value, RpcError> {
        match self.call(name, parameters).0? {
            Outcome::Now(value) => Ok(value),
            Outcome::Work(work) => work()(self),
            Outcome::Wait(mut wait) => loop {
                let expired = wait.deadline.is_some_and(|deadline| deadline <= Instant::now());
                if let Some(reply) = (wait.poll)(self, expired) {
                    return reply;
                }
                if wait.deadline.is_none() {
                    return Err(
                        RpcError::errno(libc::EDEADLK).with(format!("{name} would wait for ever here"))
                    );
                }
                self.pause().map_err(|errno| RpcError::errno(errno.raw_os_error()))?;
            },
        }
    }
}
