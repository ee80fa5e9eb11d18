//! What is written is what stands on the medium, whatever the segments look like.

use nvlane_nvme::emulated::{EmulatedNamespace, EmulatedOptions};
use nvlane_nvme::{IoKind, Outcome, Submission};
use proptest::prelude::*;

use crate::{Bench, Memory, finish, io, read, run, write};

const PAGE: usize = 4096;

#[test]
fn both_block_sizes_read_what_was_written() {
    for (stride, shadow_doorbells) in [(0, false), (2, false), (0, true)] {
        let model =
            EmulatedOptions { doorbell_stride_shift: stride, shadow_doorbells, ..EmulatedOptions::default() };
        let bench = Bench::new(model);
        for (namespace, block) in [(1, 512), (2, 4096)] {
            let mut queue = bench.controller.open(namespace).unwrap();
            let memory = Memory::new(256 << 10);
            let bytes = memory.fill(namespace as u8);
            // More requests than the rings have entries: they go round.
            for round in 0..200u64 {
                let source = [memory.part(0, 8 * PAGE)];
                assert_eq!(
                    run(&mut queue, &write(8 * round, (8 * PAGE / block) as u64, &source, round)),
                    Outcome::Ok
                );
            }
            let mut kept = vec![0; 8 * PAGE];
            bench.device.peek(namespace, 8 * 199 * block, &mut kept);
            assert_eq!(kept, bytes[..8 * PAGE]);
            let target = [memory.part(128 << 10, 8 * PAGE)];
            let io = read(8 * 199, (8 * PAGE / block) as u64, &target, 7);
            assert_eq!(run(&mut queue, &io), Outcome::Ok);
            assert_eq!(memory.read(&target), bytes[..8 * PAGE]);
        }
        bench.is_content();
        assert_eq!(bench.controller.info().shadow_doorbells, shadow_doorbells);
    }
}

#[test]
fn one_doorbell_publishes_a_batch() {
    let bench = Bench::new(EmulatedOptions::default());
    let mut queue = bench.controller.open(1).unwrap();
    let memory = Memory::new(32 * PAGE);
    let segments: Vec<_> = (0..32).map(|page| [memory.part(page * PAGE, PAGE)]).collect();
    // The first poll picks the rings up.
    queue.poll(|_, _| ());
    let before = bench.device.counters();
    for (token, segment) in segments.iter().enumerate() {
        assert_eq!(queue.submit(&write(8 * token as u64, 8, segment, token as u64)), Submission::Pending);
    }
    let full = [memory.part(0, PAGE)];
    assert_eq!(queue.depth(), 32);
    assert_eq!(queue.submit(&write(0, 8, &full, 99)), Submission::Busy);
    assert_eq!(
        bench.device.counters().commands,
        before.commands,
        "nothing reaches the device before the kick"
    );
    queue.kick();
    queue.kick();
    let done = finish(&mut queue, 32);
    assert!(done.iter().enumerate().all(|(token, end)| *end == (token as u64, Outcome::Ok)));
    let after = bench.device.counters();
    assert_eq!(after.submission_doorbells - before.submission_doorbells, 1);
    assert_eq!(after.completion_doorbells - before.completion_doorbells, 1);
    assert_eq!((after.commands - before.commands, queue.in_flight()), (32, 0));
    bench.is_content();
}

#[test]
fn zeroes_flushes_and_deallocation() {
    let bench = Bench::new(EmulatedOptions::default());
    let mut queue = bench.controller.open(1).unwrap();
    let memory = Memory::new(1 << 20);
    let bytes = memory.fill(3);
    assert_eq!(run(&mut queue, &write(0, 2048, &[memory.part(0, 1 << 20)], 1)), Outcome::Ok);
    // MDTS is 128 KiB and limits Write Zeroes too: four commands.
    let before = bench.device.counters().commands;
    let zeroes = io(IoKind::WriteZeroes { deallocate: true }, 100, 1000, &[], 2);
    assert_eq!(run(&mut queue, &zeroes), Outcome::Ok);
    assert_eq!(bench.device.counters().commands - before, 4);
    assert_eq!(run(&mut queue, &io(IoKind::Deallocate, 1200, 800, &[], 3)), Outcome::Ok);
    assert_eq!(run(&mut queue, &io(IoKind::Flush, 0, 0, &[], 4)), Outcome::Ok);
    let counters = bench.device.counters();
    assert_eq!((counters.flushes, counters.deallocations), (1, 1));
    let mut expected = bytes;
    expected[100 * 512..1100 * 512].fill(0);
    expected[1200 * 512..2000 * 512].fill(0);
    let mut kept = vec![0; 1 << 20];
    bench.device.peek(1, 0, &mut kept);
    let wrong = (0..2048).filter(|block| kept[block * 512..][..512] != expected[block * 512..][..512]);
    assert_eq!(wrong.collect::<Vec<_>>(), Vec::<usize>::new(), "blocks that differ");
    assert_eq!(run(&mut queue, &read(0, 0, &[], 5)), Outcome::Ok, "nothing is read at once");
    bench.is_content();
}

