//! The structures of a virtio SCSI device (virtio 1.3, 5.6.6), as they lie in guest memory. Little-endian; only what a
//! SCSI standard defines is big-endian.

use nvlane_scsi::{Cdb, Sense, Status};

/// What the configuration space says of CDBs and sense data; the driver may ask for other sizes, and QEMU, which keeps
/// the space for vhost-user-scsi, refuses that.
pub const CDB_SIZE: usize = 32;
pub const SENSE_SIZE: usize = 96;

/// LUN, tag, task attribute, priority, CRN; then the CDB.
pub const REQUEST_HEADER: usize = 19 + CDB_SIZE;
/// Sense length, residual, status qualifier, status, response; then the sense data.
pub const RESPONSE: usize = 12 + SENSE_SIZE;

/// The response codes (5.6.6.1.1, 5.6.6.2).
pub mod response {
    pub const OK: u8 = 0;
    pub const OVERRUN: u8 = 1;
    pub const ABORTED: u8 = 2;
    pub const BAD_TARGET: u8 = 3;
    pub const RESET: u8 = 4;
    pub const FAILURE: u8 = 9;
    pub const FUNCTION_SUCCEEDED: u8 = 10;
    pub const FUNCTION_REJECTED: u8 = 11;
    pub const INCORRECT_LUN: u8 = 12;
}

/// Whom a request addresses (5.6.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    Unit {
        target: u8,
        lun: u16,
    },
    /// The REPORT LUNS well known logical unit, which lists the units of all targets.
    WellKnown,
    /// Neither: no such target.
    Nowhere,
}

impl Address {
    /// The first byte is 1, the second the target, then a single level LUN: peripheral device addressing (00b) or flat
    /// space addressing (01b; SAM-6 4.7.7), both seen in the wild.
    #[inline]
    pub fn parse(lun: &[u8; 8]) -> Address {
        match *lun {
            [1, target, high, low, 0, 0, 0, 0] if high & 0x80 == 0 => {
                Address::Unit { target, lun: u16::from_be_bytes([high & 0x3F, low]) }
            }
            [0xC1, 1, 0, 0, 0, 0, 0, 0] => Address::WellKnown,
            _ => Address::Nowhere,
        }
    }

    /// The address of a target's only unit. Not with flat addressing, as drivers write it in requests: Linux takes the
    /// two bytes of an event for the LUN as they are (drivers/scsi/virtio_scsi.c, virtscsi_handle_transport_reset).
    pub fn of(target: u8) -> [u8; 8] {
        [1, target, 0, 0, 0, 0, 0, 0]
    }
}

/// What stands in front of a command's data.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub address: Address,
    pub tag: u64,
    pub cdb: Cdb,
}

impl Request {
    /// The task attribute is not looked at: all are SIMPLE here, as page 86h says. Nor are priority and CRN.
    #[inline]
    pub fn parse(header: &[u8; REQUEST_HEADER]) -> Request {
        let [lun @ .., _, _, _, _, _, _, _, _] = *header.first_chunk::<16>().expect("a header of 51 bytes");
        let tag = u64::from_le_bytes(*header[8..].first_chunk().expect("a header of 51 bytes"));
        Request { address: Address::parse(&lun), tag, cdb: Cdb::new(&header[19..]) }
    }
}

/// The response to a command.
#[derive(Clone, Copy, Debug)]
pub struct Response {
    pub response: u8,
    pub status: Status,
    pub residual: u32,
    /// And whether as descriptors.
    pub sense: Option<(Sense, bool)>,
}

impl Response {
    /// All of it, so that what the guest is told was written was.
    #[inline]
    pub fn encode(&self) -> [u8; RESPONSE] {
        let mut bytes = [0; RESPONSE];
        bytes[4..8].copy_from_slice(&self.residual.to_le_bytes());
        bytes[10] = self.status as u8;
        bytes[11] = self.response;
        if let Some((sense, descriptors)) = self.sense {
            let (data, length) = sense.encode(descriptors);
            bytes[0..4].copy_from_slice(&(length as u32).to_le_bytes());
            bytes[12..12 + length].copy_from_slice(&data[..length]);
        }
        bytes
    }
}

/// Requests of the control queue (5.6.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    Task {
        function: Function,
        address: Address,
        tag: u64,
    },
    /// A task management function that virtio does not have.
    UnknownTask,
    /// Which asynchronous events there are, and subscribing to some: `struct virtio_scsi_ctrl_an`.
    Notification {
        address: Address,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    AbortTask,
    AbortTaskSet,
    ClearAca,
    ClearTaskSet,
    NexusReset,
    UnitReset,
    QueryTask,
    QueryTaskSet,
}

/// The longest request of the control queue.
pub const CONTROL: usize = 24;

impl Control {
    /// `bytes`: the readable part, as much as there is of it. None: it is too short, or of an unknown type.
    pub fn parse(bytes: &[u8]) -> Option<Control> {
        let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let address = |at: usize| Some(Address::parse(bytes.get(at..)?.first_chunk()?));
        match word(0)? {
            0 => {
                let tag = u64::from_le_bytes(*bytes.get(16..)?.first_chunk()?);
                let address = address(8)?;
                Some(Function::parse(word(4)?).map_or(Control::UnknownTask, |function| Control::Task {
                    function,
                    address,
                    tag,
                }))
            }
            1 | 2 => {
                word(12)?;
                Some(Control::Notification { address: address(4)? })
            }
            _ => None,
        }
    }
}

