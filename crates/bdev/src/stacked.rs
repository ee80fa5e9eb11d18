//! What `error` and `delay` share: they stand on another bdev and are otherwise what that one is.

use std::sync::Arc;

use crate::{Base, Bdev, BdevError, Info, Operation, Uuid};

/// The bdev below, claimed for as long as this lives.
pub(crate) struct Below(Arc<dyn Bdev>);

impl Below {
    pub fn claim(bdev: Arc<dyn Bdev>) -> Self {
        bdev.base().claim();
        Self(bdev)
    }

    /// The description of a bdev of that name on this one.
    pub fn base(&self, name: &str, uuid: Uuid, product_name: &'static str) -> Result<Base, BdevError> {
        let info = Info { name: name.into(), uuid, product_name, ..self.0.info().clone() };
        info.check()?;
        Ok(Base::new(info))
    }

    pub fn bdev(&self) -> &dyn Bdev {
        &*self.0
    }

    pub fn name(&self) -> &str {
        &self.0.info().name
    }

    pub fn supports(&self, operation: Operation) -> bool {
        self.0.supports(operation)
    }
}

impl Drop for Below {
    fn drop(&mut self) {
        self.0.base().release();
    }
}
