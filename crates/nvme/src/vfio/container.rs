//! Groups and the container (type 1, version 2).

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use nvlane_memory::dma::{DmaMapper, MapperHandle, add_mapper};

use super::abi;
use super::space::Space;
use super::sysfs::Function;
use crate::NvmeError;

/// The process's container, while there are groups in it, and those groups.
static CONTAINER: Mutex<Shared> = Mutex::new(Shared { container: Weak::new(), groups: BTreeMap::new() });

struct Shared {
    container: Weak<Container>,
    groups: BTreeMap<u32, Weak<Group>>,
}

pub struct Container {
    /// Dropped first: nothing is mapped any more when the container is closed.
    _mapper: MapperHandle,
    type1: Arc<Type1>,
}

struct Type1 {
    file: File,
    space: Space,
}

/// A group of ours, in the container.
pub struct Group {
    file: File,
    number: u32,
    /// Kept for its life.
    _container: Option<Arc<Container>>,
}

impl Group {
    /// Opens the function's group; functions of one group share it.
    ///
    /// # Errors
    /// What is wrong with the group.
    pub fn of(function: &Function, address: &str) -> Result<Arc<Group>, NvmeError> {
        let number = function.group()?;
        let mut shared = CONTAINER.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(group) = shared.groups.get(&number).and_then(Weak::upgrade) {
            return Ok(group);
        }
        let mut group = Group { file: open_group(number, address)?, number, _container: None };
        group.check_viable(function, address)?;
        let container = match shared.container.upgrade() {
            Some(container) => {
                group.join(&container.type1.file)?;
                container
            }
            None => Arc::new(Container::new(&group)?),
        };
        shared.container = Arc::downgrade(&container);
        group._container = Some(container);
        let group = Arc::new(group);
        shared.groups.insert(number, Arc::downgrade(&group));
        Ok(group)
    }

    fn check_viable(&self, function: &Function, address: &str) -> Result<(), NvmeError> {
        let mut status = abi::GroupStatus { size: abi::size::<abi::GroupStatus>(), flags: 0 };
        // SAFETY: VFIO_GROUP_GET_STATUS takes a struct vfio_group_status.
        unsafe { abi::with_structure(self.file.as_fd(), abi::GROUP_GET_STATUS, &mut status) }.map_err(
            |error| NvmeError::system(format_args!("the state of IOMMU group {}", self.number), &error),
        )?;
        if status.flags & abi::GROUP_VIABLE != 0 {
            return Ok(());
        }
        Err(NvmeError::new(
            libc::EPERM,
            format!(
                "IOMMU group {} of {address} is not viable: these of it belong to other drivers: {}. Bind them to \
                 vfio-pci, or to none",
                self.number,
                function.obstacles().join(", ")
            ),
        ))
    }

    fn join(&self, container: &File) -> Result<(), NvmeError> {
        let mut descriptor = container.as_raw_fd();
        // SAFETY: VFIO_GROUP_SET_CONTAINER takes the address of a descriptor, which is open.
        unsafe { abi::with_structure(self.file.as_fd(), abi::GROUP_SET_CONTAINER, &mut descriptor) }
            .map_err(|error| {
                NvmeError::system(format_args!("IOMMU group {} joins no container", self.number), &error)
            })?;
        Ok(())
    }

    /// The device's descriptor.
    pub fn device(&self, address: &str) -> Result<OwnedFd, NvmeError> {
        let mut name = [0u8; 16];
        name[..address.len()].copy_from_slice(address.as_bytes());
        // SAFETY: VFIO_GROUP_GET_DEVICE_FD takes a string, and this one ends with zeroes (an address has 12 bytes).
        let descriptor = unsafe { abi::with_structure(self.file.as_fd(), abi::GROUP_GET_DEVICE, &mut name) }
            .map_err(|error| {
                NvmeError::system(format_args!("{address} cannot be opened through its group"), &error)
            })?;
        // SAFETY: a new descriptor, which is nobody else's.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }
}

fn open_group(number: u32, address: &str) -> Result<File, NvmeError> {
    let path = format!("/dev/vfio/{number}");
    OpenOptions::new().read(true).write(true).open(&path).map_err(|error| {
        let why = match error.raw_os_error() {
            Some(libc::EBUSY) => "another process has it",
            Some(libc::EACCES | libc::EPERM) => "its owner and mode do not let us",
            Some(libc::ENOENT) => "is the module vfio_iommu_type1 loaded?",
            _ => "it cannot be opened",
        };
        NvmeError::system(format_args!("{path}, the IOMMU group of {address}: {why}"), &error)
    })
}

impl Container {
    fn new(first: &Group) -> Result<Self, NvmeError> {
        let path = "/dev/vfio/vfio";
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|error| NvmeError::system(format_args!("{path} (module vfio)"), &error))?;
        // SAFETY: these take nothing, and the number of an IOMMU type.
        let version = unsafe { abi::with_number(file.as_fd(), abi::GET_API_VERSION, 0) };
        // SAFETY: as above.
        let offered = unsafe { abi::with_number(file.as_fd(), abi::CHECK_EXTENSION, abi::TYPE1V2_IOMMU) };
        if version.ok() != Some(abi::API_VERSION) || offered.ok() != Some(1) {
            return Err(NvmeError::new(
                libc::ENOTSUP,
                "this kernel's VFIO has no IOMMU of type 1, version 2",
            ));
        }
        first.join(&file)?;
        // The IOMMU can be set only when a group is there (vfio.rst).
        // SAFETY: VFIO_SET_IOMMU takes the number of a type.
        unsafe { abi::with_number(file.as_fd(), abi::SET_IOMMU, abi::TYPE1V2_IOMMU) }
            .map_err(|error| NvmeError::system("the IOMMU refuses the container", &error))?;
        let type1 = Arc::new(Type1 { file, space: Space::default() });
        type1.learn_ranges()?;
        let mapper = add_mapper(type1.clone())
            .map_err(|error| NvmeError::system("memory cannot be mapped for drives", &error))?;
        Ok(Self { _mapper: mapper, type1 })
    }
}

