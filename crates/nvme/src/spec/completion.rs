//! Completion queue entries (3.3.3.2) and status values.

/// A completion queue entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// Double word 0: the command's result.
    pub result: u32,
    pub sq_head: u16,
    pub sq_id: u16,
    pub identifier: u16,
    pub phase: bool,
    pub status: Status,
}

impl Completion {
    /// From double words 0, 2 and 3.
    #[inline]
    pub fn parse(result: u32, queue: u32, status: u32) -> Self {
        Self {
            result,
            sq_head: queue as u16,
            sq_id: (queue >> 16) as u16,
            identifier: status as u16,
            phase: status & (1 << 16) != 0,
            status: Status((status >> 17) as u16),
        }
    }

    /// Double words 2 and 3, for a model of a controller.
    pub fn words(&self) -> (u32, u32) {
        let status =
            u32::from(self.identifier) | u32::from(self.phase) << 16 | u32::from(self.status.0) << 17;
        (u32::from(self.sq_head) | u32::from(self.sq_id) << 16, status)
    }
}

/// The status field without its phase bit: SC in bits 7:0, SCT in 10:8, CRD in 12:11, M, and DNR in bit 14.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status(pub u16);

impl Status {
    pub const SUCCESS: Status = Status(0);
    pub const INVALID_OPCODE: Status = Status(0x001);
    pub const INVALID_FIELD: Status = Status(0x002);
    pub const DATA_TRANSFER_ERROR: Status = Status(0x004);
    pub const ABORTED_POWER_LOSS: Status = Status(0x005);
    pub const INTERNAL_ERROR: Status = Status(0x006);
    pub const ABORT_REQUESTED: Status = Status(0x007);
    pub const ABORTED_SQ_DELETION: Status = Status(0x008);
    pub const INVALID_NAMESPACE: Status = Status(0x00b);
    pub const SANITIZE_IN_PROGRESS: Status = Status(0x01d);
    pub const WRITE_PROTECTED: Status = Status(0x020);
    pub const LBA_OUT_OF_RANGE: Status = Status(0x080);
    pub const CAPACITY_EXCEEDED: Status = Status(0x081);
    pub const NAMESPACE_NOT_READY: Status = Status(0x082);
    pub const FORMAT_IN_PROGRESS: Status = Status(0x084);
    pub const INVALID_QUEUE: Status = Status(0x101);
    pub const UNRECOVERED_READ: Status = Status(0x281);
    pub const READ_ONLY_RANGE: Status = Status(0x182);
    const CODE: u16 = 0x7ff;
    const DO_NOT_RETRY: u16 = 1 << 14;

    #[inline]
    pub fn is_success(self) -> bool {
        self.0 & Self::CODE == 0
    }

    /// Type and code, without the bits about retries.
    #[must_use]
    pub fn code(self) -> Status {
        Status(self.0 & Self::CODE)
    }

    pub fn do_not_retry(self) -> bool {
        self.0 & Self::DO_NOT_RETRY != 0
    }

    /// What the specification calls it, for those that a person may meet.
    pub fn name(self) -> &'static str {
        match self.code() {
            Self::SUCCESS => "success",
            Self::INVALID_OPCODE => "invalid opcode",
            Self::INVALID_FIELD => "invalid field in command",
            Self::DATA_TRANSFER_ERROR => "data transfer error",
            Self::ABORTED_POWER_LOSS => "aborted for power loss",
            Self::INTERNAL_ERROR => "internal error",
            Self::ABORT_REQUESTED => "abort requested",
            Self::ABORTED_SQ_DELETION => "aborted: submission queue deleted",
            Self::INVALID_NAMESPACE => "invalid namespace or format",
            Self::SANITIZE_IN_PROGRESS => "sanitize in progress",
            Self::WRITE_PROTECTED => "namespace is write protected",
            Self::LBA_OUT_OF_RANGE => "LBA out of range",
            Self::CAPACITY_EXCEEDED => "capacity exceeded",
            Self::NAMESPACE_NOT_READY => "namespace not ready",
            Self::FORMAT_IN_PROGRESS => "format in progress",
            Self::INVALID_QUEUE => "invalid queue identifier",
            Self::UNRECOVERED_READ => "unrecovered read error",
            Self::READ_ONLY_RANGE => "attempted write to read only range",
            _ => "status without a name here",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let code = self.code().0;
        write!(formatter, "{} (type {:x}h, code {:02x}h)", self.name(), code >> 8, code & 0xff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completion_survives_its_words() {
        let completion = Completion {
            result: 7,
            sq_head: 12,
            sq_id: 3,
            identifier: 0xbeef,
            phase: true,
            status: Status(Status::UNRECOVERED_READ.0 | Status::DO_NOT_RETRY),
        };
        let (queue, status) = completion.words();
        assert_eq!(Completion::parse(7, queue, status), completion);
        assert!(completion.status.do_not_retry() && !completion.status.is_success());
        assert_eq!(completion.status.to_string(), "unrecovered read error (type 2h, code 81h)");
    }
}
