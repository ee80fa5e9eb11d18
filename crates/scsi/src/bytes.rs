//! Big-endian fields: SCSI's byte order everywhere (SPC-5 3.6).

/// The field of `N` bytes at `offset`; bytes beyond the end read as zero, as in a list that was cut short.
fn field<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let mut out = [0; N];
    if let Some(rest) = bytes.get(offset..) {
        let present = rest.len().min(N);
        out[..present].copy_from_slice(&rest[..present]);
    }
    out
}

pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_be_bytes(field(bytes, offset))
}

pub(crate) fn u24_at(bytes: &[u8], offset: usize) -> u32 {
    let [high, middle, low] = field(bytes, offset);
    u32::from_be_bytes([0, high, middle, low])
}

pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_be_bytes(field(bytes, offset))
}

pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_be_bytes(field(bytes, offset))
}

pub(crate) fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    bytes[offset..offset + value.len()].copy_from_slice(value);
}

/// Text of a fixed width: printable ASCII, left-aligned, padded with spaces (SPC-5 4.3.1).
pub(crate) fn put_text(field: &mut [u8], text: &str) {
    field.fill(b' ');
    for (place, character) in field.iter_mut().zip(text.bytes()) {
        *place = if (0x20..0x7F).contains(&character) { character } else { b'_' };
    }
}
