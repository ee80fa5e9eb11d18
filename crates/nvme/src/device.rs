//! What the driver needs of a device: registers, a reset, interrupts. VFIO gives it for real (`vfio`); a model in this
//! process gives it to tests (`emulated`).

use std::os::fd::BorrowedFd;

use crate::NvmeError;

/// The registers of BAR0. An access never fails: registers of a device that is gone read as all ones.
pub trait Registers: Send + Sync {
    fn read32(&self, offset: usize) -> u32;
    /// One access of 64 bits, or two of 32, the lower half first (3.1.2 leaves the choice to the host).
    fn read64(&self, offset: usize) -> u64;
    /// Everything that was written to memory before is visible to the device when it sees this.
    fn write32(&self, offset: usize, value: u32);
    fn write64(&self, offset: usize, value: u64);
    /// Bytes that are mapped.
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A PCI function that is ours alone.
pub trait Device: Registers {
    /// The PCI address, for people.
    fn address(&self) -> &str;

    /// Function level reset. Afterwards the function is as after power-on, except that it may be the bus master.
    ///
    /// # Errors
    /// When the function has no reset, or it did not take.
    fn reset(&self) -> Result<(), NvmeError>;

    /// Allows or forbids the device to read and write memory.
    ///
    /// # Errors
    /// When configuration space does not take it.
    fn set_bus_master(&self, on: bool) -> Result<(), NvmeError>;

    /// Interrupt vectors (MSI-X) that can be used.
    fn vectors(&self) -> u16;

    /// Connects a vector to an eventfd, or to nothing. It costs system calls.
    ///
    /// # Errors
    /// When the kernel does not give the interrupt.
    fn connect_vector(&self, vector: u16, event: Option<BorrowedFd<'_>>) -> Result<(), NvmeError>;

    /// An eventfd that becomes readable when the system wants the device back (hot unplug, unbind).
    fn removal(&self) -> Option<BorrowedFd<'_>>;
}
