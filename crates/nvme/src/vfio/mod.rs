//! Devices through VFIO (Documentation/driver-api/vfio.rst): the group and container of always, and the device files and
//! iommufd of kernels that have them.
//!
//! All devices of the process share one I/O address space, so memory is mapped (and pinned) once, however many drives
//! there are. [`nvlane_memory::dma`] tells it of every range.

mod abi;
mod config;
mod container;
mod function;
mod interrupts;
mod iommufd;
mod space;
mod sysfs;

use std::sync::Arc;

pub use function::VfioFunction;

use crate::{Device, NvmeError};

/// Opens a PCI function by its address ("0000:05:00.0"). It stays ours until the value is dropped.
///
/// # Errors
/// What is wrong and what helps: not bound to vfio-pci, a group that is not viable, no permission, no IOMMU, memory
/// that cannot be locked, addresses that the IOMMU cannot translate.
pub fn open(address: &str) -> Result<Arc<dyn Device>, NvmeError> {
    VfioFunction::open(address).map(|function| Arc::new(function) as Arc<dyn Device>)
}
