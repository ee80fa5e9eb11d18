//! An I/O address space: which addresses it can translate, and what a mapping that fails means.

use std::io;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

/// What both interfaces share: the ranges of addresses, and how much was mapped.
#[derive(Default)]
pub struct Space {
    ranges: Mutex<Vec<RangeInclusive<u64>>>,
    mapped: Mutex<u64>,
}

impl Space {
    pub fn set_ranges(&self, ranges: Vec<RangeInclusive<u64>>) {
        *self.ranges.lock().unwrap_or_else(PoisonError::into_inner) = ranges;
    }

    /// Maps with `map`, after a look at the address; errors are sentences with numbers.
    pub fn map(&self, iova: u64, length: usize, map: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let last = iova + (length as u64 - 1);
        let ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // No list: an old kernel (before 5.4) that does not say.
        if !ranges.is_empty() && !ranges.iter().any(|range| range.contains(&iova) && range.contains(&last)) {
            let known: Vec<String> =
                ranges.iter().map(|range| format!("{:#x}-{:#x}", range.start(), range.end())).collect();
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("this host's IOMMU cannot translate {iova:#x}-{last:#x}, only {}", known.join(", ")),
            ));
        }
        let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        map().map_err(|error| explain(&error, length as u64, *mapped))?;
        *mapped += length as u64;
        Ok(())
    }

    pub fn unmapped(&self, length: usize) {
        let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        *mapped = mapped.saturating_sub(length as u64);
    }
}

fn explain(error: &io::Error, length: u64, mapped: u64) -> io::Error {
    let kib = |bytes: u64| bytes.div_ceil(1024);
    let why = match error.raw_os_error() {
        Some(libc::ENOMEM) => {
            let limit = match rustix::process::getrlimit(rustix::process::Resource::Memlock).current {
                Some(bytes) => format!("{} KiB", kib(bytes)),
                None => "unlimited".to_owned(),
            };
            format!(
                "{} KiB cannot be locked beside {} KiB that are: the limit of locked memory is {limit} ('ulimit -l', \
                 RLIMIT_MEMLOCK, LimitMEMLOCK= of a systemd unit)",
                kib(length),
                kib(mapped)
            )
        }
        // mm/gup.c, writable_file_mapping_allowed.
        Some(libc::EFAULT) => {
            "Linux pins no page of a file that it writes back, nor of what is not there".to_owned()
        }
        Some(libc::ENOSPC) => {
            "the IOMMU has as many mappings as it takes (vfio_iommu_type1.dma_entry_limit)".to_owned()
        }
        _ => return io::Error::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO)),
    };
    io::Error::new(error.kind(), why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_the_iommu_cannot_translate_are_named() {
        let space = Space::default();
        space.set_ranges(vec![0..=0xfedf_ffff, 0xfef0_0000..=0x7f_ffff_ffff]);
        assert!(space.map(4 << 30, 4096, || Ok(())).is_ok());
        for (iova, length) in
            [(0xfee0_0000, 4096), (0xfedf_f000, 8192), (0x7f_ffff_f000, 8192), (1 << 40, 4096)]
        {
            let error = space.map(iova, length, || panic!("not asked of the kernel")).unwrap_err();
            assert!(error.to_string().contains("0xfef00000-0x7fffffffff"), "{error}");
        }
    }

    #[test]
    fn locked_memory_that_runs_out_is_told_with_numbers() {
        let space = Space::default();
        space.map(4 << 30, 1 << 20, || Ok(())).unwrap();
        let full = || Err(io::Error::from_raw_os_error(libc::ENOMEM));
        let error = space.map(5 << 30, 2 << 20, full).unwrap_err();
        assert!(error.to_string().contains("2048 KiB cannot be locked beside 1024 KiB"), "{error}");
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
    }
}
