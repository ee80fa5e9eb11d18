//! Any bytes as commands: no panic, nothing beyond the disk, no answer longer than asked for; and the same short and
//! long way for reads and writes. `exercise` holds the checks, the fuzzer runs it with bytes of its own.

use nvlane_scsi::{Cdb, Command, Outcome, Unit, execute, exercise, parameter_length};
use proptest::collection::vec;
use proptest::prelude::*;

/// Operation codes of disks, known and unknown to us, more often than others.
const CODES: [u8; 44] = [
    0x00, 0x03, 0x04, 0x08, 0x0A, 0x12, 0x15, 0x16, 0x1A, 0x1B, 0x1C, 0x1D, 0x1E, 0x25, 0x28, 0x2A, 0x2E,
    0x2F, 0x34, 0x35, 0x3B, 0x41, 0x42, 0x4D, 0x55, 0x5A, 0x5E, 0x5F, 0x7F, 0x85, 0x88, 0x89, 0x8A, 0x8E,
    0x8F, 0x91, 0x93, 0x9E, 0xA0, 0xA3, 0xA8, 0xAA, 0xAE, 0xAF,
];

fn cdb() -> impl Strategy<Value = [u8; 16]> {
    let opcode = prop_oneof![4 => proptest::sample::select(&CODES[..]), 1 => any::<u8>()];
    // Small values, so that addresses fall into the disk and lengths into limits.
    let byte = prop_oneof![3 => Just(0_u8), 1 => any::<u8>()];
    (opcode, prop::array::uniform15(byte)).prop_map(|(opcode, rest)| {
        let mut cdb = [0; 16];
        cdb[0] = opcode;
        cdb[1..].copy_from_slice(&rest);
        cdb
    })
}

fn session() -> impl Strategy<Value = Vec<u8>> {
    let command = (any::<u8>(), cdb(), vec(prop_oneof![3 => Just(0_u8), 1 => any::<u8>()], 0..64));
    (any::<u8>(), 0..40_u8, vec(command, 1..12)).prop_map(|(kind, exponent, commands)| {
        let mut input = vec![kind, exponent];
        for (before, cdb, list) in commands {
            input.push(before);
            input.extend(cdb);
            input.extend((list.len() as u16).to_le_bytes());
            input.extend(list);
        }
        input
    })
}

/// Where the allocation length of a Data-In command is: offset and size.
fn allocation(cdb: &[u8; 16]) -> Option<usize> {
    let field = |offset: usize, size: usize| {
        Some(cdb[offset..offset + size].iter().fold(0, |value, byte| value << 8 | usize::from(*byte)))
    };
    match (cdb[0], cdb[1] & 0x1F) {
        (0x03 | 0x1A, _) => field(4, 1),
        (0x12, _) => field(3, 2),
        (0x4D | 0x5A, _) => field(7, 2),
        (0x9E, 0x10 | 0x12) => field(10, 4),
        (0xA0, _) | (0xA3, 0x0C | 0x0D) => field(6, 4),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_session(input in session()) {
        exercise::run(&input);
    }

    #[test]
    fn any_bytes(input in vec(any::<u8>(), 0..400)) {
        exercise::run(&input);
    }

    #[test]
    fn an_answer_keeps_to_its_allocation_length(kind in any::<u8>(), raw in cdb()) {
        let disk = exercise::disk(kind);
        let mut unit = Unit::powered_on();
        let mut data = Vec::new();
        let ready = Cdb::new(&[0; 6]);
        execute(&disk, 1 << 20, &mut unit, Command { cdb: &ready, parameters: &[] }, &mut data);
        let cdb = Cdb::new(&raw);
        let parameters = vec![0; parameter_length(&disk, &cdb)];
        let outcome = execute(&disk, 1 << 20, &mut unit, Command { cdb: &cdb, parameters: &parameters }, &mut data);
        if let (Outcome::Data, Some(allocation)) = (&outcome, allocation(&raw)) {
            prop_assert!(data.len() <= allocation);
        }
        prop_assert_eq!(outcome == Outcome::Data, !data.is_empty());
    }
}
