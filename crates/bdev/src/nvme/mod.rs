//! `nvme`: the namespaces of a drive that the polled driver of `nvlane-nvme` has taken over.
//!
//! A controller called `NAME` gives bdevs called `NAMEn1`, `NAMEn2` and so on, as in SPDK.

mod channel;
mod describe;

use std::sync::Arc;

use serde_json::Value;

use nvlane_nvme::{Controller, Device, Namespace, NvmeError, Options, vfio};

pub use channel::NvmeChannel;
pub use nvlane_nvme::{Event as NvmeEvent, Options as NvmeOptions, State as NvmeState};

use crate::{Backend, Base, Bdev, BdevError, Info, Operation, Uuid};

/// A controller that was attached. Dropping it shuts the controller down, which takes time: not for the control thread.
pub struct NvmeController {
    name: String,
    controller: Arc<Controller>,
    numa_node: i32,
}

impl NvmeController {
    /// Takes over the drive at a PCI address that is bound to vfio-pci. It waits for the drive, for seconds at worst, so
    /// it belongs on a thread of its own. `listener` is called on the controller's own thread.
    ///
    /// # Errors
    /// ENODEV without such a function; else why it cannot be driven.
    pub fn attach(
        name: &str,
        address: &str,
        options: Options,
        listener: Box<dyn Fn(NvmeEvent) + Send>,
    ) -> Result<Self, BdevError> {
        Self::attach_device(name, vfio::open(address)?, options, listener)
    }

    /// The same for a device that was opened already.
    ///
    /// # Errors
    /// As `attach`.
    pub fn attach_device(
        name: &str,
        device: Arc<dyn Device>,
        options: Options,
        listener: Box<dyn Fn(NvmeEvent) + Send>,
    ) -> Result<Self, BdevError> {
        if name.is_empty() {
            return Err(BdevError::new(libc::EINVAL, "an NVMe controller needs a name"));
        }
        let numa_node = describe::numa_node(device.address());
        let controller = Arc::new(Controller::attach(device, options, listener)?);
        Ok(Self { name: name.to_owned(), controller, numa_node })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn address(&self) -> &str {
        &self.controller.info().address
    }

    pub fn state(&self) -> NvmeState {
        self.controller.state()
    }

    /// A bdev for each namespace that can be served; those that cannot are in `unusable`.
    pub fn bdevs(&self) -> Vec<Arc<NvmeBdev>> {
        self.controller.namespaces().into_iter().map(|namespace| Arc::new(self.bdev_of(namespace))).collect()
    }

    /// The bdev of one namespace: of one that came later (`NvmeEvent::Added`).
    pub fn bdev(&self, namespace: u32) -> Option<Arc<NvmeBdev>> {
        let found = self.controller.namespaces().into_iter().find(|each| each.id == namespace)?;
        Some(Arc::new(self.bdev_of(found)))
    }

    /// What the bdev of a namespace is called.
    pub fn bdev_name(&self, namespace: u32) -> String {
        format!("{}n{namespace}", self.name)
    }

    /// Why other namespaces are not served: a sentence for each.
    pub fn unusable(&self) -> Vec<String> {
        self.controller.unusable()
    }

    /// Resets the controller; requests in flight are sent again.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn reset(&self, limit: std::time::Duration) -> Result<(), BdevError> {
        Ok(self.controller.reset(limit)?)
    }

    /// An element of what `bdev_nvme_get_controllers` answers.
    pub fn describe(&self) -> Value {
        describe::controller(self)
    }

    fn bdev_of(&self, namespace: Arc<Namespace>) -> NvmeBdev {
        let identify = &self.controller.info().identify;
        let data = &namespace.data;
        let [_, _, unmap_granularity, _, optimal_write_size] = data.preferred;
        let info = Info {
            product_name: "NVMe disk",
            volatile_cache: identify.volatile_cache,
            read_only: data.write_protected,
            unmap_granularity,
            optimal_write_size,
            numa_node: self.numa_node,
            ..Info::new(
                self.bdev_name(namespace.id),
                uuid_of(&namespace, &identify.serial),
                namespace.block_size(),
            )
        };
        NvmeBdev { base: Base::new(info), controller: self.controller.clone(), namespace }
    }
}

impl From<NvmeError> for BdevError {
    fn from(error: NvmeError) -> Self {
        BdevError::new(error.errno, error.message)
    }
}

/// The namespace's own UUID, or one made of what else names it: the same at every start.
fn uuid_of(namespace: &Namespace, serial: &str) -> Uuid {
    let identifiers = &namespace.identifiers;
    let nguid = identifiers.nguid.unwrap_or(namespace.data.nguid);
    match identifiers.uuid {
        Some(uuid) if uuid != [0; 16] => Uuid::from_bytes(uuid),
        _ if nguid != [0; 16] => Uuid::from_bytes(nguid),
        _ => {
            let eui64 = identifiers.eui64.unwrap_or(namespace.data.eui64);
            Uuid::from_bytes(named(serial, &eui64, namespace.id))
        }
    }
}

/// A version 8 UUID (RFC 9562, 5.8): FNV-1a, 128 bits, of the words.
fn named(serial: &str, eui64: &[u8; 8], namespace: u32) -> [u8; 16] {
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let words = serial.bytes().chain(*eui64).chain(namespace.to_le_bytes());
    let hash = words.fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(PRIME)
    });
    let mut bytes = hash.to_be_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}

/// One namespace. It keeps its controller attached.
pub struct NvmeBdev {
    base: Base,
    controller: Arc<Controller>,
    namespace: Arc<Namespace>,
}

impl NvmeBdev {
    pub fn namespace(&self) -> u32 {
        self.namespace.id
    }
}

impl Bdev for NvmeBdev {
    fn base(&self) -> &Base {
        &self.base
    }

    fn blocks(&self) -> u64 {
        self.namespace.blocks()
    }

    fn supports(&self, operation: Operation) -> bool {
        let identify = &self.controller.info().identify;
        match operation {
            Operation::Read => true,
            Operation::Write => !self.info().read_only,
            Operation::Flush => identify.volatile_cache,
            Operation::Unmap => identify.dataset_management && !self.info().read_only,
            Operation::WriteZeroes { .. } => identify.write_zeroes && !self.info().read_only,
        }
    }

    /// A queue pair of its own: a drive has so many, and says so when there are no more.
    fn backend(&self, _reactor: usize) -> Result<Backend, BdevError> {
        let queue = self.controller.open(self.namespace.id)?;
        Ok(Backend::Nvme(Box::new(NvmeChannel::new(queue))))
    }

    fn driver_specific(&self) -> Value {
        describe::namespace(&self.controller, &self.namespace)
    }
}
