//! Submission queue entries (3.3.3.1) and the commands that the driver sends.

use super::PAGE;

/// A submission queue entry: sixteen little-endian double words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Command(pub [u32; 16]);

/// Opcodes of the admin command set (5).
pub mod admin {
    pub const DELETE_SQ: u8 = 0x00;
    pub const CREATE_SQ: u8 = 0x01;
    pub const GET_LOG_PAGE: u8 = 0x02;
    pub const DELETE_CQ: u8 = 0x04;
    pub const CREATE_CQ: u8 = 0x05;
    pub const IDENTIFY: u8 = 0x06;
    pub const ABORT: u8 = 0x08;
    pub const SET_FEATURES: u8 = 0x09;
    pub const ASYNC_EVENT: u8 = 0x0c;
    pub const DOORBELL_BUFFER: u8 = 0x7c;
}

/// Opcodes of the NVM command set (NVM Command Set Specification 1.0, 3.2).
pub mod io {
    pub const FLUSH: u8 = 0x00;
    pub const WRITE: u8 = 0x01;
    pub const READ: u8 = 0x02;
    pub const WRITE_ZEROES: u8 = 0x08;
    pub const DATASET_MANAGEMENT: u8 = 0x09;
}

/// Feature identifiers (5.27.1).
pub mod feature {
    pub const NUMBER_OF_QUEUES: u8 = 0x07;
    pub const ASYNC_EVENTS: u8 = 0x0b;
}

/// Which way data goes, seen from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    In,
    Out,
}

const IDENTIFY_NAMESPACE: u32 = 0;
const IDENTIFY_CONTROLLER: u32 = 1;
const IDENTIFY_ACTIVE_NAMESPACES: u32 = 2;
const IDENTIFY_DESCRIPTORS: u32 = 3;
const IDENTIFY_COMMAND_SET_CONTROLLER: u32 = 6;

/// Write Zeroes: the blocks may be deallocated (NVM Command Set Specification, 3.2.8, DEAC).
const DEALLOCATE: u32 = 1 << 25;
/// Dataset Management: deallocate (3.2.3, AD).
const DSM_DEALLOCATE: u32 = 1 << 2;

impl Command {
    pub fn new(opcode: u8, namespace: u32) -> Self {
        let mut command = Self::default();
        command.0[0] = u32::from(opcode);
        command.0[1] = namespace;
        command
    }

    pub fn opcode(&self) -> u8 {
        self.0[0] as u8
    }

    pub fn identifier(&self) -> u16 {
        (self.0[0] >> 16) as u16
    }

    #[must_use]
    pub fn with_identifier(mut self, identifier: u16) -> Self {
        self.0[0] = self.0[0] & 0xffff | u32::from(identifier) << 16;
        self
    }

    #[must_use]
    pub fn with_prps(mut self, first: u64, second: u64) -> Self {
        self.0[6] = first as u32;
        self.0[7] = (first >> 32) as u32;
        self.0[8] = second as u32;
        self.0[9] = (second >> 32) as u32;
        self
    }

    pub fn prps(&self) -> (u64, u64) {
        let pair = |at: usize| u64::from(self.0[at]) | u64::from(self.0[at + 1]) << 32;
        (pair(6), pair(8))
    }

    /// A command over `blocks` logical blocks from `lba`: read, write, write zeroes. `blocks` is 1 to 65536.
    #[inline]
    pub fn blocks(opcode: u8, namespace: u32, lba: u64, blocks: u32) -> Self {
        debug_assert!((1..=65536).contains(&blocks));
        let mut command = Self::new(opcode, namespace);
        command.0[10] = lba as u32;
        command.0[11] = (lba >> 32) as u32;
        command.0[12] = (blocks - 1) & 0xffff;
        command
    }

    /// A read or write with its data and its identifier, all at once: the one that matters for speed.
    #[inline(always)]
    pub fn data(
        opcode: u8,
        namespace: u32,
        lba: u64,
        blocks: u32,
        prps: (u64, u64),
        identifier: u16,
    ) -> Self {
        debug_assert!((1..=65536).contains(&blocks));
        Self([
            u32::from(opcode) | u32::from(identifier) << 16,
            namespace,
            0,
            0,
            0,
            0,
            prps.0 as u32,
            (prps.0 >> 32) as u32,
            prps.1 as u32,
            (prps.1 >> 32) as u32,
            lba as u32,
            (lba >> 32) as u32,
            (blocks - 1) & 0xffff,
            0,
            0,
            0,
        ])
    }

    /// Write Zeroes that may deallocate.
    #[must_use]
    pub fn deallocating(mut self) -> Self {
        self.0[12] |= DEALLOCATE;
        self
    }

    /// The first block and the number of blocks of a command made by `blocks`.
    pub fn range(&self) -> (u64, u32) {
        (u64::from(self.0[10]) | u64::from(self.0[11]) << 32, (self.0[12] & 0xffff) + 1)
    }

