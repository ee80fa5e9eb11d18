//! The bdevs of a target: names, removal under way, sizes that change.

use std::sync::Arc;

use nvlane_bdev::Bdev;

use super::{Target, TargetError};

pub(super) struct Entry {
    pub bdev: Arc<dyn Bdev>,
    pub aliases: Vec<String>,
}

/// A bdev as `bdev_get_bdevs` shows it.
#[derive(Clone)]
pub struct BdevView {
    pub bdev: Arc<dyn Bdev>,
    /// Other names besides the UUID.
    pub aliases: Vec<String>,
}

impl Entry {
    fn is_called(&self, name: &str) -> bool {
        let info = self.bdev.info();
        info.name == name || self.aliases.iter().any(|alias| alias == name) || info.uuid.to_string() == name
    }
}

impl Target {
    /// # Errors
    /// EEXIST: one of its names is taken.
    pub fn add_bdev(&mut self, bdev: Arc<dyn Bdev>, aliases: Vec<String>) -> Result<(), TargetError> {
        let info = bdev.info();
        let uuid = info.uuid.to_string();
        for name in aliases.iter().chain([&info.name, &uuid]) {
            if self.bdevs.iter().any(|entry| entry.is_called(name)) {
                return Err(TargetError::new(libc::EEXIST, format!("there is a bdev {name:?} already")));
            }
        }
        self.bdevs.push(Entry { bdev, aliases });
        Ok(())
    }

    /// By name, alias or UUID.
    pub fn bdev(&self, name: &str) -> Option<&Arc<dyn Bdev>> {
        self.bdevs.iter().find(|entry| entry.is_called(name)).map(|entry| &entry.bdev)
    }

    /// Oldest first.
    pub fn bdevs(&self) -> Vec<BdevView> {
        self.bdevs
            .iter()
            .map(|entry| BdevView { bdev: entry.bdev.clone(), aliases: entry.aliases.clone() })
            .collect()
    }

    /// Takes a bdev away from whoever uses it: from now on their requests fail, those under way end first. It is dropped
    /// when the last has.
    ///
    /// # Errors
    /// ENODEV: there is none. EBUSY: another bdev stands on it.
    pub fn remove_bdev(&mut self, name: &str) -> Result<Arc<dyn Bdev>, TargetError> {
        let index = self.position(name)?;
        if self.bdevs[index].bdev.claimed() {
            let why = format!("bdev {name:?} is used by another bdev; delete that one first");
            return Err(TargetError::new(libc::EBUSY, why));
        }
        let Entry { bdev, .. } = self.bdevs.remove(index);
        let reactors = self.reactors.clone();
        for controller in &mut self.controllers {
            if controller.backing.front_end_mut().removed(&bdev, &reactors) {
                controller.config_changed();
            }
        }
        Ok(bdev)
    }

    /// Changes the size of a bdev that has one of its own; guests are told.
    ///
    /// # Errors
    /// ENODEV: there is none. Else what the bdev says.
    pub fn resize_bdev(&mut self, name: &str, blocks: u64) -> Result<(), TargetError> {
        let bdev = self.bdevs[self.position(name)?].bdev.clone();
        // Guests must not reach beyond a disk that shrinks: the queues check against the new size before it holds.
        bdev.resize(blocks)?;
        self.bdev_resized(&bdev);
        Ok(())
    }

    /// A bdev has found out that its size is another.
    pub fn bdev_resized(&mut self, bdev: &Arc<dyn Bdev>) {
        let reactors = self.reactors.clone();
        for controller in &mut self.controllers {
            if controller.backing.front_end_mut().resized(bdev, &reactors) {
                controller.config_changed();
            }
        }
    }

    fn position(&self, name: &str) -> Result<usize, TargetError> {
        self.bdevs
            .iter()
            .position(|entry| entry.is_called(name))
            .ok_or_else(|| TargetError::new(libc::ENODEV, format!("there is no bdev {name:?}")))
    }
}