#[test]
fn without_a_volatile_cache_there_is_nothing_to_flush() {
    let bench = Bench::new(EmulatedOptions { volatile_cache: false, ..EmulatedOptions::default() });
    let mut queue = bench.controller.open(1).unwrap();
    queue.poll(|_, _| ());
    let flush = io(IoKind::Flush, 0, 0, &[], 1);
    assert_eq!(queue.submit(&flush), Submission::Done(Outcome::Ok));
    assert_eq!(bench.device.counters().flushes, 0);
}

#[test]
fn segments_that_hold_another_length_are_refused() {
    let bench = Bench::new(EmulatedOptions::default());
    let mut queue = bench.controller.open(1).unwrap();
    let memory = Memory::new(PAGE);
    for bytes in [512, 1536] {
        let outcome = run(&mut queue, &write(0, 2, &[memory.part(0, bytes)], 1));
        assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
    }
}

/// A request: its first block, and segments as (page, offset in 4 bytes, blocks of 512 bytes).
type Shape = (bool, u64, Vec<(usize, usize, usize)>);

fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    let offset = prop_oneof![Just(0usize), (0usize..8).prop_map(|block| block * 128), 0usize..1024];
    let segment = (0usize..64, offset, prop_oneof![1usize..4, Just(8), Just(16), 1usize..300]);
    prop::collection::vec((any::<bool>(), 0u64..3000, prop::collection::vec(segment, 1..12)), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Random requests, one after the other, against a plain array.
    #[test]
    fn the_medium_agrees_with_an_array(shapes in shapes(), boundary in prop_oneof![Just(0u16), Just(64), Just(24)]) {
        let mut namespace = EmulatedNamespace::new(512, 8 << 20);
        namespace.optimal_boundary = boundary;
        let bench = Bench::new(EmulatedOptions { namespaces: vec![namespace], ..EmulatedOptions::default() });
        let mut queue = bench.controller.open(1).unwrap();
        let memory = Memory::new(1 << 20);
        let mut reference = vec![0u8; 8 << 20];
        for (token, (writes, lba, pieces)) in shapes.iter().enumerate() {
            let bytes = memory.fill(token as u8);
            let segments: Vec<_> = pieces
                .iter()
                .map(|&(page, offset, blocks)| memory.part(page * PAGE + offset * 4, blocks * 512))
                .collect();
            let length = nvlane_memory::total(&segments);
            let place = *lba as usize * 512..*lba as usize * 512 + length;
            let blocks = (length / 512) as u64;
            let kind = if *writes { IoKind::Write } else { IoKind::Read };
            prop_assert_eq!(run(&mut queue, &io(kind, *lba, blocks, &segments, token as u64)), Outcome::Ok);
            if *writes {
                let start = segments[0];
                let base = memory.part(0, 1).base() as usize;
                prop_assert!(start.base() as usize >= base);
                let gathered: Vec<u8> = segments
                    .iter()
                    .flat_map(|piece| bytes[piece.base() as usize - base..][..piece.len()].iter().copied())
                    .collect();
                reference[place].copy_from_slice(&gathered);
            } else {
                // Later segments may lie over earlier ones: the last byte written to a place is some block's.
                let overlap = segments.iter().enumerate().any(|(at, one)| {
                    segments[..at].iter().any(|other| {
                        (one.base() as usize) < other.base() as usize + other.len()
                            && (other.base() as usize) < one.base() as usize + one.len()
                    })
                });
                prop_assert!(overlap || memory.read(&segments) == reference[place]);
            }
        }
        let mut kept = vec![0; 8 << 20];
        bench.device.peek(1, 0, &mut kept);
        prop_assert!(kept == reference);
        bench.is_content();
    }
}

#[test]
fn many_split_requests_share_the_bounce_buffers() {
    let bench = Bench::new(EmulatedOptions::default());
    let mut queue = bench.controller.open(1).unwrap();
    let memory = Memory::new(2 << 20);
    let bytes = memory.fill(9);
    // Each of 24 requests needs two bounce buffers and more; there are sixteen.
    let segments: Vec<_> = (0..24).map(|at| [memory.part(at * 80_000 + 2, 156 * 512)]).collect();
    queue.poll(|_, _| ());
    let mut sent = 0;
    let mut done = Vec::new();
    while done.len() < 24 {
        while sent < 24 {
            match queue.submit(&write(sent as u64 * 156, 156, &segments[sent], sent as u64)) {
                Submission::Pending => sent += 1,
                Submission::Busy => break,
                Submission::Done(outcome) => panic!("{outcome:?}"),
            }
        }
        queue.kick();
        queue.poll(|token, outcome| done.push((token, outcome)));
    }
    assert!(done.iter().all(|(_, outcome)| *outcome == Outcome::Ok));
    let mut kept = vec![0; 156 * 512];
    for at in 0..24 {
        bench.device.peek(1, at * 156 * 512, &mut kept);
        assert!(kept == bytes[at * 80_000 + 2..][..156 * 512], "request {at}");
    }
    bench.is_content();
}
