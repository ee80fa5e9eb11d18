//! Which pages of the guest's a device has written, told to whoever migrates it (vhost-user.rst, "Migration").

use std::sync::Arc;

use nvlane_memory::{DirtyLog, GuestMemory, Segment};

/// The log, and the memory by whose addresses it counts.
#[derive(Clone)]
pub struct Log {
    pub pages: Arc<DirtyLog>,
    pub memory: Arc<GuestMemory>,
}

impl Log {
    /// Marks what the segments cover. Call it after the bytes are there and before the guest is told: a page marked
    /// early could be copied, and its mark cleared, before the device writes it.
    #[cold]
    pub fn wrote(&self, segments: &[Segment]) {
        for segment in segments {
            let address = segment.base() as usize as u64;
            let region = self.memory.regions().iter().find(|region| {
                let base = region.base() as usize as u64;
                address >= base && address - base < region.size()
            });
            if let Some(region) = region {
                let offset = address - region.base() as usize as u64;
                self.pages.mark(region.guest_address() + offset, segment.len() as u64);
            }
        }
    }
}
