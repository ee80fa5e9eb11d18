//! What the bytes of a request mean (virtio 1.3, 5.2.6). They were copied out of guest memory before.

/// The sixteen bytes that every request begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: u32,
    pub sector: u64,
}

/// VIRTIO_BLK_T_*.
pub mod kind {
    pub const IN: u32 = 0;
    pub const OUT: u32 = 1;
    pub const FLUSH: u32 = 4;
    pub const GET_ID: u32 = 8;
    pub const DISCARD: u32 = 11;
    pub const WRITE_ZEROES: u32 = 13;
}

pub const HEADER: usize = 16;

impl Header {
    #[inline]
    pub fn parse(bytes: &[u8; HEADER]) -> Self {
        let [a, b, c, d, _, _, _, _, sector @ ..] = *bytes;
        Self { kind: u32::from_le_bytes([a, b, c, d]), sector: u64::from_le_bytes(sector) }
    }
}

/// A range of DISCARD or WRITE_ZEROES: `struct virtio_blk_discard_write_zeroes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    pub sector: u64,
    pub sectors: u32,
    pub flags: u32,
}

pub const RANGE: usize = 16;
/// The only flag there is: the range may be deallocated.
pub const UNMAP: u32 = 1;

impl Range {
    pub fn parse(bytes: &[u8; RANGE]) -> Self {
        let field = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self { sector: u64::from(field(4)) << 32 | u64::from(field(0)), sectors: field(8), flags: field(12) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_and_a_range() {
        let bytes = [1, 0, 0, 0, 9, 9, 9, 9, 7, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(Header::parse(&bytes), Header { kind: kind::OUT, sector: 1 << 56 | 7 });
        let bytes = [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0];
        assert_eq!(Range::parse(&bytes), Range { sector: 2 << 32 | 1, sectors: 3, flags: UNMAP });
    }
}
