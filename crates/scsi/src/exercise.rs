//! What the fuzzer runs: any bytes as any commands on any disk, with the promises of this crate checked.

use crate::{
    Attention, Cdb, Command, Disk, Limits, Operation, Outcome, Provisioning, Transfer, Unit, absent, execute,
    parameter_length,
};

/// A disk whose properties are bits of `kind`.
pub fn disk(kind: u8) -> Disk {
    Disk {
        uuid: *b"0123456789abcdef",
        vendor: Disk::VENDOR.into(),
        product: "Malloc disk".into(),
        revision: Disk::REVISION.into(),
        serial: "serial".into(),
        block_size: if kind & 1 == 0 { 512 } else { 4096 },
        physical_exponent: (kind >> 1) & 3,
        read_only: kind & 8 != 0,
        write_cache: kind & 16 != 0,
        provisioning: Provisioning { unmap: kind & 32 != 0, unmapped_is_zero: kind & 64 != 0, thin: true },
        limits: Limits {
            transfer_blocks: if kind & 128 == 0 { 0 } else { 256 },
            unmap_blocks: 4096,
            unmap_descriptors: 16,
            write_same_blocks: 1024,
            unmap_granularity: 8,
        },
    }
}

/// The first bytes choose the disk and its size; then come commands: a byte of what happens before, 16 bytes of CDB,
/// two bytes of how long the Data-Out is, and the Data-Out.
pub fn run(input: &[u8]) {
    let [kind, exponent, rest @ ..] = input else { return };
    let disk = disk(*kind);
    let blocks = 1_u64.checked_shl(u32::from(exponent % 65)).unwrap_or(u64::MAX);
    let mut unit = Unit::powered_on();
    let mut data = Vec::new();
    let mut rest = rest;
    while let Some((head, tail)) = rest.split_at_checked(19) {
        before(head[0], &mut unit);
        let cdb = Cdb::new(&head[1..17]);
        let given = usize::from(u16::from_le_bytes([head[17], head[18]])).min(tail.len());
        let (sent, after) = tail.split_at(given);
        rest = after;
        let mut parameters = sent.to_vec();
        parameters.resize(parameter_length(&disk, &cdb), 0);
        let plain = [false, true].map(|write| unit.is_plain(&disk, write));
        let command = Command { cdb: &cdb, parameters: &parameters };
        let outcome = execute(&disk, blocks, &mut unit, command, &mut data);
        check(&disk, blocks, &cdb, &outcome, &data);
        check_short_path(&disk, blocks, &cdb, plain, &outcome);
        absent(&cdb, head[0] & 1 == 0, &mut data);
    }
}

fn before(what: u8, unit: &mut Unit) {
    match what >> 4 {
        1 => unit.raise(Attention::CapacityChanged),
        2 => unit.raise(Attention::LunsChanged),
        3 => unit.reset(Attention::UnitReset),
        4 => unit.reset(Attention::NexusLost),
        5 => unit.reset(Attention::PowerOn),
        _ => {}
    }
}

/// What every answer promises to whoever carries it out.
fn check(disk: &Disk, blocks: u64, cdb: &Cdb, outcome: &Outcome, data: &[u8]) {
    match outcome {
        Outcome::Good => assert!(data.is_empty()),
        Outcome::Data => assert!(!data.is_empty() && data.len() <= 4096, "{cdb:?}: {} bytes", data.len()),
        Outcome::CheckCondition(sense) => {
            for descriptors in [false, true] {
                let (bytes, length) = sense.encode(descriptors);
                assert!(length >= 8 && bytes[length..].iter().all(|byte| *byte == 0));
            }
        }
        Outcome::Operation(operation) => {
            let extents = match operation {
                Operation::Read { extent, .. } | Operation::Verify { extent, .. } => vec![*extent],
                Operation::Flush => vec![],
                Operation::Write { extent, .. }
                | Operation::WriteVerify { extent, .. }
                | Operation::WriteSame { extent, .. } => {
                    assert!(!disk.read_only, "{cdb:?} writes a read-only disk");
                    vec![*extent]
                }
                Operation::Unmap { extents } => {
                    assert!(!disk.read_only && disk.provisioning.unmap && !extents.is_empty());
                    assert!(extents.iter().map(|extent| extent.blocks).sum::<u64>() <= 4096);
                    extents.clone()
                }
            };
            for extent in extents {
                assert!(extent.lba.checked_add(extent.blocks).is_some_and(|end| end <= blocks), "{cdb:?}");
            }
            assert!(operation.data_out(disk.block_size).min(operation.data_in(disk.block_size)) == 0);
        }
    }
}

/// The short path for READ and WRITE says what the long one says.
fn check_short_path(disk: &Disk, blocks: u64, cdb: &Cdb, plain: [bool; 2], outcome: &Outcome) {
    let Some(decoded) = Transfer::decode(cdb) else { return };
    let write = decoded.map_or(true, |transfer| transfer.write);
    if !plain[0] || (write && !plain[1]) {
        return;
    }
    let extent = decoded.and_then(|transfer| transfer.extent(blocks, disk.limits.transfer_blocks));
    match outcome {
        Outcome::Operation(Operation::Read { extent: long, .. } | Operation::Write { extent: long, .. }) => {
            assert_eq!(extent, Ok(*long));
        }
        Outcome::CheckCondition(sense) => assert_eq!(extent, Err(*sense)),
        other => panic!("{cdb:?}: {other:?}"),
    }
}
