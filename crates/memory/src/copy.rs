//! The only copies of memory that somebody else may change at the same time.
//!
//! Rust has no copy that is defined under such a race (RFC 3301 would bring one). On x86-64 the copies are assembly:
//! the compiler knows nothing of the memory but that it may have changed, which is the truth. What was copied is ours
//! and stays as it is; nobody parses what is still shared.

use crate::segment::Segment;

/// Copies from shared memory, `offset` bytes into the segments, until `to` is full or they end; the number of bytes.
pub fn copy_in(segments: &[Segment], offset: usize, to: &mut [u8]) -> usize {
    walk(segments, offset, to.len(), |base, length, done| {
        // SAFETY: the segment names mapped memory (Segment::new); done + length <= to.len() (walk).
        unsafe { bytes(base, to.as_mut_ptr().add(done), length) }
    })
}

/// Copies to shared memory, `offset` bytes into the segments, until `from` or they end; the number of bytes.
pub fn copy_out(from: &[u8], segments: &[Segment], offset: usize) -> usize {
    walk(segments, offset, from.len(), |base, length, done| {
        // SAFETY: the segment names mapped memory (Segment::new); done + length <= from.len() (walk).
        unsafe { bytes(from.as_ptr().add(done), base, length) }
    })
}

/// Zeroes `length` bytes from `offset` on; the number of bytes there were.
pub fn zero(segments: &[Segment], offset: usize, length: usize) -> usize {
    walk(segments, offset, length, |base, length, _| {
        // SAFETY: the segment names mapped memory (Segment::new).
        unsafe { clear(base, length) }
    })
}

/// The first sixteen bytes of a segment, in one or two loads: the header of a request, for which a string instruction
/// takes longer to start than to copy. `None`: it is shorter.
#[inline(always)]
pub fn load_16(segment: Segment) -> Option<[u8; 16]> {
    if segment.len() < 16 {
        return None;
    }
    // SAFETY: the segment names that many mapped bytes (Segment::new); a vector load takes them at any alignment, and
    // being assembly it is no race in the language's sense.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        let value: std::arch::x86_64::__m128i;
        std::arch::asm!(
            "movdqu {value}, [{base}]",
            value = out(xmm_reg) value, base = in(reg) segment.base(),
            options(nostack, preserves_flags, readonly)
        );
        Some(std::mem::transmute::<std::arch::x86_64::__m128i, [u8; 16]>(value))
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let mut bytes = [0; 16];
        copy_in(&[segment], 0, &mut bytes);
        Some(bytes)
    }
}

/// Stores the first byte of a segment (the status of a request), if it has one.
#[inline(always)]
pub fn store_byte(segment: Segment, value: u8) {
    if !segment.is_empty() {
        // SAFETY: the segment names at least this mapped byte (Segment::new); a byte is always aligned.
        unsafe { segment.base().write_volatile(value) }
    }
}

/// Gathers the segments' bytes at `to` (a write to a memory disk); the number of bytes, at most `length`.
///
/// # Safety
/// `length` bytes at `to` are mapped, writable, and not part of the segments.
#[inline]
pub unsafe fn gather(segments: &[Segment], to: *mut u8, length: usize) -> usize {
    walk(segments, 0, length, |base, length, done| {
        // SAFETY: the segment names mapped memory; done + length <= the caller's length.
        unsafe { bytes(base, to.add(done), length) }
    })
}

/// Scatters the bytes at `from` over the segments (a read of a memory disk); the number of bytes, at most `length`.
///
/// # Safety
/// `length` bytes at `from` are mapped, readable, and not part of the segments.
#[inline]
pub unsafe fn scatter(from: *const u8, segments: &[Segment], length: usize) -> usize {
    walk(segments, 0, length, |base, length, done| {
        // SAFETY: the segment names mapped memory; done + length <= the caller's length.
        unsafe { bytes(from.add(done), base, length) }
    })
}

/// Fetches the cache line of an address. Any address will do: a prefetch never faults.
#[inline(always)]
pub fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Calls `each(base, length, bytes done before)` for the pieces of `length` bytes from `offset` on.
#[inline(always)]
fn walk(
    segments: &[Segment],
    mut offset: usize,
    length: usize,
    mut each: impl FnMut(*mut u8, usize, usize),
) -> usize {
    let mut done = 0;
    for &segment in segments {
        if done == length {
            break;
        }
        let part = segment.part(offset, length - done);
        offset = offset.saturating_sub(segment.len());
        if !part.is_empty() {
            each(part.base(), part.len(), done);
            done += part.len();
        }
    }
    done
}

