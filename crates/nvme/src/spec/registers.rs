//! Controller registers (3.1.3).

use std::time::Duration;

/// Offsets in BAR0 (3.1.3, figure 'Property Definition').
pub mod register {
    pub const CAP: usize = 0x00;
    pub const VS: usize = 0x08;
    pub const CC: usize = 0x14;
    pub const CSTS: usize = 0x1c;
    pub const AQA: usize = 0x24;
    pub const ASQ: usize = 0x28;
    pub const ACQ: usize = 0x30;
    /// The first doorbell (NVMe over PCIe Transport Specification 1.0, 3.1.2).
    pub const DOORBELLS: usize = 0x1000;
}

/// Offset of a doorbell: the submission queue's tail, or the completion queue's head.
pub fn doorbell(queue: u16, completion: bool, stride: usize) -> usize {
    register::DOORBELLS + (2 * usize::from(queue) + usize::from(completion)) * stride
}

/// CAP, offset 0h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// Entries that an I/O queue may have (MQES is 0's based).
    pub fn max_queue_entries(self) -> u32 {
        (self.0 & 0xffff) as u32 + 1
    }

    /// How long CSTS.RDY may take to change (TO, in units of 500 ms). A controller that says 0 gets one unit.
    pub fn ready_timeout(self) -> Duration {
        let units = (self.0 >> 24) & 0xff;
        Duration::from_millis(500 * (units + 1))
    }

    /// Bytes between doorbells (DSTRD).
    pub fn doorbell_stride(self) -> usize {
        4 << ((self.0 >> 32) & 0xf)
    }

    /// Whether the NVM command set is offered (CSS bit 0; bit 6: I/O command sets, of which NVM is one).
    pub fn nvm_command_set(self) -> bool {
        let sets = (self.0 >> 37) & 0xff;
        sets & (1 | 1 << 6) != 0
    }

    /// Whether I/O command sets are chosen by CC.CSS = 110b (CSS bit 6).
    pub fn several_command_sets(self) -> bool {
        (self.0 >> 37) & (1 << 6) != 0
    }

    /// The smallest page size in bytes (MPSMIN).
    pub fn smallest_page(self) -> usize {
        4096 << ((self.0 >> 48) & 0xf)
    }
}

/// VS, offset 8h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32);

impl Version {
    pub const V1_1: Version = Version(0x0001_0100);
    pub const V1_3: Version = Version(0x0001_0300);
    pub const V2_0: Version = Version(0x0002_0000);

    /// No controller has version 0 or all ones: the first is what a mapping says whose device was taken away, the
    /// second what a PCIe bus answers when nobody does (PCIe Base Specification, 2.3.2).
    pub fn is_absent(self) -> bool {
        self.0 == 0 || self.0 == u32::MAX
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}", self.0 >> 16, (self.0 >> 8) & 0xff)?;
        match self.0 & 0xff {
            0 => Ok(()),
            tertiary => write!(formatter, ".{tertiary}"),
        }
    }
}

/// CC, offset 14h: what the driver writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Configuration(pub u32);

impl Configuration {
    pub const DISABLED: Configuration = Configuration(0);
    const ENABLE: u32 = 1;
    const SHUTDOWN_NORMAL: u32 = 1 << 14;
    const SHUTDOWN_MASK: u32 = 3 << 14;

    /// Enabled: pages of 4 KiB, round robin, entries of 64 and 16 bytes (IOSQES = 6, IOCQES = 4).
    pub fn enabled(capabilities: Capabilities) -> Self {
        let sets = if capabilities.several_command_sets() { 6 << 4 } else { 0 };
        Self(Self::ENABLE | sets | 6 << 16 | 4 << 20)
    }

    pub fn is_enabled(self) -> bool {
        self.0 & Self::ENABLE != 0
    }

    #[must_use]
    pub fn without_enable(self) -> Self {
        Self(self.0 & !Self::ENABLE)
    }

    /// With the notification of a normal shutdown (SHN = 01b).
    #[must_use]
    pub fn shutting_down(self) -> Self {
        Self(self.0 & !Self::SHUTDOWN_MASK | Self::SHUTDOWN_NORMAL)
    }

    pub fn is_shutting_down(self) -> bool {
        self.0 & Self::SHUTDOWN_MASK != 0
    }
}

/// CSTS.SHST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownStatus {
    Normal,
    Occurring,
    Complete,
    Reserved,
}

/// CSTS, offset 1Ch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControllerStatus(pub u32);

impl ControllerStatus {
    pub fn is_ready(self) -> bool {
        self.0 & 1 != 0
    }

    /// CFS: only a reset helps.
    pub fn is_fatal(self) -> bool {
        self.0 & 2 != 0
    }

    pub fn is_absent(self) -> bool {
        self.0 == u32::MAX
    }

    pub fn shutdown(self) -> ShutdownStatus {
        match (self.0 >> 2) & 3 {
            0 => ShutdownStatus::Normal,
            1 => ShutdownStatus::Occurring,
            2 => ShutdownStatus::Complete,
            _ => ShutdownStatus::Reserved,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_registers_are_where_the_specification_has_them() {
        // CAP of QEMU's controller: MQES 2047, CQR, TO 15, CSS NVM and several, MPSMAX 4.
        let capabilities = Capabilities(0x0040_0820_0f01_07ff | 1 << 43);
        assert_eq!(capabilities.max_queue_entries(), 2048);
        assert_eq!(capabilities.ready_timeout(), Duration::from_secs(8));
        assert_eq!(capabilities.doorbell_stride(), 4);
        assert_eq!(capabilities.smallest_page(), 4096);
        assert!(capabilities.nvm_command_set() && capabilities.several_command_sets());
        assert_eq!(Configuration::enabled(capabilities).0, 0x0046_0061);
        assert_eq!(Configuration::enabled(Capabilities(1 << 37)).0, 0x0046_0001);
        assert_eq!(Configuration(0x0046_0001).shutting_down().0, 0x0046_4001);
        assert_eq!(ControllerStatus(0b1001).shutdown(), ShutdownStatus::Complete);
        assert_eq!(doorbell(3, true, 8), 0x1000 + 7 * 8);
        assert_eq!(Version(0x0001_0401).to_string(), "1.4.1");
        assert_eq!(Version::V2_0.to_string(), "2.0");
    }
}
