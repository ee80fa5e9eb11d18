//! Identify data (5.17; NVM Command Set Specification 1.0, 4.1.5), cut down to what the driver goes by.

use std::time::Duration;

use super::PAGE;

type Page = [u8; PAGE];

fn u16_at(page: &Page, at: usize) -> u16 {
    u16::from_le_bytes([page[at], page[at + 1]])
}

fn u32_at(page: &Page, at: usize) -> u32 {
    u32::from(u16_at(page, at)) | u32::from(u16_at(page, at + 2)) << 16
}

fn u64_at(page: &Page, at: usize) -> u64 {
    u64::from(u32_at(page, at)) | u64::from(u32_at(page, at + 4)) << 32
}

/// ASCII, padded with blanks (1.4.2); what a device put there besides is left out.
fn text(bytes: &[u8]) -> String {
    let shown: String =
        bytes.iter().map(|&byte| if (0x20..0x7f).contains(&byte) { char::from(byte) } else { ' ' }).collect();
    shown.trim().to_owned()
}

/// Identify Controller (CNS 01h).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentifyController {
    pub vendor: u16,
    pub subsystem_vendor: u16,
    pub serial: String,
    pub model: String,
    pub firmware: String,
    pub subsystem_name: String,
    pub controller_id: u16,
    /// Bytes of one command at most; None: no limit (MDTS, in pages of the smallest size).
    pub max_transfer: Option<usize>,
    /// How long the controller may take to shut down (RTD3E); zero where it does not say.
    pub shutdown_time: Duration,
    /// CNTRLTYPE: 0 not said, 1 I/O, 2 discovery, 3 administrative.
    pub kind: u8,
    pub multiple_controllers: bool,
    pub namespace_attribute_notices: bool,
    pub doorbell_buffers: bool,
    pub security: bool,
    pub format: bool,
    pub firmware_commands: bool,
    pub namespace_management: bool,
    /// Abort commands at a time (ACL, 0's based).
    pub abort_limit: u16,
    /// Asynchronous event requests at a time (AERL, 0's based).
    pub event_limit: u16,
    pub namespaces: u32,
    pub dataset_management: bool,
    pub write_zeroes: bool,
    pub compare: bool,
    pub volatile_cache: bool,
    /// log2 of the entry sizes the controller takes at least (SQES, CQES bits 3:0).
    pub command_shift: u8,
    pub completion_shift: u8,
}

impl IdentifyController {
    pub fn parse(page: &Page) -> Self {
        let oacs = u16_at(page, 256);
        let oncs = u16_at(page, 520);
        let mdts = page[77];
        Self {
            vendor: u16_at(page, 0),
            subsystem_vendor: u16_at(page, 2),
            serial: text(&page[4..24]),
            model: text(&page[24..64]),
            firmware: text(&page[64..72]),
            subsystem_name: text(page[768..1024].split(|&byte| byte == 0).next().unwrap_or_default()),
            controller_id: u16_at(page, 78),
            // 2^20 pages are more than NLB can say with any block size: a larger exponent is no limit either.
            max_transfer: (1..20).contains(&mdts).then(|| PAGE << mdts),
            shutdown_time: Duration::from_micros(u64::from(u32_at(page, 88))),
            kind: page[111],
            multiple_controllers: page[76] & 2 != 0,
            namespace_attribute_notices: u32_at(page, 92) & (1 << 8) != 0,
            security: oacs & 1 != 0,
            format: oacs & (1 << 1) != 0,
            firmware_commands: oacs & (1 << 2) != 0,
            namespace_management: oacs & (1 << 3) != 0,
            doorbell_buffers: oacs & (1 << 8) != 0,
            abort_limit: u16::from(page[258]) + 1,
            event_limit: u16::from(page[259]) + 1,
            namespaces: u32_at(page, 516),
            compare: oncs & 1 != 0,
            dataset_management: oncs & (1 << 2) != 0,
            write_zeroes: oncs & (1 << 3) != 0,
            volatile_cache: page[525] & 1 != 0,
            command_shift: page[512] & 0xf,
            completion_shift: page[513] & 0xf,
        }
    }
}

/// Limits of commands without data (NVM Command Set Specification 1.0, 4.1.5.2, CNS 06h): zero where nothing is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NvmLimits {
    /// Bytes of one Write Zeroes.
    pub write_zeroes: usize,
    /// Logical blocks of one range of a Dataset Management.
    pub deallocate_range: u32,
}

impl NvmLimits {
    pub fn parse(page: &Page) -> Self {
        let exponent = page[1];
        Self {
            write_zeroes: if (1..20).contains(&exponent) { PAGE << exponent } else { 0 },
            deallocate_range: u32_at(page, 4),
        }
    }
}

