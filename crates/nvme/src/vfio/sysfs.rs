//! What sysfs says about a function: why it cannot be had, before VFIO says so with a bare errno.

use std::fs;
use std::path::{Path, PathBuf};

use crate::NvmeError;

const DRIVER: &str = "vfio-pci";

/// A PCI address in its full form.
pub fn check_address(address: &str) -> Result<(), NvmeError> {
    let bytes = address.as_bytes();
    let well_formed = bytes.len() == 12
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            4 | 7 => *byte == b':',
            10 => *byte == b'.',
            _ => byte.is_ascii_hexdigit(),
        });
    if well_formed {
        return Ok(());
    }
    Err(NvmeError::new(libc::EINVAL, format!("{address:?} is no PCI address like 0000:05:00.0")))
}

pub struct Function {
    address: String,
    path: PathBuf,
}

impl Function {
    /// # Errors
    /// ENODEV when there is none; EINVAL for a word that is no address.
    pub fn find(address: &str) -> Result<Self, NvmeError> {
        check_address(address)?;
        let path = Path::new("/sys/bus/pci/devices").join(address);
        if !path.exists() {
            return Err(NvmeError::new(libc::ENODEV, format!("there is no PCI function at {address}")));
        }
        Ok(Self { address: address.to_owned(), path })
    }

    /// # Errors
    /// EBUSY with the driver's name, and how it is changed.
    pub fn check_driver(&self) -> Result<(), NvmeError> {
        match driver(&self.path) {
            Some(name) if name == DRIVER || name.ends_with("-vfio-pci") => Ok(()),
            Some(name) => Err(NvmeError::new(
                libc::EBUSY,
                format!(
                    "{} belongs to the driver {name}, not to {DRIVER}: bind it first ('nvlane host setup', or \
                     driver_override in sysfs)",
                    self.address
                ),
            )),
            None => Err(NvmeError::new(
                libc::EBUSY,
                format!("{} has no driver: bind it to {DRIVER} ('nvlane host setup')", self.address),
            )),
        }
    }

    /// The number of its IOMMU group.
    ///
    /// # Errors
    /// ENODEV where there is no IOMMU, or VFIO pretends that there is one.
    pub fn group(&self) -> Result<u32, NvmeError> {
        let link = fs::read_link(self.path.join("iommu_group")).map_err(|_| {
            NvmeError::new(
                libc::ENODEV,
                format!(
                    "{} is in no IOMMU group: turn the IOMMU on, in the firmware and with intel_iommu=on or \
                     amd_iommu=on on the kernel's command line",
                    self.address
                ),
            )
        })?;
        if fs::read_to_string(self.path.join("iommu_group/name"))
            .is_ok_and(|name| name.trim() == "vfio-noiommu")
        {
            return Err(NvmeError::new(
                libc::EPERM,
                format!(
                    "{} is in VFIO's mode without an IOMMU, in which a drive may write to all memory: refused",
                    self.address
                ),
            ));
        }
        let number = link.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        number.ok_or_else(|| {
            NvmeError::new(libc::EIO, format!("{} has a group without a number", self.address))
        })
    }

    /// The others of its group that keep it from being viable, each with its driver.
    pub fn obstacles(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path.join("iommu_group/devices")) else { return Vec::new() };
        let mut found: Vec<String> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let driver = driver(&entry.path())?;
                // What vfio itself allows beside (drivers/vfio/vfio_main.c, vfio_dev_viable): bridges and stubs.
                let harmless =
                    driver.ends_with("vfio-pci") || ["pci-stub", "pcieport"].contains(&driver.as_str());
                (!harmless && name != self.address).then(|| format!("{name} ({driver})"))
            })
            .collect();
        found.sort_unstable();
        found
    }

    /// Its file below /dev/vfio/devices, on kernels that have such files.
    pub fn device_file(&self) -> Option<PathBuf> {
        let mut entries = fs::read_dir(self.path.join("vfio-dev")).ok()?.flatten();
        let path = Path::new("/dev/vfio/devices").join(entries.next()?.file_name());
        path.exists().then_some(path)
    }
}

fn driver(function: &Path) -> Option<String> {
    fs::read_link(function.join("driver")).ok()?.file_name()?.to_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_address_never_reaches_sysfs() {
        for word in ["", "05:00.0", "0000:05:00.g", "../../../../x", "0000:05:00.0/..", "0000;05:00.0"] {
            assert_eq!(Function::find(word).err().unwrap().errno, libc::EINVAL, "{word}");
        }
        let error = Function::find("ffff:ff:1f.7").err().unwrap();
        assert_eq!(error.errno, libc::ENODEV, "{error}");
    }
}
