//! `null`: takes what is written and reads back whatever the buffer held, as SPDK's null bdev does. It measures the
//! path, and nothing but the path.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde_json::{Value, json};

use crate::{Backend, Base, Bdev, BdevError, Info, Operation};

pub struct Null {
    base: Base,
    blocks: AtomicU64,
}

impl Null {
    pub fn new(info: Info, blocks: u64) -> Result<Self, BdevError> {
        info.check()?;
        if blocks == 0 {
            return Err(BdevError::new(
                libc::EINVAL,
                format!("null bdev {:?}: a size of no blocks", info.name),
            ));
        }
        Ok(Self {
            base: Base::new(Info { product_name: "Null disk", ..info }),
            blocks: AtomicU64::new(blocks),
        })
    }
}

impl Bdev for Null {
    fn base(&self) -> &Base {
        &self.base
    }

    fn blocks(&self) -> u64 {
        self.blocks.load(Relaxed)
    }

    fn supports(&self, _operation: Operation) -> bool {
        true
    }

    fn backend(&self, _reactor: usize) -> Result<Backend, BdevError> {
        Ok(Backend::Null)
    }

    fn driver_specific(&self) -> Value {
        json!({})
    }

    fn resize(&self, blocks: u64) -> Result<(), BdevError> {
        if blocks == 0 {
            return Err(BdevError::new(
                libc::EINVAL,
                format!("null bdev {:?}: a size of no blocks", self.info().name),
            ));
        }
        self.blocks.store(blocks, Relaxed);
        Ok(())
    }
}
