//! Configuration space, through VFIO's region for it.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::NvmeError;

const COMMAND: u64 = 0x04;
const MEMORY: u16 = 1 << 1;
const BUS_MASTER: u16 = 1 << 2;
const NO_INTX: u16 = 1 << 10;
const CLASS: u64 = 0x08;
/// Mass storage, non-volatile memory, NVMe.
const NVME: u32 = 0x01_08_02;

/// Where configuration space begins in the device's file.
pub struct Config {
    pub offset: u64,
}

impl Config {
    /// Memory accesses and, with `on`, the device's own accesses to the bus are allowed; INTx is off.
    pub fn set_bus_master(&self, device: &File, address: &str, on: bool) -> Result<(), NvmeError> {
        let failed = |error| NvmeError::system(format_args!("{address}: the command register"), &error);
        let mut bytes = [0; 2];
        device.read_exact_at(&mut bytes, self.offset + COMMAND).map_err(failed)?;
        let old = u16::from_le_bytes(bytes);
        let new = old & !BUS_MASTER | MEMORY | NO_INTX | if on { BUS_MASTER } else { 0 };
        if old != new {
            device.write_all_at(&new.to_le_bytes(), self.offset + COMMAND).map_err(failed)?;
        }
        Ok(())
    }

    /// # Errors
    /// ENODEV for what is no NVMe controller.
    pub fn check_class(&self, device: &File, address: &str) -> Result<(), NvmeError> {
        let mut bytes = [0; 4];
        device
            .read_exact_at(&mut bytes, self.offset + CLASS)
            .map_err(|error| NvmeError::system(format_args!("{address}: its class"), &error))?;
        let class = u32::from_le_bytes(bytes) >> 8;
        if class == NVME {
            return Ok(());
        }
        Err(NvmeError::new(
            libc::ENODEV,
            format!("{address} is no NVMe controller: its class is {class:06x}"),
        ))
    }
}
