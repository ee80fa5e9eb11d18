//! A virtio SCSI host (virtio 1.3, 5.6) on the control thread: its targets, each a bdev.

use std::sync::Arc;

use nvlane_bdev::Bdev;

use crate::controller::{FrontEnd, NewQueue};
use crate::reactor::{Reactors, Served};
use crate::target::TargetError;

/// SPDK_VHOST_SCSI_CTRLR_MAX_DEVS
pub const TARGETS: usize = 8;

/// A target as `vhost_get_controllers` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetView {
    pub number: u8,
    pub bdev: String,
}

pub struct ScsiFrontEnd {
    targets: [Option<Arc<dyn Bdev>>; TARGETS],
}

impl ScsiFrontEnd {
    /// `reactors`: those that its queues may be on.
    pub fn new(_reactors: &[usize]) -> Self {
        Self { targets: [const { None }; TARGETS] }
    }

    /// # Errors
    /// EINVAL: no such number; EEXIST: it is taken; ENOSPC: all are.
    pub fn add_target(
        &mut self,
        number: Option<u8>,
        bdev: Arc<dyn Bdev>,
        _reactors: &Reactors,
    ) -> Result<u8, TargetError> {
        let number =
            match number {
                Some(number) => usize::from(number),
                None => self.targets.iter().position(Option::is_none).ok_or_else(|| {
                    TargetError::new(libc::ENOSPC, format!("all {TARGETS} targets are taken"))
                })?,
            };
        match self.targets.get_mut(number) {
            None => Err(TargetError::new(
                libc::EINVAL,
                format!("there is no target {number}: 0 to {}", TARGETS - 1),
            )),
            Some(Some(_)) => Err(TargetError::new(libc::EEXIST, format!("target {number} is taken"))),
            Some(free) => {
                *free = Some(bdev);
                Ok(number as u8)
            }
        }
    }

    /// # Errors
    /// ENODEV: there is none.
    pub fn remove_target(&mut self, number: u8, _reactors: &Reactors) -> Result<(), TargetError> {
        let target = self.targets.get_mut(usize::from(number)).and_then(Option::take);
        target.map(drop).ok_or_else(|| TargetError::new(libc::ENODEV, format!("there is no target {number}")))
    }

    pub fn targets(&self) -> Vec<TargetView> {
        let numbered = self.targets.iter().zip(0..);
        numbered
            .filter_map(|(target, number)| {
                Some(TargetView { number, bdev: target.as_ref()?.info().name.clone() })
            })
            .collect()
    }
}

impl FrontEnd for ScsiFrontEnd {
    fn features(&self) -> u64 {
        0
    }

    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    fn device(&mut self, _queue: NewQueue, _reactors: &Reactors) -> Result<Box<dyn Served>, String> {
        Err("SCSI queues are not served yet".into())
    }

    fn resized(&mut self, _bdev: &Arc<dyn Bdev>, _reactors: &Reactors) -> bool {
        false
    }

    fn removed(&mut self, bdev: &Arc<dyn Bdev>, _reactors: &Reactors) -> bool {
        for target in &mut self.targets {
            if target.as_ref().is_some_and(|ours| Arc::ptr_eq(ours, bdev)) {
                *target = None;
            }
        }
        false
    }

    fn close(&mut self, _reactors: &Reactors) {
        self.targets = [const { None }; TARGETS];
    }
}
