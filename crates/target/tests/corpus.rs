//! What the fuzzer found worth keeping, replayed.

use std::path::Path;

#[test]
fn conversations() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/session");
    let mut files = 0;
    for entry in std::fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{}: {error}", corpus.display())) {
        nvlane_target::session::fuzz::conversation(&std::fs::read(entry.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files > 0, "{} is empty", corpus.display());
}

/// The same, from a generator instead of a corpus: a quick look at what the fuzzer looks at for hours.
#[test]
fn conversations_of_noise() {
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..3000_usize {
        let bytes: Vec<u8> = (0..(round % 40) * 20)
            .map(|_| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                // Small numbers are what kinds of messages, queues and flags are.
                if noise & 0x300 == 0 { noise as u8 } else { noise as u8 % 32 }
            })
            .collect();
        nvlane_target::session::fuzz::conversation(&bytes);
    }
}
