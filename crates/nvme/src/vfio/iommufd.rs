//! Device files and iommufd (Documentation/userspace-api/iommufd.rst), the successor of groups and containers.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use nvlane_memory::dma::{DmaMapper, MapperHandle, add_mapper};

use super::abi;
use super::space::Space;
use crate::NvmeError;

/// The process's address space, while there are devices in it.
static SPACE: Mutex<Weak<Iommufd>> = Mutex::new(Weak::new());

pub struct Iommufd {
    _mapper: MapperHandle,
    ioas: Arc<Ioas>,
}

struct Ioas {
    file: File,
    number: u32,
    space: Space,
}

/// Whether the kernel has it.
pub fn is_there() -> bool {
    Path::new("/dev/iommu").exists()
}

/// Opens a device file and puts the device into the process's address space, which is returned for keeping.
///
/// # Errors
/// What the kernel refuses.
pub fn open(path: &Path) -> Result<(OwnedFd, Arc<Iommufd>), NvmeError> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|error| NvmeError::system(path.display(), &error))?;
    let mut shared = SPACE.lock().unwrap_or_else(PoisonError::into_inner);
    let existing = shared.upgrade();
    let ioas = match &existing {
        Some(iommufd) => iommufd.ioas.clone(),
        None => Arc::new(Ioas::new()?),
    };
    ioas.attach(&device, path)?;
    ioas.learn_ranges()?;
    let iommufd = match existing {
        Some(iommufd) => iommufd,
        None => {
            let mapper = add_mapper(ioas.clone())
                .map_err(|error| NvmeError::system("memory cannot be mapped for drives", &error))?;
            Arc::new(Iommufd { _mapper: mapper, ioas })
        }
    };
    *shared = Arc::downgrade(&iommufd);
    Ok((device.into(), iommufd))
}

impl Ioas {
    fn new() -> Result<Self, NvmeError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/iommu")
            .map_err(|error| NvmeError::system("/dev/iommu", &error))?;
        let mut alloc = abi::IoasAlloc { size: abi::size::<abi::IoasAlloc>(), ..Default::default() };
        // SAFETY: IOMMU_IOAS_ALLOC takes a struct iommu_ioas_alloc.
        unsafe { abi::with_structure(file.as_fd(), abi::IOAS_ALLOC, &mut alloc) }
            .map_err(|error| NvmeError::system("iommufd gives no address space", &error))?;
        Ok(Self { file, number: alloc.space, space: Space::default() })
    }

    fn attach(&self, device: &File, path: &Path) -> Result<(), NvmeError> {
        let mut bind = abi::BindIommufd {
            size: abi::size::<abi::BindIommufd>(),
            iommufd: self.file.as_raw_fd(),
            ..Default::default()
        };
        // SAFETY: VFIO_DEVICE_BIND_IOMMUFD takes a struct vfio_device_bind_iommufd.
        unsafe { abi::with_structure(device.as_fd(), abi::DEVICE_BIND_IOMMUFD, &mut bind) }.map_err(
            |error| {
                let hint = if error.raw_os_error() == Some(libc::EINVAL) {
                    " (another of its IOMMU group may belong to another driver)"
                } else {
                    ""
                };
                NvmeError::system(format_args!("{} is not bound to iommufd{hint}", path.display()), &error)
            },
        )?;
        let size = abi::size::<abi::AttachIommufd>();
        let mut attach = abi::AttachIommufd { size, flags: 0, space: self.number };
        // SAFETY: VFIO_DEVICE_ATTACH_IOMMUFD_PT takes a struct vfio_device_attach_iommufd_pt.
        unsafe { abi::with_structure(device.as_fd(), abi::DEVICE_ATTACH_IOMMUFD, &mut attach) }.map_err(
            |error| {
                NvmeError::system(
                    format_args!("{} is not attached to the address space", path.display()),
                    &error,
                )
            },
        )?;
        Ok(())
    }

    fn learn_ranges(&self) -> Result<(), NvmeError> {
        let mut ranges = [[0u64; 2]; 64];
        let mut query = abi::IoasRanges {
            size: abi::size::<abi::IoasRanges>(),
            space: self.number,
            count: ranges.len() as u32,
            ranges: ranges.as_mut_ptr() as u64,
            ..Default::default()
        };
        // SAFETY: IOMMU_IOAS_IOVA_RANGES takes a struct iommu_ioas_iova_ranges, which names room for `count` pairs.
        unsafe { abi::with_structure(self.file.as_fd(), abi::IOAS_IOVA_RANGES, &mut query) }
            .map_err(|error| NvmeError::system("which addresses the IOMMU translates", &error))?;
        let count = (query.count as usize).min(ranges.len());
        self.space.set_ranges(ranges[..count].iter().map(|range| range[0]..=range[1]).collect());
        Ok(())
    }
}

impl DmaMapper for Ioas {
    fn map(&self, iova: u64, pointer: *mut u8, length: usize) -> io::Result<()> {
        self.space.map(iova, length, || {
            let mut map = abi::IoasMap {
                size: abi::size::<abi::IoasMap>(),
                flags: abi::IOAS_FIXED_IOVA | abi::IOAS_READABLE | abi::IOAS_WRITEABLE,
                space: self.number,
                reserved: 0,
                address: pointer as u64,
                bytes: length as u64,
                iova,
            };
            // SAFETY: IOMMU_IOAS_MAP takes a struct iommu_ioas_map; about the memory see the container's mapper.
            unsafe { abi::with_structure(self.file.as_fd(), abi::IOAS_MAP, &mut map) }.map(|_| ())
        })
    }

    fn unmap(&self, iova: u64, length: usize) {
        let mut unmap = abi::IoasUnmap {
            size: abi::size::<abi::IoasUnmap>(),
            space: self.number,
            iova,
            bytes: length as u64,
        };
        // SAFETY: IOMMU_IOAS_UNMAP takes a struct iommu_ioas_unmap. The range was mapped, so it cannot fail but for a
        // mistake in dma's list, after which it stays pinned.
        let _ = unsafe { abi::with_structure(self.file.as_fd(), abi::IOAS_UNMAP, &mut unmap) };
        self.space.unmapped(length);
    }
}
