//! Making sure that a device reads and writes no memory any more, whatever state it is in.

use std::time::{Duration, Instant};

use crate::spec::{Capabilities, Configuration, ControllerStatus, ShutdownStatus, register};
use crate::{Device, NvmeError, Options};

/// What it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quiet {
    /// CC.EN = 0 was enough.
    Disabled,
    /// A function level reset.
    Reset,
    /// It is no bus master any more, and good for nothing.
    Isolated,
    /// It is not there.
    Gone,
}

/// Clears CC.EN and waits for CSTS.RDY = 0 (3.5.1: from then on the controller accesses no queue and no data).
///
/// # Errors
/// ENODEV, ETIMEDOUT.
pub(crate) fn disable(device: &dyn Device, options: &Options) -> Result<(), NvmeError> {
    let configuration = Configuration(device.read32(register::CC));
    if configuration.0 == u32::MAX {
        return Err(NvmeError::gone(device.address()));
    }
    device.write32(register::CC, configuration.without_enable().0);
    wait_ready(device, false, options)
}

/// Waits for CSTS.RDY, for as long as CAP.TO allows.
///
/// # Errors
/// ENODEV, ETIMEDOUT, EIO for a fatal status while it gets ready.
pub(crate) fn wait_ready(device: &dyn Device, ready: bool, options: &Options) -> Result<(), NvmeError> {
    let limit = Capabilities(device.read64(register::CAP)).ready_timeout().min(options.ready_limit);
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_micros(50);
    loop {
        let status = ControllerStatus(device.read32(register::CSTS));
        let address = device.address();
        if status.is_absent() {
            return Err(NvmeError::gone(address));
        }
        if status.is_ready() == ready {
            return Ok(());
        }
        if ready && status.is_fatal() {
            return Err(NvmeError::new(
                libc::EIO,
                format!(
                    "{address}: the controller reports a fatal status (CSTS.CFS) while it is being enabled"
                ),
            ));
        }
        if Instant::now() >= deadline {
            return Err(NvmeError::new(
                libc::ETIMEDOUT,
                format!(
                    "{address}: CSTS.RDY did not become {} within {limit:?}, which is what CAP.TO allows",
                    u8::from(ready)
                ),
            ));
        }
        // The specification has no event for this.
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// Ends all accesses of the device to memory: it is disabled, else reset, else forbidden the bus.
///
/// # Errors
/// When not even that can be said; then none of the memory that it knows may ever be used for something else.
pub(crate) fn quiesce(device: &dyn Device, options: &Options) -> Result<Quiet, NvmeError> {
    match disable(device, options) {
        Ok(()) => return Ok(Quiet::Disabled),
        Err(error) if error.is_gone() => return Ok(Quiet::Gone),
        Err(_) => {}
    }
    if device.reset().is_ok() {
        return match disable(device, options) {
            Ok(()) => Ok(Quiet::Reset),
            Err(error) if error.is_gone() => Ok(Quiet::Gone),
            // Reset and still 'ready': nothing it says is of use.
            Err(_) => device.set_bus_master(false).map(|()| Quiet::Isolated),
        };
    }
    device.set_bus_master(false).map(|()| Quiet::Isolated)
}

/// Tells the controller that the end is near, so that it writes back its caches and is quick next time (3.6.1).
///
/// # Errors
/// ENODEV, ETIMEDOUT; data that a flush completed for is safe all the same.
pub(crate) fn shut_down(device: &dyn Device, limit: Duration) -> Result<(), NvmeError> {
    let configuration = Configuration(device.read32(register::CC));
    if configuration.0 == u32::MAX {
        return Err(NvmeError::gone(device.address()));
    }
    device.write32(register::CC, configuration.shutting_down().0);
    let deadline = Instant::now() + limit;
    loop {
        let status = ControllerStatus(device.read32(register::CSTS));
        if status.is_absent() {
            return Err(NvmeError::gone(device.address()));
        }
        if status.shutdown() == ShutdownStatus::Complete {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(NvmeError::new(
                libc::ETIMEDOUT,
                format!("{}: the controller did not finish its shutdown within {limit:?}", device.address()),
            ));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