/// Identify Namespace for the NVM command set (CNS 00h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdentifyNamespace {
    /// Logical blocks.
    pub size: u64,
    pub capacity: u64,
    pub utilization: u64,
    /// log2 of the block size.
    pub block_shift: u8,
    /// Bytes of metadata that come with each block.
    pub metadata: u16,
    /// DPS bits 2:0: which protection information is on.
    pub protection: u8,
    /// Logical blocks that a command had better not cross; 0: none (NOIOB).
    pub optimal_boundary: u16,
    /// Write Zeroes may deallocate (DLFEAT bit 3).
    pub deallocate_zeroes: bool,
    pub shared: bool,
    pub write_protected: bool,
    /// Preferred write granularity, write alignment, deallocate granularity, alignment, optimal write size: in blocks,
    /// zero where not said (NPWG, NPWA, NPDG, NPDA, NOWS).
    pub preferred: [u32; 5],
    pub eui64: [u8; 8],
    pub nguid: [u8; 16],
}

impl IdentifyNamespace {
    pub fn parse(page: &Page) -> Self {
        let flbas = page[26];
        // Formats above 15 have their upper bits in FLBAS 6:5, when there are more than 16 (NLBAF, 0's based).
        let upper = if page[25] >= 16 { usize::from(flbas >> 5 & 3) << 4 } else { 0 };
        let format = u32_at(page, 128 + 4 * (usize::from(flbas & 0xf) | upper));
        let preferred = if page[24] & (1 << 4) == 0 {
            [0; 5]
        } else {
            [64, 66, 68, 70, 72].map(|at| u32::from(u16_at(page, at)) + 1)
        };
        Self {
            size: u64_at(page, 0),
            capacity: u64_at(page, 8),
            utilization: u64_at(page, 16),
            block_shift: (format >> 16) as u8,
            metadata: format as u16,
            protection: page[29] & 7,
            optimal_boundary: u16_at(page, 46),
            deallocate_zeroes: page[33] & (1 << 3) != 0,
            shared: page[30] & 1 != 0,
            write_protected: page[99] & 1 != 0,
            preferred,
            eui64: page[120..128].try_into().unwrap_or_default(),
            nguid: page[104..120].try_into().unwrap_or_default(),
        }
    }

    /// An inactive namespace identifies as zeroes.
    pub fn is_active(&self) -> bool {
        self.size != 0
    }
}

/// Namespace Identification Descriptors (CNS 03h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identifiers {
    pub eui64: Option<[u8; 8]>,
    pub nguid: Option<[u8; 16]>,
    pub uuid: Option<[u8; 16]>,
    /// The I/O command set: 0 NVM, 2 zoned.
    pub command_set: Option<u8>,
}

impl Identifiers {
    /// A list ends with a length of zero, or where it no longer makes sense.
    pub fn parse(page: &Page) -> Self {
        let mut found = Self::default();
        let mut at = 0;
        while at + 4 <= page.len() {
            let (kind, length) = (page[at], usize::from(page[at + 1]));
            let Some(value) = page.get(at + 4..at + 4 + length).filter(|value| !value.is_empty()) else {
                break;
            };
            match kind {
                1 => found.eui64 = value.try_into().ok(),
                2 => found.nguid = value.try_into().ok(),
                3 => found.uuid = value.try_into().ok(),
                4 => found.command_set = Some(value[0]),
                _ => {}
            }
            at += 4 + length;
        }
        found
    }
}

/// A list of namespace identifiers: ascending, ended by zero.
pub fn namespace_list(page: &Page) -> Vec<u32> {
    (0..PAGE / 4).map(|index| u32_at(page, 4 * index)).take_while(|&id| id != 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_of_a_namespace_is_the_one_in_use() {
        let mut page = [0u8; PAGE];
        page[0..8].copy_from_slice(&1000u64.to_le_bytes());
        page[25] = 7;
        page[26] = 4;
        page[128 + 16..128 + 20].copy_from_slice(&(12u32 << 16 | 8).to_le_bytes());
        page[46..48].copy_from_slice(&256u16.to_le_bytes());
        let namespace = IdentifyNamespace::parse(&page);
        assert_eq!((namespace.size, namespace.block_shift, namespace.metadata), (1000, 12, 8));
        assert_eq!(namespace.optimal_boundary, 256);
        assert_eq!(namespace.preferred, [0; 5]);
    }

    #[test]
    fn descriptors_that_run_off_the_page_are_left_out() {
        let mut page = [0u8; PAGE];
        page[0..4].copy_from_slice(&[3, 16, 0, 0]);
        page[4..20].copy_from_slice(&[7; 16]);
        page[20..24].copy_from_slice(&[4, 1, 0, 0]);
        assert_eq!(Identifiers::parse(&page).uuid, Some([7; 16]));
        assert_eq!(Identifiers::parse(&page).command_set, Some(0));
        assert_eq!(Identifiers::parse(&[0xff; PAGE]), Identifiers::default());
        assert_eq!(Identifiers::parse(&[2; PAGE]).nguid, None);
    }

    #[test]
    fn limits_of_the_controller() {
        let mut page = [0u8; PAGE];
        assert_eq!(IdentifyController::parse(&page).max_transfer, None);
        page[77] = 7;
        page[4..24].copy_from_slice(b"LABDRIVE1           ");
        let controller = IdentifyController::parse(&page);
        assert_eq!((controller.max_transfer, controller.serial.as_str()), (Some(512 << 10), "LABDRIVE1"));
        page[77] = 255;
        assert_eq!(IdentifyController::parse(&page).max_transfer, None);
    }
}
