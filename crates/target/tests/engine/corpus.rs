//! What the fuzzer found worth keeping, and a few thousand inputs more.

use std::path::Path;

use nvlane_target::device::blk::fuzz::requests;

#[test]
fn the_corpus_of_block_requests() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/blk_request");
    let mut files = 0;
    for entry in std::fs::read_dir(&corpus).unwrap() {
        requests(&std::fs::read(entry.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files > 0, "{} is empty", corpus.display());
}

#[test]
fn random_block_requests() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..500 {
        let bytes: Vec<u8> = (0..300)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                // Small numbers mean something more often.
                (state >> 32) as u8 & if state & 3 == 0 { 0xff } else { 0x0f }
            })
            .collect();
        requests(&bytes);
    }
}
