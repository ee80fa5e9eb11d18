//! A small, honest model of an NVMe controller, in this process: the whole driver runs against it without VFIO.
//!
//! It reads queues, PRPs and data through an IOMMU of its own ([`crate::dma`]), which knows what the driver has mapped
//! and nothing else, and it keeps to the specification until [`Faults`] say otherwise.

mod admin;
mod fault;
pub mod fuzz;
mod identify;
mod media;
mod processor;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nvlane_memory::dma::{MapperHandle, add_mapper};

pub use fault::Faults;
pub use media::EmulatedNamespace;

use crate::dma::reach::Reach;
use crate::inbox::{new_event, signal};
use crate::spec::{Configuration, register};
use crate::{Device, NvmeError, Registers};
use processor::Processor;

/// What the modelled controller is like.
#[derive(Clone, Debug)]
pub struct EmulatedOptions {
    pub serial: String,
    pub namespaces: Vec<EmulatedNamespace>,
    /// log2 of pages in a command (MDTS); 0: no limit.
    pub max_transfer_shift: u8,
    pub queue_entries: u16,
    pub io_queues: u16,
    pub vectors: u16,
    pub volatile_cache: bool,
    pub shadow_doorbells: bool,
    /// log2 of double words between doorbells (CAP.DSTRD).
    pub doorbell_stride_shift: u8,
}

impl Default for EmulatedOptions {
    fn default() -> Self {
        Self {
            serial: "EMULATED1".to_owned(),
            namespaces: vec![EmulatedNamespace::new(512, 32 << 20), EmulatedNamespace::new(4096, 16 << 20)],
            max_transfer_shift: 5,
            queue_entries: 64,
            io_queues: 8,
            vectors: 9,
            volatile_cache: true,
            shadow_doorbells: false,
            doorbell_stride_shift: 0,
        }
    }
}

/// The device. Commands run when their doorbell rings, or when [`run`](Emulated::run) is called, if they are held.
pub struct Emulated {
    processor: Mutex<Processor>,
    _mapper: MapperHandle,
    removal: OwnedFd,
    bar: usize,
}

impl Emulated {
    /// # Errors
    /// When the system has no more descriptors.
    pub fn new(options: EmulatedOptions) -> Result<Arc<Self>, NvmeError> {
        let reach = Arc::new(Reach::default());
        let mapper =
            add_mapper(reach.clone()).map_err(|error| NvmeError::system("the model's IOMMU", &error))?;
        let stride = 4usize << options.doorbell_stride_shift;
        let bar =
            (register::DOORBELLS + 2 * (usize::from(options.io_queues) + 1) * stride).next_multiple_of(4096);
        Ok(Arc::new(Self {
            processor: Mutex::new(Processor::new(options, reach)),
            _mapper: mapper,
            removal: new_event()?,
            bar,
        }))
    }

    fn processor(&self) -> MutexGuard<'_, Processor> {
        self.processor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets faults; what the device does from now on.
    pub fn inject(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.processor().faults);
    }

    /// Runs commands that were held, and looks at shadow doorbells. The number of commands.
    pub fn run(&self) -> usize {
        self.processor().run_all()
    }

    /// Changes the size of a namespace and tells the host, as if an administrator had.
    pub fn resize(&self, namespace: u32, blocks: u64) {
        let mut processor = self.processor();
        processor.media.resize(namespace, blocks);
        processor.namespaces_changed();
    }

    pub fn remove_namespace(&self, namespace: u32) {
        let mut processor = self.processor();
        processor.media.remove(namespace);
        processor.namespaces_changed();
    }

    /// Asks for the device back, as the kernel does on hot unplug.
    pub fn request_removal(&self) {
        signal(self.removal.as_fd());
    }

    /// What a namespace holds.
    pub fn peek(&self, namespace: u32, offset: usize, to: &mut [u8]) {
        self.processor().media.peek(namespace, offset, to);
    }

    /// Accesses to memory that is not mapped, and other things that no driver may do: a sentence for each.
    pub fn complaints(&self) -> Vec<String> {
        self.processor().complaints.clone()
    }

    pub fn counters(&self) -> Counters {
        self.processor().counters
    }
}

/// What the device has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub commands: u64,
    pub flushes: u64,
    pub deallocations: u64,
    pub aborts: u64,
    pub submission_doorbells: u64,
    pub completion_doorbells: u64,
    pub enables: u64,
    pub function_resets: u64,
    pub shutdowns: u64,
}

impl Registers for Emulated {
    fn read32(&self, offset: usize) -> u32 {
        self.processor().read(offset)
    }

    fn read64(&self, offset: usize) -> u64 {
        let processor = self.processor();
        u64::from(processor.read(offset)) | u64::from(processor.read(offset + 4)) << 32
    }

    fn write32(&self, offset: usize, value: u32) {
        self.processor().write(offset, value);
    }

    fn write64(&self, offset: usize, value: u64) {
        let mut processor = self.processor();
        processor.write(offset, value as u32);
        processor.write(offset + 4, (value >> 32) as u32);
    }

    fn len(&self) -> usize {
        self.bar
    }
}

impl Device for Emulated {
    fn address(&self) -> &str {
        "emulated"
    }

    fn reset(&self) -> Result<(), NvmeError> {
        let mut processor = self.processor();
        if processor.faults.reset_fails {
            return Err(NvmeError::new(
                libc::EIO,
                "the model's function level reset fails, as it was told to",
            ));
        }
        processor.counters.function_resets += 1;
        processor.faults.stays_ready = false;
        processor.faults.never_ready &= !processor.faults.reset_cures;
        processor.write(register::CC, Configuration::DISABLED.0);
        Ok(())
    }

    fn set_bus_master(&self, on: bool) -> Result<(), NvmeError> {
        self.processor().bus_master = on;
        Ok(())
    }

    fn vectors(&self) -> u16 {
        self.processor().options.vectors
    }

    fn connect_vector(&self, vector: u16, event: Option<BorrowedFd<'_>>) -> Result<(), NvmeError> {
        let event = event.map(|event| event.try_clone_to_owned()).transpose();
        let event = event.map_err(|error| NvmeError::system("an interrupt's eventfd", &error))?;
        self.processor().connect(vector, event);
        Ok(())
    }

    fn removal(&self) -> Option<BorrowedFd<'_>> {
        Some(self.removal.as_fd())
    }
}