impl Type1 {
    fn learn_ranges(&self) -> Result<(), NvmeError> {
        let mut info = Box::new(abi::IommuInfo {
            size: abi::size::<abi::IommuInfo>(),
            flags: 0,
            page_sizes: 0,
            capabilities: 0,
            padding: 0,
            room: [0; 4096],
        });
        // SAFETY: VFIO_IOMMU_GET_INFO takes a struct vfio_iommu_type1_info, and says capabilities behind it where
        // there is room.
        unsafe { abi::with_structure(self.file.as_fd(), abi::IOMMU_GET_INFO, &mut *info) }
            .map_err(|error| NvmeError::system("what the IOMMU can do", &error))?;
        if info.flags & abi::IOMMU_HAS_CAPABILITIES != 0 {
            // Offsets count from the beginning of the structure, which has 24 bytes before the room.
            let mut bytes = vec![0; 24];
            bytes.extend_from_slice(&info.room);
            self.space.set_ranges(iova_ranges(&bytes, info.capabilities as usize));
        }
        Ok(())
    }
}

/// Walks the chain of capabilities: identifier, version, offset of the next (`struct vfio_info_cap_header`).
fn iova_ranges(bytes: &[u8], first: usize) -> Vec<RangeInclusive<u64>> {
    let u32_at =
        |at: usize| bytes.get(at..at + 4).map(|four| u32::from_ne_bytes(four.try_into().unwrap_or_default()));
    let u64_at = |at: usize| {
        bytes.get(at..at + 8).map(|eight| u64::from_ne_bytes(eight.try_into().unwrap_or_default()))
    };
    let mut at = first;
    // Offsets go up; a chain that does not is at its end.
    while at != 0 {
        let (Some(head), Some(next)) = (u32_at(at), u32_at(at + 4)) else { break };
        if head as u16 == abi::CAPABILITY_IOVA_RANGES {
            let count = u32_at(at + 8).unwrap_or(0) as usize;
            return (0..count)
                .map_while(|index| Some(u64_at(at + 16 + 16 * index)?..=u64_at(at + 24 + 16 * index)?))
                .collect();
        }
        at = if next as usize > at { next as usize } else { 0 };
    }
    Vec::new()
}

impl DmaMapper for Type1 {
    fn map(&self, iova: u64, pointer: *mut u8, length: usize) -> io::Result<()> {
        self.space.map(iova, length, || {
            let mut map = abi::DmaMap {
                size: abi::size::<abi::DmaMap>(),
                flags: abi::DMA_READ_WRITE,
                address: pointer as u64,
                iova,
                bytes: length as u64,
            };
            // SAFETY: VFIO_IOMMU_MAP_DMA takes a struct vfio_iommu_type1_dma_map; the memory is mapped and stays until
            // it is unmapped here (dma::Registration), and it is only ever used as memory that a device writes.
            unsafe { abi::with_structure(self.file.as_fd(), abi::IOMMU_MAP_DMA, &mut map) }.map(|_| ())
        })
    }

    fn unmap(&self, iova: u64, length: usize) {
        let bytes = length as u64;
        let mut unmap = abi::DmaUnmap { size: abi::size::<abi::DmaUnmap>(), flags: 0, iova, bytes };
        // SAFETY: VFIO_IOMMU_UNMAP_DMA takes a struct vfio_iommu_type1_dma_unmap. It fails when the last group has left
        // the container, and then the kernel has unmapped everything already.
        let _ = unsafe { abi::with_structure(self.file.as_fd(), abi::IOMMU_UNMAP_DMA, &mut unmap) };
        self.space.unmapped(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_behind_other_capabilities() {
        let mut bytes = vec![0; 24];
        // A migration capability of 32 bytes, then two ranges.
        bytes.extend_from_slice(&[2, 0, 1, 0, 56, 0, 0, 0]);
        bytes.extend_from_slice(&[0; 24]);
        bytes.extend_from_slice(&[1, 0, 1, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0]);
        for value in [0u64, 0xfedf_ffff, 0xfef0_0000, 0x7f_ffff_ffff] {
            bytes.extend_from_slice(&value.to_ne_bytes());
        }
        assert_eq!(iova_ranges(&bytes, 24), [0..=0xfedf_ffff, 0xfef0_0000..=0x7f_ffff_ffff]);
        assert_eq!(iova_ranges(&bytes, 4000), []);
        bytes[24 + 4] = 24; // a chain that bites its tail
        assert_eq!(iova_ranges(&bytes, 24), []);
    }
}
