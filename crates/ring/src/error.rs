//! What a driver or a front end can do wrong with a queue.

use crate::config::Layout;

/// Why a queue cannot be made, or is broken. The remedy is always the guest's: reset the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingError {
    /// Not 1 to 32768, or not a power of two on a split ring.
    Size(u16),
    /// One of the three areas is not aligned as section 2.7 or 2.8 asks, or not in one piece of guest memory.
    Area { name: &'static str, address: u64 },
    /// The driver's index is further ahead than the ring is long.
    IndexTooFar { index: u16, expected: u16 },
    /// A descriptor number or buffer id beyond the ring.
    OutOfRange(u16),
    /// A buffer that is in flight was made available again.
    InFlightTwice(u16),
    /// A chain that is longer than its table: it loops.
    Loop(u16),
    /// A device-readable buffer after a device-writable one.
    Order(u16),
    /// A buffer outside guest memory.
    Address { address: u64, length: u32 },
    /// More pieces than a request may have.
    TooManySegments(u16),
    /// An indirect table of no or broken length, inside another, within a chain, or not negotiated.
    Indirect(u16),
    /// The in-flight record was made for a ring of the other layout, or for a shorter one.
    InflightShape { record: (Layout, u16), ring: (Layout, u16) },
    /// The in-flight record contradicts itself or the ring.
    Inflight(&'static str),
}

impl std::fmt::Display for RingError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RingError::Size(size) => write!(f, "a queue cannot have the size {size}"),
            RingError::Area { name, address } => {
                write!(f, "the {name} at {address:#x} is misaligned or not in one piece of guest memory")
            }
            RingError::IndexTooFar { index, expected } => {
                write!(f, "the driver's index is {index}, too far ahead of {expected}")
            }
            RingError::OutOfRange(id) => write!(f, "descriptor {id} is beyond the ring"),
            RingError::InFlightTwice(id) => write!(f, "descriptor {id} was made available while in flight"),
            RingError::Loop(id) => write!(f, "the chain of descriptor {id} does not end"),
            RingError::Order(id) => {
                write!(f, "the chain of descriptor {id} has a readable buffer after a writable one")
            }
            RingError::Address { address, length } => {
                write!(f, "a buffer of {length:#x} bytes at {address:#x} is outside guest memory")
            }
            RingError::TooManySegments(id) => write!(f, "the chain of descriptor {id} has too many buffers"),
            RingError::Indirect(id) => write!(f, "the chain of descriptor {id} has a bad indirect table"),
            RingError::InflightShape { record, ring } => write!(
                f,
                "the in-flight record is for a {} ring of {} entries, and this is a {} one of {}",
                record.0, record.1, ring.0, ring.1
            ),
            RingError::Inflight(what) => write!(f, "the in-flight record is inconsistent: {what}"),
        }?;
        f.write_str("; the guest has to reset the device")
    }
}

impl std::error::Error for RingError {}
