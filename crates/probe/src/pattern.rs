//! A pattern that two programs can make without sending it to each other.
//!
//! The bytes of `pattern(seed)` are the outputs of SplitMix64 started with `seed` (Steele, Lea and Flood, "Fast
//! splittable pseudorandom number generators", 2014), each as eight little-endian bytes. The k-th output needs no
//! earlier one, so any part can be made alone. `nvlane.verify.pattern` makes the same bytes.

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The k-th output (from 0) of SplitMix64 started with `seed`.
pub fn word(seed: u64, k: u64) -> u64 {
    let mut z = seed.wrapping_add(GOLDEN.wrapping_mul(k.wrapping_add(1)));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Fill `buffer` with the pattern's bytes from `position`, which is a multiple of eight.
pub fn fill(seed: u64, position: u64, buffer: &mut [u8]) {
    debug_assert!(position % 8 == 0);
    for (k, chunk) in (position / 8..).zip(buffer.chunks_mut(8)) {
        let bytes = word(seed, k).to_le_bytes();
        chunk.copy_from_slice(&bytes[..chunk.len()]);
    }
}

/// Rubbish for tests of parsers: some thousand inputs, the same in every run.
#[cfg(test)]
pub fn rubbish(alphabet: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..4000).map(move |seed| {
        let length = word(seed, 0) % 80;
        (1..=length).map(|k| alphabet[(word(seed, k) % alphabet.len() as u64) as usize]).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_splitmix64() {
        // The published test vector for seed 1234567.
        let expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431];
        assert_eq!([0, 1, 2, 3].map(|k| word(1234567, k)), expected);
    }

    #[test]
    fn any_part_can_be_made_alone() {
        let mut whole = [0; 100];
        fill(42, 0, &mut whole);
        let mut part = [0; 60];
        fill(42, 40, &mut part);
        assert_eq!(whole[40..], part);
    }

    #[test]
    fn seeds_differ() {
        let (mut one, mut two) = ([0; 64], [0; 64]);
        fill(1, 0, &mut one);
        fill(2, 0, &mut two);
        assert_ne!(one, two);
    }
}
