//! A PCI function of ours.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::abi;
use super::config::Config;
use super::container::Group;
use super::interrupts::Interrupts;
use super::iommufd::{self, Iommufd};
use super::sysfs::Function;
use crate::mmio::Bar;
use crate::{Device, NvmeError, Registers};

/// Enough for the doorbells of 64 queues that are 4 KiB apart.
const MAX_BAR: u64 = 1 << 20;

/// Fields are dropped in this order: the registers before the device, the device before its address space.
pub struct VfioFunction {
    bar: Bar,
    interrupts: Interrupts,
    config: Config,
    device: File,
    address: String,
    can_reset: bool,
    _keeper: Keeper,
}

/// What has to stay open with the device.
enum Keeper {
    Group(#[expect(dead_code, reason = "held open")] Arc<Group>),
    Iommufd(#[expect(dead_code, reason = "held open")] Arc<Iommufd>),
}

impl VfioFunction {
    /// # Errors
    /// See [`super::open`].
    pub fn open(address: &str) -> Result<Self, NvmeError> {
        let function = Function::find(address)?;
        function.check_driver()?;
        let (device, keeper) = match function.device_file().filter(|_| iommufd::is_there()) {
            Some(path) => {
                let (device, iommufd) = iommufd::open(&path)?;
                (device, Keeper::Iommufd(iommufd))
            }
            None => {
                let group = Group::of(&function, address)?;
                (group.device(address)?, Keeper::Group(group))
            }
        };
        Self::of(device, keeper, address)
    }

    fn of(device: OwnedFd, keeper: Keeper, address: &str) -> Result<Self, NvmeError> {
        let mut info = abi::DeviceInfo { size: abi::size::<abi::DeviceInfo>(), ..Default::default() };
        // SAFETY: VFIO_DEVICE_GET_INFO takes a struct vfio_device_info, of which this is the first part.
        unsafe { abi::with_structure(device.as_fd(), abi::DEVICE_GET_INFO, &mut info) }
            .map_err(|error| NvmeError::system(format_args!("{address}: VFIO's words about it"), &error))?;
        if info.flags & abi::DEVICE_IS_PCI == 0 {
            return Err(NvmeError::new(libc::ENODEV, format!("{address} is no PCI function to VFIO")));
        }
        let config = Config { offset: region(device.as_fd(), abi::REGION_CONFIG, address)?.offset };
        let registers = region(device.as_fd(), abi::REGION_BAR0, address)?;
        let device = File::from(device);
        config.check_class(&device, address)?;
        // Registers answer only while memory accesses are allowed.
        config.set_bus_master(&device, address, false)?;
        if registers.flags & abi::REGION_CAN_MAP == 0 {
            return Err(NvmeError::new(libc::ENOTSUP, format!("{address}: BAR0 cannot be mapped")));
        }
        let bytes = registers.bytes.min(MAX_BAR) as usize;
        let bar = Bar::map(device.as_fd(), registers.offset, bytes)
            .map_err(|error| NvmeError::system(format_args!("{address}: BAR0 of {bytes} bytes"), &error))?;
        let interrupts = Interrupts::new(device.as_fd());
        let can_reset = info.flags & abi::DEVICE_CAN_RESET != 0;
        Ok(Self { bar, interrupts, config, device, address: address.to_owned(), can_reset, _keeper: keeper })
    }
}

fn region(device: BorrowedFd<'_>, index: u32, address: &str) -> Result<abi::RegionInfo, NvmeError> {
    let mut info = abi::RegionInfo { argsz: abi::size::<abi::RegionInfo>(), index, ..Default::default() };
    // SAFETY: VFIO_DEVICE_GET_REGION_INFO takes a struct vfio_region_info.
    unsafe { abi::with_structure(device, abi::DEVICE_GET_REGION_INFO, &mut info) }
        .map_err(|error| NvmeError::system(format_args!("{address}: region {index}"), &error))?;
    Ok(info)
}

impl Registers for VfioFunction {
    fn read32(&self, offset: usize) -> u32 {
        self.bar.read32(offset)
    }

    fn read64(&self, offset: usize) -> u64 {
        u64::from(self.bar.read32(offset)) | u64::from(self.bar.read32(offset + 4)) << 32
    }

    #[inline]
    fn write32(&self, offset: usize, value: u32) {
        self.bar.write32(offset, value);
    }

    fn write64(&self, offset: usize, value: u64) {
        self.bar.write32(offset, value as u32);
        self.bar.write32(offset + 4, (value >> 32) as u32);
    }

    fn len(&self) -> usize {
        self.bar.len()
    }
}

impl Device for VfioFunction {
    fn address(&self) -> &str {
        &self.address
    }

    fn reset(&self) -> Result<(), NvmeError> {
        if !self.can_reset {
            return Err(NvmeError::new(
                libc::ENOTSUP,
                format!("{} has no function level reset", self.address),
            ));
        }
        // SAFETY: VFIO_DEVICE_RESET takes nothing.
        unsafe { abi::with_number(self.device.as_fd(), abi::DEVICE_RESET, 0) }.map_err(|error| {
            NvmeError::system(format_args!("{}: function level reset", self.address), &error)
        })?;
        self.set_bus_master(true)
    }

    fn set_bus_master(&self, on: bool) -> Result<(), NvmeError> {
        self.config.set_bus_master(&self.device, &self.address, on)
    }

    fn vectors(&self) -> u16 {
        self.interrupts.vectors
    }

    fn connect_vector(&self, vector: u16, event: Option<BorrowedFd<'_>>) -> Result<(), NvmeError> {
        self.interrupts.connect(self.device.as_fd(), vector, event)
    }

    fn removal(&self) -> Option<BorrowedFd<'_>> {
        self.interrupts.request.as_ref().map(AsFd::as_fd)
    }
}