impl Function {
    fn parse(subtype: u32) -> Option<Function> {
        Some(match subtype {
            0 => Function::AbortTask,
            1 => Function::AbortTaskSet,
            2 => Function::ClearAca,
            3 => Function::ClearTaskSet,
            4 => Function::NexusReset,
            5 => Function::UnitReset,
            6 => Function::QueryTask,
            7 => Function::QueryTaskSet,
            _ => return None,
        })
    }
}

/// An event (5.6.6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A target has come.
    Rescan(u8),
    Removed(u8),
    /// CAPACITY DATA HAS CHANGED.
    Resized(u8),
    /// Nothing but that others were lost.
    None,
}

pub const EVENT: usize = 16;

impl Event {
    /// `missed`: events before this one were lost, for want of buffers.
    pub fn encode(self, missed: bool) -> [u8; EVENT] {
        const TRANSPORT_RESET: u32 = 1;
        const PARAMETER_CHANGE: u32 = 3;
        const MISSED: u32 = 0x8000_0000;
        let (event, target, reason) = match self {
            Event::Rescan(target) => (TRANSPORT_RESET, Some(target), 1),
            Event::Removed(target) => (TRANSPORT_RESET, Some(target), 2),
            // The additional sense code in the low byte, its qualifier in the next.
            Event::Resized(target) => (PARAMETER_CHANGE, Some(target), 0x2A | 0x09 << 8),
            Event::None => (0, None, 0_u32),
        };
        let mut bytes = [0; EVENT];
        let event = event | if missed { MISSED } else { 0 };
        bytes[0..4].copy_from_slice(&event.to_le_bytes());
        // Linux takes the two bytes of the LUN as they are for a number (drivers/scsi/virtio_scsi.c,
        // virtscsi_handle_transport_reset), so here it is the peripheral form, as QEMU and SPDK send it.
        bytes[4..12].copy_from_slice(&target.map_or([0; 8], |target| [1, target, 0, 0, 0, 0, 0, 0]));
        bytes[12..16].copy_from_slice(&reason.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(Address::parse(&[1, 3, 0x40, 0, 0, 0, 0, 0]), Address::Unit { target: 3, lun: 0 });
        assert_eq!(Address::parse(&[1, 3, 0x41, 2, 0, 0, 0, 0]), Address::Unit { target: 3, lun: 0x102 });
        assert_eq!(Address::parse(&[1, 255, 0, 7, 0, 0, 0, 0]), Address::Unit { target: 255, lun: 7 });
        assert_eq!(Address::parse(&[0xC1, 1, 0, 0, 0, 0, 0, 0]), Address::WellKnown);
        for nowhere in
            [[0; 8], [1, 0, 0x80, 0, 0, 0, 0, 0], [1, 0, 0x40, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 0, 0, 0]]
        {
            assert_eq!(Address::parse(&nowhere), Address::Nowhere);
        }
        assert_eq!(Address::parse(&Address::of(5)), Address::Unit { target: 5, lun: 0 });
    }

    #[test]
    fn a_request() {
        let mut header = [0; REQUEST_HEADER];
        header[..8].copy_from_slice(&Address::of(2));
        header[8..16].copy_from_slice(&0x1122_3344_5566_7788_u64.to_le_bytes());
        header[19..25].copy_from_slice(&[0x12, 1, 0x83, 0, 0xFF, 0]);
        let request = Request::parse(&header);
        assert_eq!(request.address, Address::Unit { target: 2, lun: 0 });
        assert_eq!(request.tag, 0x1122_3344_5566_7788);
        assert_eq!(request.cdb, Cdb::new(&[0x12, 1, 0x83, 0, 0xFF, 0]));
    }

    #[test]
    fn a_response_with_sense() {
        let response = Response {
            response: response::OK,
            status: Status::CheckCondition,
            residual: 0x0102_0304,
            sense: Some((Sense::NO_SUCH_UNIT, false)),
        };
        let bytes = response.encode();
        assert_eq!(bytes[..12], [18, 0, 0, 0, 4, 3, 2, 1, 0, 0, 2, 0]);
        assert_eq!(bytes[12..15], [0x70, 0, 5]);
        assert_eq!(bytes[24], 0x25);
    }

    #[test]
    fn control_requests() {
        let mut bytes = [0; CONTROL];
        bytes[4] = 5;
        bytes[8..16].copy_from_slice(&Address::of(1));
        bytes[16] = 9;
        let unit = Address::Unit { target: 1, lun: 0 };
        let reset = Control::Task { function: Function::UnitReset, address: unit, tag: 9 };
        assert_eq!(Control::parse(&bytes), Some(reset));
        assert_eq!(Control::parse(&bytes[..23]), None);
        bytes[4] = 8;
        assert_eq!(Control::parse(&bytes), Some(Control::UnknownTask));
        let mut query = [0; 16];
        query[0] = 1;
        query[4..12].copy_from_slice(&Address::of(1));
        assert_eq!(Control::parse(&query), Some(Control::Notification { address: unit }));
        query[0] = 3;
        assert_eq!(Control::parse(&query), None);
    }

    #[test]
    fn events() {
        assert_eq!(Event::Rescan(3).encode(false), [1, 0, 0, 0, 1, 3, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(Event::Resized(0).encode(true), [3, 0, 0, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0x2A, 9, 0, 0]);
        assert_eq!(Event::None.encode(true)[..4], [0, 0, 0, 0x80]);
    }
}
