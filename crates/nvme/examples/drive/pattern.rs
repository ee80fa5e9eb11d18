//! Contents that say where they belong.

/// Bytes of `count` from `start` on (both multiples of 16): the seed and the number of each 16 bytes, in hexadecimal.
pub fn bytes(seed: u32, start: u64, count: usize) -> Vec<u8> {
    (start / 16..(start + count as u64) / 16)
        .flat_map(|number| format!("{seed:04x}{number:012x}").into_bytes())
        .collect()
}
