//! The kernel's interface: include/uapi/linux/vfio.h and include/uapi/linux/iommufd.h.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

pub const API_VERSION: i32 = 0;
pub const TYPE1V2_IOMMU: i32 = 3;

pub const GROUP_VIABLE: u32 = 1;
pub const DEVICE_CAN_RESET: u32 = 1;
pub const DEVICE_IS_PCI: u32 = 2;
pub const REGION_CAN_MAP: u32 = 4;
pub const DMA_READ_WRITE: u32 = 3;
pub const IOMMU_HAS_CAPABILITIES: u32 = 2;
pub const CAPABILITY_IOVA_RANGES: u16 = 1;

pub const REGION_BAR0: u32 = 0;
pub const REGION_CONFIG: u32 = 7;
pub const IRQ_MSIX: u32 = 2;
pub const IRQ_REQUEST: u32 = 4;
pub const IRQ_DATA_EVENTFD: u32 = 4;
pub const IRQ_TRIGGER: u32 = 32;

pub const IOAS_FIXED_IOVA: u32 = 1;
pub const IOAS_WRITEABLE: u32 = 2;
pub const IOAS_READABLE: u32 = 4;

/// `_IO(';', number)`: no size in it, the structures carry theirs.
#[derive(Clone, Copy)]
pub struct Request(libc::Ioctl);

const fn vfio(number: u8) -> Request {
    Request((b';' as libc::Ioctl) << 8 | (100 + number) as libc::Ioctl)
}

const fn iommufd(number: u8) -> Request {
    Request((b';' as libc::Ioctl) << 8 | (0x80 + number) as libc::Ioctl)
}

pub const GET_API_VERSION: Request = vfio(0);
pub const CHECK_EXTENSION: Request = vfio(1);
pub const SET_IOMMU: Request = vfio(2);
pub const GROUP_GET_STATUS: Request = vfio(3);
pub const GROUP_SET_CONTAINER: Request = vfio(4);
pub const GROUP_GET_DEVICE: Request = vfio(6);
pub const DEVICE_GET_INFO: Request = vfio(7);
pub const DEVICE_GET_REGION_INFO: Request = vfio(8);
pub const DEVICE_GET_IRQ_INFO: Request = vfio(9);
pub const DEVICE_SET_IRQS: Request = vfio(10);
pub const DEVICE_RESET: Request = vfio(11);
pub const IOMMU_GET_INFO: Request = vfio(12);
pub const IOMMU_MAP_DMA: Request = vfio(13);
pub const IOMMU_UNMAP_DMA: Request = vfio(14);
pub const DEVICE_BIND_IOMMUFD: Request = vfio(18);
pub const DEVICE_ATTACH_IOMMUFD: Request = vfio(19);
pub const IOAS_ALLOC: Request = iommufd(1);
pub const IOAS_IOVA_RANGES: Request = iommufd(4);
pub const IOAS_MAP: Request = iommufd(5);
pub const IOAS_UNMAP: Request = iommufd(6);

#[repr(C)]
#[derive(Default)]
pub struct GroupStatus {
    pub size: u32,
    pub flags: u32,
}

#[repr(C)]
#[derive(Default)]
pub struct DeviceInfo {
    pub size: u32,
    pub flags: u32,
    pub regions: u32,
    pub irqs: u32,
}

#[repr(C)]
#[derive(Default)]
pub struct RegionInfo {
    pub argsz: u32,
    pub flags: u32,
    pub index: u32,
    pub capabilities: u32,
    pub bytes: u64,
    pub offset: u64,
}

#[repr(C)]
#[derive(Default)]
pub struct IrqInfo {
    pub size: u32,
    pub flags: u32,
    pub index: u32,
    pub count: u32,
}

/// `struct vfio_irq_set` with room for all vectors that the driver uses.
#[repr(C)]
pub struct IrqSet {
    pub size: u32,
    pub flags: u32,
    pub index: u32,
    pub start: u32,
    pub count: u32,
    pub events: [i32; MAX_VECTORS],
}

/// One for the admin queue and one for each of 64 I/O queues.
pub const MAX_VECTORS: usize = 65;

/// `struct vfio_iommu_type1_info`, with room for the capabilities behind it.
#[repr(C, align(8))]
pub struct IommuInfo {
    pub size: u32,
    pub flags: u32,
    pub page_sizes: u64,
    pub capabilities: u32,
    pub padding: u32,
    pub room: [u8; 4096],
}

#[repr(C)]
pub struct DmaMap {
    pub size: u32,
    pub flags: u32,
    pub address: u64,
    pub iova: u64,
    pub bytes: u64,
}

#[repr(C)]
pub struct DmaUnmap {
    pub size: u32,
    pub flags: u32,
    pub iova: u64,
    pub bytes: u64,
}

#[repr(C)]
#[derive(Default)]
pub struct BindIommufd {
    pub size: u32,
    pub flags: u32,
    pub iommufd: i32,
    pub device: u32,
}

#[repr(C)]
#[derive(Default)]
pub struct AttachIommufd {
    pub size: u32,
    pub flags: u32,
    pub space: u32,
}

#[repr(C)]
#[derive(Default)]
pub struct IoasAlloc {
    pub size: u32,
    pub flags: u32,
    pub space: u32,
}

#[repr(C)]
#[derive(Default)]
pub struct IoasRanges {
    pub size: u32,
    pub space: u32,
    pub count: u32,
    pub reserved: u32,
    pub ranges: u64,
    pub alignment: u64,
}

#[repr(C)]
#[derive(Default)]
pub struct IoasMap {
    pub size: u32,
    pub flags: u32,
    pub space: u32,
    pub reserved: u32,
    pub address: u64,
    pub bytes: u64,
    pub iova: u64,
}

#[repr(C)]
#[derive(Default)]
pub struct IoasUnmap {
    pub size: u32,
    pub space: u32,
    pub iova: u64,
    pub bytes: u64,
}

/// An ioctl whose argument is a structure that begins with its own size.
///
/// # Safety
/// `argument` is the structure that `request` takes, its size field says how much of it there is, and addresses in it
/// are what the request wants.
pub unsafe fn with_structure<T>(fd: BorrowedFd<'_>, request: Request, argument: &mut T) -> io::Result<i32> {
    // SAFETY: the caller's promise; the descriptor is open, the structure is ours while the call lasts.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request.0, std::ptr::from_mut(argument)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// An ioctl whose argument is a number, or nothing (0).
///
/// # Safety
/// `request` takes a number.
pub unsafe fn with_number(fd: BorrowedFd<'_>, request: Request, argument: i32) -> io::Result<i32> {
    // SAFETY: the caller's promise; the descriptor is open.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request.0, libc::c_long::from(argument)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The size that a structure announces.
pub const fn size<T>() -> u32 {
    std::mem::size_of::<T>() as u32
}