    /// Deallocate one range, which stands at `prp`.
    pub fn deallocate(namespace: u32, prp: u64) -> Self {
        let mut command = Self::new(io::DATASET_MANAGEMENT, namespace).with_prps(prp, 0);
        command.0[11] = DSM_DEALLOCATE;
        command
    }

    /// Create I/O Completion Queue (5.4). `vector`: its interrupt, or none.
    pub fn create_completion_queue(queue: u16, entries: u16, address: u64, vector: Option<u16>) -> Self {
        let mut command = Self::new(admin::CREATE_CQ, 0).with_prps(address, 0);
        command.0[10] = u32::from(queue) | u32::from(entries - 1) << 16;
        // PC (physically contiguous), IEN, IV
        command.0[11] = 1 | vector.map_or(0, |vector| 1 << 1 | u32::from(vector) << 16);
        command
    }

    /// Create I/O Submission Queue (5.5), on the completion queue of the same number.
    pub fn create_submission_queue(queue: u16, entries: u16, address: u64) -> Self {
        let mut command = Self::new(admin::CREATE_SQ, 0).with_prps(address, 0);
        command.0[10] = u32::from(queue) | u32::from(entries - 1) << 16;
        command.0[11] = 1 | u32::from(queue) << 16;
        command
    }

    pub fn delete_queue(opcode: u8, queue: u16) -> Self {
        let mut command = Self::new(opcode, 0);
        command.0[10] = u32::from(queue);
        command
    }

    fn identify(structure: u32, namespace: u32, address: u64) -> Self {
        let mut command = Self::new(admin::IDENTIFY, namespace).with_prps(address, 0);
        command.0[10] = structure;
        command
    }

    pub fn identify_controller(address: u64) -> Self {
        Self::identify(IDENTIFY_CONTROLLER, 0, address)
    }

    pub fn identify_namespace(namespace: u32, address: u64) -> Self {
        Self::identify(IDENTIFY_NAMESPACE, namespace, address)
    }

    pub fn identify_descriptors(namespace: u32, address: u64) -> Self {
        Self::identify(IDENTIFY_DESCRIPTORS, namespace, address)
    }

    /// Limits of the NVM command set (NVM Command Set Specification 1.0, 4.1.5.2).
    pub fn identify_nvm_limits(address: u64) -> Self {
        Self::identify(IDENTIFY_COMMAND_SET_CONTROLLER, 0, address)
    }

    /// Up to 1024 namespaces with identifiers above `after`.
    pub fn identify_namespaces(after: u32, address: u64) -> Self {
        Self::identify(IDENTIFY_ACTIVE_NAMESPACES, after, address)
    }

    pub fn set_feature(feature: u8, value: u32) -> Self {
        let mut command = Self::new(admin::SET_FEATURES, 0);
        command.0[10] = u32::from(feature);
        command.0[11] = value;
        command
    }

    /// The first page of a log, which also clears the event that pointed to it (5.16).
    pub fn get_log_page(page: u8, address: u64, bytes: usize) -> Self {
        debug_assert!(bytes % 4 == 0 && bytes <= PAGE);
        let mut command = Self::new(admin::GET_LOG_PAGE, u32::MAX).with_prps(address, 0);
        command.0[10] = u32::from(page) | ((bytes / 4 - 1) as u32) << 16;
        command
    }

    pub fn async_event() -> Self {
        Self::new(admin::ASYNC_EVENT, 0)
    }

    pub fn abort(queue: u16, identifier: u16) -> Self {
        let mut command = Self::new(admin::ABORT, 0);
        command.0[10] = u32::from(queue) | u32::from(identifier) << 16;
        command
    }

    /// Where shadow doorbells and event indices are (5.8, Doorbell Buffer Config).
    pub fn doorbell_buffer(shadow: u64, events: u64) -> Self {
        Self::new(admin::DOORBELL_BUFFER, 0).with_prps(shadow, events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_laid_out_as_the_specification_says() {
        let write = Command::blocks(io::WRITE, 2, 0x1_2345_6789, 65536)
            .with_identifier(0xabcd)
            .with_prps(0x1000, 0x2000);
        assert_eq!(write.0[0], 0xabcd_0001);
        assert_eq!((write.0[1], write.0[10], write.0[11], write.0[12]), (2, 0x2345_6789, 1, 0xffff));
        assert_eq!(write.range(), (0x1_2345_6789, 65536));
        assert_eq!(write.prps(), (0x1000, 0x2000));
        assert_eq!(
            Command::create_completion_queue(3, 512, 0, Some(3)).0[10..12],
            [0x01ff_0003, 0x0003_0003]
        );
        assert_eq!(Command::create_completion_queue(3, 512, 0, None).0[11], 1);
        assert_eq!(Command::create_submission_queue(3, 512, 0).0[10..12], [0x01ff_0003, 0x0003_0001]);
        assert_eq!(Command::abort(2, 7).0[10], 0x0007_0002);
        assert_eq!(Command::get_log_page(2, 0, 512).0[10], 0x007f_0002);
    }
}
