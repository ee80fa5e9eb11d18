//! What the fuzzer found worth keeping, again.
#![cfg(not(loom))]

use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut files = 0;
    for entry in std::fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{}: {error}", corpus.display())) {
        run(&std::fs::read(entry.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files > 0, "{} is empty", corpus.display());
}

#[test]
fn split_rings() {
    replay("ring_split", nvlane_ring::fuzz::split);
}

#[test]
fn packed_rings() {
    replay("ring_packed", nvlane_ring::fuzz::packed);
}

#[test]
fn inflight_records() {
    replay("ring_inflight", nvlane_ring::fuzz::inflight);
}
