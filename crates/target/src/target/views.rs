//! What there is, for whoever asks.

use std::path::PathBuf;

use super::Target;
use crate::controller::{Controller, Kind};
use crate::device::scsi::TargetView;
use crate::reactor::Coalescing;

/// A controller as `vhost_get_controllers` shows it.
#[derive(Clone, Debug)]
pub struct ControllerView {
    pub name: String,
    /// The processors that its queues may be served on, ascending.
    pub cpus: Vec<usize>,
    pub coalescing: Coalescing,
    pub socket: PathBuf,
    /// False: not started yet.
    pub started: bool,
    /// Front ends that are connected.
    pub sessions: Vec<SessionView>,
    /// The queues that a front end may have.
    pub max_queues: u16,
    pub kind: KindView,
}

/// A connected front end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Counted from 1, for each controller.
    pub number: u32,
    /// How many of its queues are served.
    pub queues: usize,
}

#[derive(Clone, Debug)]
pub enum KindView {
    Blk {
        /// None: it was removed.
        bdev: Option<String>,
        read_only: bool,
        packed_ring: bool,
    },
    Scsi {
        targets: Vec<TargetView>,
    },
}

impl Target {
    /// Oldest first.
    pub fn controllers(&self) -> Vec<ControllerView> {
        self.controllers
            .iter()
            .filter(|controller| !controller.deleted)
            .map(|other| self.view(other))
            .collect()
    }

    pub fn controller(&self, name: &str) -> Option<ControllerView> {
        self.controllers
            .iter()
            .find(|other| other.name == name && !other.deleted)
            .map(|other| self.view(other))
    }

    fn view(&self, controller: &Controller) -> ControllerView {
        let backing = &controller.backing;
        let mut cpus: Vec<usize> =
            backing.allowed.iter().map(|&reactor| self.reactors.cpu(reactor)).collect();
        cpus.sort_unstable();
        let connected = controller.sessions.as_ref().map(|sessions| sessions.connected()).unwrap_or_default();
        let kind = match &backing.kind {
            Kind::Blk(blk) => KindView::Blk {
                bdev: blk.bdev().map(|bdev| bdev.info().name.clone()),
                read_only: blk.read_only(),
                packed_ring: backing.packed,
            },
            Kind::Scsi(scsi) => KindView::Scsi { targets: scsi.targets() },
        };
        ControllerView {
            name: controller.name.clone(),
            cpus,
            coalescing: backing.coalescing,
            socket: controller.socket.clone(),
            started: controller.sessions.is_some(),
            sessions: connected.into_iter().map(|(number, queues)| SessionView { number, queues }).collect(),
            max_queues: backing.queues(),
            kind,
        }
    }
}
