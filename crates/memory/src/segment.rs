/// A contiguous piece of shared memory: the address in this process and the length in bytes.
///
/// It has the layout of `struct iovec`, so that a slice of segments is what readv(2) and io_uring take.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    base: *mut u8,
    length: usize,
}

// SAFETY: a segment is an address and a length; what may be done with it is up to who uses it.
unsafe impl Send for Segment {}

impl Segment {
    /// A segment without memory.
    pub const EMPTY: Segment = Segment { base: std::ptr::NonNull::dangling().as_ptr(), length: 0 };

    /// Names `length` bytes at `base`.
    ///
    /// # Safety
    /// They stay mapped, readable and writable, for as long as the segment or a copy of it is used, and nothing but
    /// raw pointers names them meanwhile.
    #[inline(always)]
    pub const unsafe fn new(base: *mut u8, length: usize) -> Segment {
        Segment { base, length }
    }

    #[inline(always)]
    pub const fn base(self) -> *mut u8 {
        self.base
    }

    #[inline(always)]
    pub const fn len(self) -> usize {
        self.length
    }

    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.length == 0
    }

    /// The part of it from `offset` on, at most `length` bytes; empty beyond its end.
    #[inline]
    pub fn part(self, offset: usize, length: usize) -> Segment {
        let offset = offset.min(self.length);
        Segment { base: self.base.wrapping_add(offset), length: length.min(self.length - offset) }
    }

    /// Cuts it in two at `offset` (or at its end).
    #[inline]
    pub fn split(self, offset: usize) -> (Segment, Segment) {
        (self.part(0, offset), self.part(offset, usize::MAX))
    }
}

/// The bytes of several segments.
#[inline]
pub fn total(segments: &[Segment]) -> usize {
    segments.iter().map(|segment| segment.length).sum()
}
