//! Why guest memory cannot be mapped.

use std::io;

use crate::guest::MAX_REGIONS;

#[derive(Debug)]
pub enum MapError {
    /// More than [`MAX_REGIONS`].
    TooManyRegions,
    /// Empty, wraps around the address space, or not aligned to the file's pages.
    BadRange {
        guest_address: u64,
        size: u64,
    },
    Overlap {
        guest_address: u64,
        size: u64,
        other: u64,
    },
    /// The file ends before the region does.
    FileTooSmall {
        guest_address: u64,
        needs: u64,
        has: u64,
    },
    /// A pipe, a directory, a socket: nothing that is memory.
    NotMemory {
        guest_address: u64,
    },
    Unknown {
        guest_address: u64,
        size: u64,
    },
    Map {
        guest_address: u64,
        size: u64,
        error: io::Error,
    },
    /// A drive's IOMMU does not take it.
    Dma {
        guest_address: u64,
        size: u64,
        error: io::Error,
    },
}

impl std::fmt::Display for MapError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MapError::TooManyRegions => write!(f, "more than {MAX_REGIONS} memory regions"),
            MapError::BadRange { guest_address, size } => {
                write!(
                    f,
                    "memory region of {size:#x} bytes at {guest_address:#x} is empty, wraps or is not aligned"
                )
            }
            MapError::Overlap { guest_address, size, other } => {
                write!(
                    f,
                    "memory region of {size:#x} bytes at {guest_address:#x} overlaps the one at {other:#x}"
                )
            }
            MapError::FileTooSmall { guest_address, needs, has } => write!(
                f,
                "memory region at {guest_address:#x} needs a file of {needs:#x} bytes, it has {has:#x}: \
                 the front end shortened it"
            ),
            MapError::NotMemory { guest_address } => {
                write!(
                    f,
                    "memory region at {guest_address:#x}: the descriptor is neither a file nor a DAX device"
                )
            }
            MapError::Unknown { guest_address, size } => {
                write!(f, "there is no memory region of {size:#x} bytes at {guest_address:#x}")
            }
            MapError::Map { guest_address, size, error } => {
                write!(f, "memory region of {size:#x} bytes at {guest_address:#x} cannot be mapped: {error}")
            }
            MapError::Dma { guest_address, size, error } => write!(
                f,
                "memory region of {size:#x} bytes at {guest_address:#x} cannot be made reachable for the drives: {error}"
            ),
        }
    }
}

impl std::error::Error for MapError {}
