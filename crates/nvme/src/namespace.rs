use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::spec::{Identifiers, IdentifyNamespace};

/// A namespace that the driver serves. Its size may change; its block size does not (it would be another one then).
#[derive(Debug)]
pub struct Namespace {
    pub id: u32,
    pub block_shift: u8,
    pub data: IdentifyNamespace,
    pub identifiers: Identifiers,
    blocks: AtomicU64,
    gone: AtomicBool,
}

impl Namespace {
    /// # Errors
    /// Why it cannot be served: a sentence.
    pub(crate) fn new(id: u32, data: IdentifyNamespace, identifiers: Identifiers) -> Result<Self, String> {
        let place = format!("namespace {id}");
        if data.metadata != 0 {
            return Err(format!(
                "{place} is formatted with {} bytes of metadata for each block, which no guest's disk has: format it \
                 without ('nvme format --lbaf=...')",
                data.metadata
            ));
        }
        if !(9..=16).contains(&data.block_shift) {
            return Err(format!("{place} says that its blocks have 2^{} bytes", data.block_shift));
        }
        if let Some(set @ 1..) = identifiers.command_set {
            return Err(format!(
                "{place} speaks I/O command set {set}, not NVM: it is zoned or keeps keys and values"
            ));
        }
        if data.size >= 1 << (64 - u32::from(data.block_shift)) {
            return Err(format!("{place} says that it has {} blocks", data.size));
        }
        let blocks = AtomicU64::new(data.size);
        Ok(Self {
            id,
            block_shift: data.block_shift,
            data,
            identifiers,
            blocks,
            gone: AtomicBool::new(false),
        })
    }

    /// Its size now, in blocks.
    pub fn blocks(&self) -> u64 {
        self.blocks.load(Ordering::Acquire)
    }

    pub fn block_size(&self) -> u32 {
        1 << self.block_shift
    }

    /// Whether it was removed.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// True when the size is another one now.
    pub(crate) fn set_blocks(&self, blocks: u64) -> bool {
        self.blocks.swap(blocks, Ordering::AcqRel) != blocks
    }

    pub(crate) fn set_gone(&self) {
        self.gone.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(block_shift: u8, metadata: u16) -> IdentifyNamespace {
        let mut page = [0; 4096];
        page[0] = 8;
        page[128..132].copy_from_slice(&(u32::from(block_shift) << 16 | u32::from(metadata)).to_le_bytes());
        IdentifyNamespace::parse(&page)
    }

    #[test]
    fn what_cannot_be_served_is_refused_with_the_reason() {
        assert!(Namespace::new(1, data(9, 0), Identifiers::default()).is_ok());
        assert!(Namespace::new(1, data(12, 0), Identifiers::default()).is_ok());
        let why = Namespace::new(2, data(12, 8), Identifiers::default()).unwrap_err();
        assert!(why.contains("namespace 2") && why.contains("8 bytes of metadata"), "{why}");
        assert!(Namespace::new(1, data(8, 0), Identifiers::default()).is_err());
        let zoned = Identifiers { command_set: Some(2), ..Identifiers::default() };
        assert!(Namespace::new(1, data(12, 0), zoned).unwrap_err().contains("zoned"));
    }
}
