//! Making, changing and deleting controllers.

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use nvlane_bdev::Bdev;

use super::{Target, TargetError};
use crate::controller::{Backing, BlkFrontEnd, Controller, Kind, Sessions};
use crate::device::scsi::ScsiFrontEnd;
use crate::events::{Readiness, Source};
use crate::reactor::Coalescing;

/// A socket that listens already.
#[derive(Debug)]
pub struct Socket {
    pub listener: UnixListener,
    /// Where it is in the file system. It is removed with the controller if `ours`.
    pub path: PathBuf,
    pub ours: bool,
}

#[derive(Clone, Debug)]
pub struct BlkOptions {
    pub name: String,
    pub bdev: String,
    /// The processors that its queues may be served on; none: all reactors.
    pub cpus: Option<Vec<usize>>,
    pub read_only: bool,
    pub packed_ring: bool,
}

#[derive(Clone, Debug)]
pub struct ScsiOptions {
    pub name: String,
    pub cpus: Option<Vec<usize>>,
    /// No connection is taken before [`Target::start_scsi_controller`].
    pub delay: bool,
}

fn invalid(message: impl Into<String>) -> TargetError {
    TargetError::new(libc::EINVAL, message)
}

impl Target {
    /// # Errors
    /// EEXIST, ENODEV (the bdev), EINVAL (a processor without a reactor), or what the kernel says about the socket.
    pub fn create_blk_controller(&mut self, options: BlkOptions, socket: Socket) -> Result<(), TargetError> {
        self.check_blk_controller(&options)?;
        let bdev = self.bdev_for(&options.bdev)?;
        let front_end = BlkFrontEnd::new(bdev, options.read_only);
        let allowed = self.allowed(options.cpus.as_deref())?;
        self.add(options.name, Kind::Blk(front_end), allowed, options.packed_ring, socket, true)
    }

    /// What [`Target::create_blk_controller`] would refuse, before a socket is made for it.
    ///
    /// # Errors
    /// The same.
    pub fn check_blk_controller(&self, options: &BlkOptions) -> Result<(), TargetError> {
        self.check_name(&options.name)?;
        self.bdev_for(&options.bdev)?;
        self.allowed(options.cpus.as_deref()).map(drop)
    }

    /// # Errors
    /// As for a blk controller.
    pub fn create_scsi_controller(
        &mut self,
        options: ScsiOptions,
        socket: Socket,
    ) -> Result<(), TargetError> {
        self.check_scsi_controller(&options)?;
        let allowed = self.allowed(options.cpus.as_deref())?;
        let front_end = ScsiFrontEnd::new(&allowed);
        self.add(options.name, Kind::Scsi(front_end), allowed, true, socket, !options.delay)
    }

    /// # Errors
    /// As for a blk controller.
    pub fn check_scsi_controller(&self, options: &ScsiOptions) -> Result<(), TargetError> {
        self.check_name(&options.name)?;
        self.allowed(options.cpus.as_deref()).map(drop)
    }

    /// Takes connections from now on; again is no error.
    ///
    /// # Errors
    /// ENODEV, or EINVAL for a controller of another kind.
    pub fn start_scsi_controller(&mut self, name: &str) -> Result<(), TargetError> {
        let controller = self.scsi(name)?;
        if let Some(socket) = controller.waiting.take() {
            let number = controller.number;
            let sessions = listen(socket)?;
            wait_for(&self.events, number, &sessions)?;
            if let Some(controller) = self.controllers.iter_mut().find(|other| other.number == number) {
                controller.sessions = Some(sessions);
            }
        }
        Ok(())
    }

    /// Puts a bdev behind a target of a SCSI controller, or the first free one; its number.
    ///
    /// # Errors
    /// ENODEV (the controller), EINVAL (the bdev or the number), EEXIST, ENOSPC.
    pub fn add_scsi_target(&mut self, name: &str, number: Option<u8>, bdev: &str) -> Result<u8, TargetError> {
        self.scsi(name)?;
        // SPDK says EINVAL here, where it says ENODEV of a blk controller.
        let bdev = self.bdev_for(bdev).map_err(|error| invalid(error.message))?;
        let reactors = self.reactors.clone();
        match &mut self.scsi(name)?.backing.kind {
            Kind::Scsi(scsi) => scsi.add_target(number, bdev, &reactors),
            Kind::Blk(_) => Err(invalid(format!("{name:?} is no SCSI controller"))),
        }
    }

    /// # Errors
    /// ENODEV: no such controller or no such target.
    pub fn remove_scsi_target(&mut self, name: &str, number: u8) -> Result<(), TargetError> {
        let reactors = self.reactors.clone();
        match &mut self.scsi(name)?.backing.kind {
            Kind::Scsi(scsi) => scsi.remove_target(number, &reactors),
            Kind::Blk(_) => Err(invalid(format!("{name:?} is no SCSI controller"))),
        }
    }

