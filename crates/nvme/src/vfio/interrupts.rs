//! MSI-X vectors and the request to let the device go, as eventfds.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::abi;
use crate::NvmeError;
use crate::inbox::new_event;

pub struct Interrupts {
    /// MSI-X vectors that were taken.
    pub vectors: u16,
    /// Signalled when the kernel wants the device back.
    pub request: Option<OwnedFd>,
}

impl Interrupts {
    /// Takes as many vectors as the device has and the driver can use, all of them silent.
    pub fn new(device: BorrowedFd<'_>) -> Self {
        let mut vectors = count(device, abi::IRQ_MSIX).min(abi::MAX_VECTORS as u32);
        // All at once: kernels before 6.4 cannot add vectors later. Where the system is short of them, fewer do too.
        while vectors > 0 && set(device, abi::IRQ_MSIX, 0, vectors, None).is_err() {
            vectors /= 2;
        }
        // Without that event a device is let go only when it is detached.
        let request = new_event().ok().filter(|event| {
            count(device, abi::IRQ_REQUEST) > 0
                && set(device, abi::IRQ_REQUEST, 0, 1, Some(event.as_fd())).is_ok()
        });
        Self { vectors: vectors as u16, request }
    }

    pub fn connect(
        &self,
        device: BorrowedFd<'_>,
        vector: u16,
        event: Option<BorrowedFd<'_>>,
    ) -> Result<(), NvmeError> {
        set(device, abi::IRQ_MSIX, u32::from(vector), 1, event)
            .map_err(|error| NvmeError::system(format_args!("MSI-X vector {vector}"), &error))
    }
}

fn count(device: BorrowedFd<'_>, index: u32) -> u32 {
    let mut info = abi::IrqInfo { size: abi::size::<abi::IrqInfo>(), index, ..Default::default() };
    // SAFETY: VFIO_DEVICE_GET_IRQ_INFO takes a struct vfio_irq_info. An index that the device lacks is an error.
    match unsafe { abi::with_structure(device, abi::DEVICE_GET_IRQ_INFO, &mut info) } {
        Ok(_) => info.count,
        Err(_) => 0,
    }
}

/// Connects `count` interrupts from `start` on to an eventfd, or disconnects them.
fn set(
    device: BorrowedFd<'_>,
    index: u32,
    start: u32,
    count: u32,
    event: Option<BorrowedFd<'_>>,
) -> std::io::Result<()> {
    let mut set = abi::IrqSet {
        size: 20 + 4 * count,
        flags: abi::IRQ_DATA_EVENTFD | abi::IRQ_TRIGGER,
        index,
        start,
        count,
        events: [event.map_or(-1, |event| event.as_raw_fd()); abi::MAX_VECTORS],
    };
    // SAFETY: VFIO_DEVICE_SET_IRQS takes a struct vfio_irq_set and `count` descriptors, of which there are MAX_VECTORS.
    match unsafe { abi::with_structure(device, abi::DEVICE_SET_IRQS, &mut set) } {
        Ok(0) => Ok(()),
        // It says how many there are instead.
        Ok(_) => Err(std::io::Error::from_raw_os_error(libc::ENOSPC)),
        Err(error) => Err(error),
    }
}