/// Copies `length` bytes; the one copy that all others are made of.
///
/// `rep movsb` is as fast as the best vector loop for 4 KiB out of cold memory on processors that have ERMS (all since
/// Ivy Bridge and Zen 3), and needs no choice by processor; for a request's header it is too slow to start.
///
/// # Safety
/// Both ranges are mapped, readable and writable respectively, and do not overlap. Others may change them meanwhile.
#[inline(always)]
pub unsafe fn bytes(from: *const u8, to: *mut u8, length: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promise. Two moves of 16 bytes, the second ending where the range ends, cover 16 to 32 bytes;
    // the direction flag is clear (the ABI says so).
    unsafe {
        if (16..=32).contains(&length) {
            std::arch::asm!(
                "movups {first}, [{from}]",
                "movups {last}, [{from} + {length} - 16]",
                "movups [{to}], {first}",
                "movups [{to} + {length} - 16], {last}",
                from = in(reg) from, to = in(reg) to, length = in(reg) length,
                first = out(xmm_reg) _, last = out(xmm_reg) _,
                options(nostack, preserves_flags)
            );
        } else if length == 1 {
            to.write_volatile(from.read_volatile());
        } else {
            std::arch::asm!(
                "rep movsb",
                inout("rcx") length => _, inout("rsi") from => _, inout("rdi") to => _,
                options(nostack, preserves_flags)
            );
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: the caller's promise.
    unsafe {
        opaque(from, to, length);
    }
}

/// Not inlined, so that the compiler draws no conclusions about the memory from the copy.
#[cfg(not(target_arch = "x86_64"))]
#[inline(never)]
unsafe fn opaque(from: *const u8, to: *mut u8, length: usize) {
    // SAFETY: the caller's promise.
    unsafe { std::ptr::copy_nonoverlapping(from, to, length) }
}

/// Zeroes `length` bytes.
///
/// # Safety
/// The range is mapped and writable. Others may change it meanwhile.
#[inline(always)]
pub unsafe fn clear(to: *mut u8, length: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promise; the direction flag is clear (the ABI says so).
    unsafe {
        std::arch::asm!(
            "rep stosb",
            inout("rcx") length => _, inout("rdi") to => _, in("al") 0u8,
            options(nostack, preserves_flags)
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: the caller's promise.
    unsafe {
        std::ptr::write_bytes(to, 0, length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(memory: &mut [u8], lengths: &[usize]) -> Vec<Segment> {
        let mut base = memory.as_mut_ptr();
        lengths
            .iter()
            .map(|&length| {
                // SAFETY: the lengths add up to no more than the memory, which outlives the segments in each test.
                unsafe {
                    let segment = Segment::new(base, length);
                    base = base.add(length);
                    segment
                }
            })
            .collect()
    }

    #[test]
    fn bytes_land_where_they_belong() {
        let mut memory = [0u8; 64];
        let parts = segments(&mut memory, &[3, 0, 20, 1, 40]);
        let data: Vec<u8> = (1..=50).collect();
        assert_eq!(copy_out(&data, &parts, 5), 50);
        let mut back = [0u8; 70];
        assert_eq!(copy_in(&parts, 0, &mut back), 64);
        assert_eq!(back[5..55], data[..]);
        assert_eq!(back[..5], [0; 5]);
        assert_eq!(zero(&parts, 6, 10), 10);
        assert_eq!(copy_in(&parts, 4, &mut back[..14]), 14);
        assert_eq!(back[..14], [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 13]);
    }

    #[test]
    fn every_length() {
        let from: Vec<u8> = (1..=100).collect();
        for length in 0..=100 {
            let mut to = [0u8; 102];
            let parts = segments(&mut to[1..101], &[100]);
            assert_eq!(copy_out(&from[..length], &parts, 0), length);
            assert_eq!(to[1..=length], from[..length]);
            assert!(to[length + 1..].iter().all(|&byte| byte == 0) && to[0] == 0, "{length}");
        }
    }

    #[test]
    fn ends_are_kept() {
        let mut memory = [7u8; 16];
        let parts = segments(&mut memory, &[4, 12]);
        assert_eq!(copy_out(&[1; 32], &parts, 10), 6);
        assert_eq!(copy_out(&[1; 32], &parts, 16), 0);
        assert_eq!(copy_out(&[1; 32], &parts, 1000), 0);
        assert_eq!(zero(&parts, 0, usize::MAX), 16);
        assert_eq!(copy_in(&[], 0, &mut [0; 4]), 0);
    }

    #[test]
    fn whole_requests() {
        let mut guest = vec![0u8; 8192];
        let parts = segments(&mut guest, &[512, 4096, 3584]);
        let mut disk: Vec<u8> = (0..8192u32).map(|byte| (byte % 251) as u8).collect();
        // SAFETY: the disk has 8192 bytes and is not the guest's memory.
        unsafe {
            assert_eq!(scatter(disk.as_ptr(), &parts, 8192), 8192);
            let wanted = disk.clone();
            disk.fill(0);
            assert_eq!(gather(&parts, disk.as_mut_ptr(), 8192), 8192);
            assert_eq!(disk, wanted);
        }
    }
}