    /// Ends its sessions and takes it away. The name is free at once; what is under way ends first.
    ///
    /// # Errors
    /// ENODEV.
    pub fn delete_controller(&mut self, name: &str) -> Result<(), TargetError> {
        let reactors = self.reactors.clone();
        let controller = self.controller_mut(name)?;
        controller.deleted = true;
        if let Some(path) = controller.path.take() {
            let _ = std::fs::remove_file(path);
        }
        if let Some(sessions) = &mut controller.sessions {
            sessions.close(&mut controller.backing);
        }
        controller.backing.front_end_mut().close(&reactors);
        self.bury();
        Ok(())
    }

    /// # Errors
    /// ENODEV.
    pub fn set_coalescing(&mut self, name: &str, delay_us: u32, threshold: u32) -> Result<(), TargetError> {
        self.controller_mut(name)?.backing.set_coalescing(Coalescing { delay_us, threshold });
        Ok(())
    }

    fn add(
        &mut self,
        name: String,
        kind: Kind,
        allowed: Vec<usize>,
        packed: bool,
        socket: Socket,
        start: bool,
    ) -> Result<(), TargetError> {
        let number = self.next_controller;
        let path = socket.path.clone();
        let owned = socket.ours.then(|| path.clone());
        let (sessions, waiting) = if start { (Some(listen(socket)?), None) } else { (None, Some(socket)) };
        if let Some(sessions) = &sessions {
            wait_for(&self.events, number, sessions)?;
        }
        self.next_controller += 1;
        let coalescing = Coalescing::default();
        let reactors = self.reactors.clone();
        let backing = Backing { kind, packed, allowed, coalescing, reactors, queues: Vec::new() };
        self.controllers.push(Controller {
            number,
            name,
            socket: path,
            path: owned,
            backing,
            sessions,
            waiting,
            deleted: false,
        });
        Ok(())
    }

    fn check_name(&self, name: &str) -> Result<(), TargetError> {
        if name.is_empty() {
            return Err(invalid("a controller needs a name"));
        }
        if self.controllers.iter().any(|other| other.name == name && !other.deleted) {
            return Err(TargetError::new(libc::EEXIST, format!("there is a controller {name:?} already")));
        }
        Ok(())
    }

    fn bdev_for(&self, name: &str) -> Result<Arc<dyn Bdev>, TargetError> {
        self.bdev(name)
            .cloned()
            .ok_or_else(|| TargetError::new(libc::ENODEV, format!("there is no bdev {name:?}")))
    }

    /// The reactors on these processors.
    fn allowed(&self, cpus: Option<&[usize]>) -> Result<Vec<usize>, TargetError> {
        let all = 0..self.reactors.len();
        let Some(cpus) = cpus else { return Ok(all.collect()) };
        let reactors = cpus.iter().map(|&cpu| {
            all.clone().find(|&reactor| self.reactors.cpu(reactor) == cpu).ok_or_else(|| {
                let has: Vec<usize> = all.clone().map(|reactor| self.reactors.cpu(reactor)).collect();
                invalid(format!("there is no reactor on processor {cpu}, only on {has:?}"))
            })
        });
        let reactors: Vec<usize> = reactors.collect::<Result<_, _>>()?;
        if reactors.is_empty() { Err(invalid("the CPU mask is empty")) } else { Ok(reactors) }
    }

    pub(super) fn controller_mut(&mut self, name: &str) -> Result<&mut Controller, TargetError> {
        self.controllers
            .iter_mut()
            .find(|other| other.name == name && !other.deleted)
            .ok_or_else(|| TargetError::new(libc::ENODEV, format!("there is no controller {name:?}")))
    }

    fn scsi(&mut self, name: &str) -> Result<&mut Controller, TargetError> {
        let controller = self.controller_mut(name)?;
        match controller.backing.kind {
            Kind::Scsi(_) => Ok(controller),
            Kind::Blk(_) => Err(invalid(format!("{name:?} is a block controller and has no SCSI targets"))),
        }
    }
}

fn listen(socket: Socket) -> Result<Sessions, TargetError> {
    Sessions::new(socket.listener).map_err(|error| kernel("the socket cannot be used", &error))
}

fn wait_for(events: &crate::events::Events, number: u32, sessions: &Sessions) -> Result<(), TargetError> {
    events
        .add(sessions.as_fd(), Source::Controller(number), Readiness::Read)
        .map_err(|error| kernel("the socket cannot be waited for", &error))
}

fn kernel(what: &str, error: &std::io::Error) -> TargetError {
    TargetError::new(error.raw_os_error().unwrap_or(libc::EIO), format!("{what}: {error}"))
}
