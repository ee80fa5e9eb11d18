/// A contiguous piece of shared memory: the address in this process and the length in bytes.
///
/// It has the layout of `struct iovec`, so that a slice of segments is what readv(2) and io_uring take.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub base: *mut u8,
    pub length: usize,
}

// SAFETY: a segment is an address and a length; what may be done with it is up to who uses it.
unsafe impl Send for Segment {}
