//! A request as the ring gives it.

use nvlane_memory::{Segment, total};

/// The most pieces that a request may have. Front ends announce 126 data buffers; header, status and buffers that cross
/// from one memory region into the next come on top. A driver that sends more breaks its queue.
pub const MAX_SEGMENTS: usize = 258;

/// A request in flight, to be given back to the queue it came from, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The head descriptor (split) or the buffer id (packed); less than the size of the ring.
    pub id: u16,
    /// How many places of a packed ring it takes; 1 on a split ring.
    pub descriptors: u16,
}

/// The buffers of one request: device-readable ones first, then device-writable ones. Scratch space, used again and
/// again.
pub struct Segments {
    list: Box<[Segment; MAX_SEGMENTS]>,
    /// list[first..readable] is left of the readable ones, list[writable..end] of the writable ones.
    first: usize,
    readable: usize,
    writable: usize,
    end: usize,
}

impl std::fmt::Debug for Segments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segments")
            .field("readable", &self.readable())
            .field("writable", &self.writable())
            .finish()
    }
}

impl Default for Segments {
    fn default() -> Segments {
        Segments {
            list: Box::new([Segment::EMPTY; MAX_SEGMENTS]),
            first: 0,
            readable: 0,
            writable: 0,
            end: 0,
        }
    }
}

impl Segments {
    pub fn new() -> Segments {
        Segments::default()
    }

    #[inline]
    pub fn readable(&self) -> &[Segment] {
        &self.list[self.first..self.readable]
    }

    #[inline]
    pub fn writable(&self) -> &[Segment] {
        &self.list[self.writable..self.end]
    }

    /// How many bytes are left to read.
    pub fn readable_bytes(&self) -> usize {
        total(self.readable())
    }

    /// How many bytes are left to write.
    pub fn writable_bytes(&self) -> usize {
        total(self.writable())
    }

    /// Copies the first bytes to read into `header` and takes them off; false (and nothing is taken) when there are not
    /// as many. Where one buffer ends and the next begins means nothing (VIRTIO_F_ANY_LAYOUT, VIRTIO_F_VERSION_1).
    #[inline]
    pub fn take_header(&mut self, header: &mut [u8]) -> bool {
        if let Some((first, header)) =
            self.readable().first().zip(<&mut [u8; 16]>::try_from(&mut *header).ok())
        {
            // As every block driver lays it out: two loads instead of a copy.
            if let Some(bytes) = nvlane_memory::copy::load_16(*first) {
                *header = bytes;
                let whole = first.len() == header.len();
                self.list[self.first] = first.part(header.len(), usize::MAX);
                self.first += usize::from(whole);
                return true;
            }
        }
        if nvlane_memory::copy::copy_in(self.readable(), 0, header) != header.len() {
            return false;
        }
        self.first = drop_front(&mut self.list[..self.readable], self.first, header.len());
        true
    }

    /// Takes the last byte to write off (virtio-blk's status).
    #[inline]
    pub fn take_status(&mut self) -> Option<Segment> {
        if self.end == self.writable {
            return None;
        }
        let last = &mut self.list[self.end - 1];
        let (rest, status) = last.split(last.len() - 1); // no segment here is empty
        *last = rest;
        self.end -= usize::from(rest.is_empty());
        Some(status)
    }

    /// Takes the first `length` bytes to write off (virtio-scsi's response) when they lie in one piece.
    #[inline]
    pub fn take_response(&mut self, length: usize) -> Option<Segment> {
        let first = *self.writable().first()?;
        if first.len() < length {
            return None;
        }
        self.writable = drop_front(&mut self.list[..self.end], self.writable, length);
        Some(first.part(0, length))
    }

    /// Takes `length` bytes to write off the front, however they lie.
    pub fn skip_writable(&mut self, length: usize) {
        self.writable = drop_front(&mut self.list[..self.end], self.writable, length);
    }

    #[inline(always)]
    pub(crate) fn clear(&mut self) {
        (self.first, self.readable, self.writable, self.end) = (0, 0, 0, 0);
    }

    /// Appends a piece; false when it is full. Readable ones come first: the ring has checked the order.
    #[inline(always)]
    pub(crate) fn push(&mut self, segment: Segment, writable: bool) -> bool {
        let Some(place) = self.list.get_mut(self.end) else { return false };
        *place = segment;
        self.end += 1;
        if !writable {
            self.readable = self.end;
            self.writable = self.end;
        }
        true
    }
}

/// Takes `length` bytes off `list[first..]`; where the rest begins.
#[inline]
fn drop_front(list: &mut [Segment], mut first: usize, mut length: usize) -> usize {
    while let Some(segment) = list.get_mut(first) {
        if segment.len() > length {
            *segment = segment.part(length, usize::MAX);
            break;
        }
        length -= segment.len();
        first += 1;
    }
    first
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn segments(memory: &mut [u8], readable: &[usize], writable: &[usize]) -> Segments {
        let mut segments = Segments::new();
        let mut at = 0;
        for (lengths, write) in [(readable, false), (writable, true)] {
            for &length in lengths {
                // SAFETY: within the memory, which outlives the segments in each test.
                let segment = unsafe { Segment::new(memory[at..at + length].as_mut_ptr(), length) };
                assert!(segments.push(segment, write));
                at += length;
            }
        }
        segments
    }

    #[test]
    fn header_and_status_in_any_layout() {
        for (readable, writable) in [
            (&[16usize, 512][..], &[1usize][..]),
            (&[528], &[1]),
            (&[1, 15, 500, 12], &[1]),
            (&[16], &[512, 1]),
            (&[8, 8], &[513]),
        ] {
            let mut memory: Vec<u8> = (0..600u32).map(|byte| byte as u8).collect();
            let total: usize = readable.iter().chain(writable).sum();
            let base = memory.as_mut_ptr();
            let mut segments = segments(&mut memory, readable, writable);
            let (before_in, before_out) = (segments.readable_bytes(), segments.writable_bytes());
            let mut header = [0; 16];
            assert!(segments.take_header(&mut header));
            assert_eq!(header, std::array::from_fn(|byte| byte as u8));
            let status = segments.take_status().unwrap();
            assert_eq!((status.base(), status.len()), (base.wrapping_add(total - 1), 1));
            assert_eq!(
                (segments.readable_bytes(), segments.writable_bytes()),
                (before_in - 16, before_out - 1)
            );
        }
    }

    #[test]
    fn a_response_in_one_piece() {
        let mut memory = [0; 400];
        let mut whole = segments(&mut memory, &[51], &[108, 200]);
        assert_eq!(whole.take_response(108).unwrap().len(), 108);
        assert_eq!(whole.writable_bytes(), 200);
        let mut pieces = segments(&mut memory, &[51], &[100, 208]);
        assert_eq!(pieces.take_response(108), None);
        pieces.skip_writable(108);
        assert_eq!(pieces.writable_bytes(), 200);
        assert_eq!(pieces.writable().len(), 1);
    }

    #[test]
    fn too_little_is_no_header() {
        let mut memory = [0; 40];
        let mut few = segments(&mut memory, &[10], &[]);
        assert!(!few.take_header(&mut [0; 16]));
        assert_eq!(few.readable_bytes(), 10);
        assert_eq!(few.take_status(), None);
    }
}
