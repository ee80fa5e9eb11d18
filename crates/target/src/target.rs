//! The target as the control thread has it: bdevs, controllers, and the reactors under them.
//!
//! Nothing here waits. What takes time (a queue that drains, a channel that closes) comes back as an event: whoever runs
//! the loop waits on [`Target::events`] and gives each [`Source`] that is not its own to [`Target::handle`].

mod bdevs;
mod controllers;
mod views;

use std::fmt;
use std::io;
use std::os::fd::AsFd;

use crate::controller::Controller;
use crate::events::{Events, Readiness, Source};
use crate::reactor::{PollPolicy, Reactors};

pub use bdevs::BdevView;
pub use controllers::{BlkOptions, ScsiOptions, Socket};
pub use views::{ControllerView, KindView, SessionView};

/// What a target is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The processors of the reactors.
    pub cpus: Vec<usize>,
    pub poll: PollPolicy,
}

/// Why something was refused: a sentence for people, and the errno that the RPC answers with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetError {
    /// Positive.
    pub errno: i32,
    pub message: String,
}

impl TargetError {
    pub fn new(errno: i32, message: impl Into<String>) -> Self {
        Self { errno, message: message.into() }
    }
}

impl fmt::Display for TargetError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for TargetError {}

impl From<nvlane_bdev::BdevError> for TargetError {
    fn from(error: nvlane_bdev::BdevError) -> Self {
        Self { errno: error.errno, message: error.message }
    }
}

pub struct Target {
    events: Events,
    reactors: Reactors,
    bdevs: Vec<bdevs::Entry>,
    controllers: Vec<Controller>,
    next_controller: u32,
}

impl Target {
    /// Starts the reactors.
    ///
    /// # Errors
    /// When a processor is not ours to use, or descriptors or threads have run out.
    pub fn new(options: &Options) -> io::Result<Self> {
        let reactors = Reactors::start(&options.cpus, options.poll)?;
        let events = Events::new()?;
        events.add(reactors.report(), Source::Reactors, Readiness::Read)?;
        Ok(Self { events, reactors, bdevs: Vec::new(), controllers: Vec::new(), next_controller: 1 })
    }

    pub fn events(&self) -> &Events {
        &self.events
    }

    pub fn reactors(&self) -> &Reactors {
        &self.reactors
    }

    /// Does all that is to be done now, and never waits: for whoever has an epoll instance with [`Target::events`] in it.
    ///
    /// # Errors
    /// When the kernel does not say what is ready.
    pub fn turn(&mut self) -> io::Result<()> {
        for source in self.events.wait(Some(std::time::Duration::ZERO))? {
            self.handle(source);
        }
        Ok(())
    }

    /// Something that [`Target::events`] reported.
    pub fn handle(&mut self, source: Source) {
        match source {
            Source::Reactors => {
                for detached in self.reactors.take_back() {
                    for controller in &mut self.controllers {
                        let Some(sessions) = &mut controller.sessions else { continue };
                        if sessions.detached(detached.queue, detached.base.0, &mut controller.backing) {
                            controller.backing.detached(detached.queue);
                            break;
                        }
                    }
                }
                self.bury();
            }
            Source::Controller(number) => {
                if let Some(controller) = self.controllers.iter_mut().find(|other| other.number == number) {
                    if let Some(sessions) = &mut controller.sessions {
                        sessions.handle(&mut controller.backing);
                    }
                }
                self.bury();
            }
            Source::Program(_) => {}
        }
    }

    /// To be called about once a second: memory that has vanished, queues that do not drain.
    pub fn check(&mut self) {
        for controller in &mut self.controllers {
            if let Some(sessions) = &mut controller.sessions {
                sessions.check(&mut controller.backing);
            }
        }
        self.bury();
    }

    /// Drops the deleted controllers whose sessions have drained.
    fn bury(&mut self) {
        let events = &self.events;
        self.controllers.retain_mut(|controller| {
            let over =
                controller.deleted && controller.sessions.as_ref().is_none_or(|sessions| sessions.is_empty());
            if over {
                if let Some(sessions) = controller.sessions.take() {
                    events.remove(sessions.as_fd());
                }
            }
            !over
        });
    }
}
