//! The virtio SCSI host from the guest's side of its rings: a driver in this process, a reactor that takes its turns
//! when it is told to, bdevs in memory.

mod scsi_host;

use std::sync::Arc;

use nvlane_bdev::delay::Latencies;
use nvlane_bdev::error::{Fault, Injection};
use nvlane_bdev::{Bdev, Delay, ErrorBdev, Info, Kind, Malloc, Uuid};
use nvlane_ring::Layout;
use scsi_host::{Host, TEST_UNIT_READY, read_10, write_10};

const BLOCKS: u64 = 8192;

fn malloc(name: &str) -> Arc<dyn Bdev> {
    Arc::new(Malloc::new(Info::new(name, Uuid::random().unwrap(), 512), BLOCKS).unwrap())
}

fn slow(microseconds: u64) -> Arc<dyn Bdev> {
    let latencies = Latencies {
        avg_read: microseconds,
        p99_read: microseconds,
        avg_write: microseconds,
        p99_write: microseconds,
    };
    Arc::new(Delay::new(malloc("below"), "slow", Uuid::random().unwrap(), latencies).unwrap())
}

/// A host with one target, whose driver has heard that the power is on.
fn host(layout: Layout, bdev: Arc<dyn Bdev>) -> Host {
    let mut host = Host::new(layout, 2);
    host.front_end.add_target(Some(0), bdev, &host.reactors.clone()).unwrap();
    host.start();
    assert_eq!(host.command(0, TEST_UNIT_READY, &[], 0).sense(), (6, 0x29, 0));
    host
}

fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at / 512 * 31 + at) as u8 ^ seed).collect()
}

#[test]
fn what_is_written_is_read() {
    for layout in [Layout::Split, Layout::Packed] {
        let mut host = host(layout, malloc("disk"));
        let data = pattern(16 * 512, 7);
        let answer = host.command(0, &write_10(100, 16), &data, 0);
        assert_eq!((answer.response, answer.status, answer.residual, answer.written), (0, 0, 0, 108));
        let answer = host.command(0, &read_10(100, 16), &[], 16 * 512);
        assert_eq!((answer.response, answer.status, answer.residual), (0, 0, 0));
        assert_eq!(answer.written, 108 + 16 * 512);
        assert!(answer.data == data);
    }
}

#[test]
fn any_layout_of_the_same_request() {
    let mut host = host(Layout::Split, malloc("disk"));
    let data = pattern(4 * 512, 1);
    let header = host.header(0, &write_10(8, 4));
    let whole: Vec<u8> = header.iter().chain(&data).copied().collect();
    for cuts in [vec![whole.len()], vec![1, 50, 1000, 1048], vec![19, 32, 2048], vec![50, 2, 511, 1536]] {
        let mut at = 0;
        let pieces: Vec<&[u8]> = cuts
            .iter()
            .map(|length| {
                at += length;
                &whole[at - length..at]
            })
            .collect();
        assert_eq!(at, whole.len());
        let answer = host.raw(2, &pieces, &[108]);
        assert_eq!((answer.response, answer.status, answer.residual), (0, 0, 0), "{cuts:?}");
    }
    for cuts in [
        vec![108 + 2048],
        vec![4, 104, 2048],
        vec![12, 100, 2044],
        vec![108, 1, 511, 1536],
        vec![1; 108 + 20],
    ] {
        let header = host.header(0, &read_10(8, 4));
        let answer = host.raw(2, &[&header], &cuts);
        if cuts.len() == 128 {
            assert_eq!(answer.response, 1, "OVERRUN: 20 bytes of room for 2048");
            continue;
        }
        assert_eq!((answer.response, answer.status, answer.residual), (0, 0, 0), "{cuts:?}");
        assert!(answer.data == data, "{cuts:?}");
    }
}

#[test]
fn too_much_room_and_too_little() {
    let mut host = host(Layout::Split, malloc("disk"));
    let data = pattern(2 * 512, 3);
    assert_eq!(host.command(0, &write_10(0, 2), &data, 0).residual, 0);
    let answer = host.command(0, &read_10(0, 2), &[], 4096);
    assert_eq!((answer.response, answer.status, answer.residual, answer.written), (0, 0, 3072, 108 + 1024));
    assert!(answer.data[..1024] == data[..] && answer.data[1024..].iter().all(|byte| *byte == 0));
    let answer = host.command(0, &read_10(0, 2), &[], 1023);
    assert_eq!((answer.response, answer.residual, answer.written), (1, 1023, 108));
    let answer = host.command(0, &write_10(0, 2), &data[..512], 0);
    assert_eq!((answer.response, answer.residual), (1, 512));
    // An answer shorter than the room, and one that does not fit.
    let answer = host.command(0, &[0x12, 0, 0, 0, 255, 0], &[], 255);
    assert_eq!((answer.response, answer.status, answer.residual), (0, 0, 255 - 96));
    assert_eq!(&answer.data[8..14], b"NVLANE");
    assert_eq!(host.command(0, &[0x12, 0, 0, 0, 36, 0], &[], 36).residual, 0);
    assert_eq!(host.command(0, &[0x12, 0, 0, 0, 96, 0], &[], 36).response, 1);
    // No room for a response, no whole header: nothing to say, or FAILURE.
    let header = host.header(0, TEST_UNIT_READY);
    assert_eq!(host.raw(2, &[&header], &[107]).written, 0);
    assert_eq!(host.raw(2, &[&header[..50]], &[108]).response, 9);
}

#[test]
fn who_is_not_there() {
    let mut host = host(Layout::Split, malloc("disk"));
    assert_eq!(host.command(1, TEST_UNIT_READY, &[], 0).response, 3, "BAD_TARGET");
    assert_eq!(host.command(200, TEST_UNIT_READY, &[], 0).response, 3);
    let inquiry = [0x12, 0, 0, 0, 36, 0];
    let mut header = host.header(0, &inquiry);
    header[3] = 1; // LUN 1
    let answer = host.raw(2, &[&header], &[108, 36]);
    assert_eq!((answer.response, answer.status, answer.data[0]), (0, 0, 0x7F));
    let mut header = host.header(0, TEST_UNIT_READY);
    header[3] = 1;
    assert_eq!(host.raw(2, &[&header], &[108]).sense(), (5, 0x25, 0));
    // The well known unit lists what the host has.
    let mut header = host.header(0, &[0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0]);
    header[..8].copy_from_slice(&[0xC1, 1, 0, 0, 0, 0, 0, 0]);
    let answer = host.raw(2, &[&header], &[108, 64]);
    assert_eq!(answer.data[..16], [0, 0, 0, 8, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn unmap_write_same_and_verify() {
    let mut host = host(Layout::Split, malloc("disk"));
    let data = pattern(8 * 512, 9);
    host.command(0, &write_10(0, 8), &data, 0);
    // VERIFY: readable; the same; not the same; each block like the one given.
    let verify = |check: u8, blocks: u8| [0x2F, check << 1, 0, 0, 0, 0, 0, 0, blocks, 0];
    assert_eq!(host.command(0, &verify(0, 8), &[], 0).status, 0);
    assert_eq!(host.command(0, &verify(1, 8), &data, 0).status, 0);
    let mut other = data.clone();
    other[4000] ^= 1;
    assert_eq!(host.command(0, &verify(1, 8), &other, 0).sense(), (0xE, 0x1D, 0));
    assert_eq!(host.command(0, &verify(3, 2), &data[..512], 0).sense(), (0xE, 0x1D, 0));
    assert_eq!(host.command(0, &verify(3, 1), &data[..512], 0).status, 0);

    // WRITE SAME of a pattern over more than one private buffer, of zeroes, and without data.
    let same = |flags: u8, lba: u8, blocks: u16| {
        let [high, low] = blocks.to_be_bytes();
        [0x93, flags, 0, 0, 0, 0, 0, 0, 0, lba, 0, 0, high, low, 0, 0]
    };
    let answer = host.command(0, &same(0, 0, 300), &data[512..1024], 0);
    assert_eq!((answer.response, answer.status, answer.residual), (0, 0, 0));
    let read = host.command(0, &read_10(0, 300), &[], 300 * 512);
    assert!(read.data.chunks(512).all(|block| block == &data[512..1024]));
    assert_eq!(host.command(0, &same(0, 10, 10), &[0; 512], 0).status, 0);
    assert_eq!(host.command(0, &same(9, 30, 10), &[], 0).status, 0);
    let read = host.command(0, &read_10(0, 50), &[], 50 * 512);
    for (number, block) in read.data.chunks(512).enumerate() {
        let zeroed = (10..20).contains(&number) || (30..40).contains(&number);
        assert_eq!(block.iter().all(|byte| *byte == 0), zeroed, "block {number}");
    }
    assert_eq!(host.command(0, &same(0, 0, 300), &data[..100], 0).response, 1, "half a block");

    let mut list = vec![0, 38, 0, 32, 0, 0, 0, 0];
    for (lba, blocks) in [(0_u64, 4_u32), (100, 16)] {
        list.extend(lba.to_be_bytes());
        list.extend(blocks.to_be_bytes());
        list.extend([0; 4]);
    }
    let answer = host.command(0, &[0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0], &list, 0);
    assert_eq!((answer.response, answer.status, answer.residual), (0, 0, 0));
    assert_eq!(host.command(0, &[0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0], &list[..39], 0).response, 1);
    // WRITE AND VERIFY, and the cache.
    assert_eq!(host.command(0, &[0x2E, 2, 0, 0, 0, 0, 0, 0, 8, 0], &data, 0).status, 0);
    assert_eq!(host.command(0, &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[], 0).status, 0);
    assert!(host.command(0, &read_10(0, 8), &[], 8 * 512).data == data);
}

#[test]
fn a_failing_device_is_told_as_sense() {
    let bdev = Arc::new(ErrorBdev::new(malloc("disk"), Uuid::random().unwrap()).unwrap());
    let mut host = host(Layout::Split, bdev.clone());
    for (kind, command, sense) in
        [(Kind::Read, read_10(0, 1), (3, 0x11, 0)), (Kind::Write, write_10(0, 1), (3, 0x0C, 0))]
    {
        bdev.inject(&[kind], Injection { fault: Fault::Failure, count: 1, queue_depth: 0 }).unwrap();
        let out = if kind == Kind::Write { vec![1; 512] } else { vec![] };
        let into = if kind == Kind::Read { 512 } else { 0 };
        let answer = host.command(0, &command, &out, into);
        assert_eq!((answer.sense(), answer.residual), (sense, 512));
        assert_eq!(host.command(0, &command, &out, into).status, 0);
    }
}

#[test]
fn a_device_without_room_is_asked_again_and_holds_up_nobody_else() {
    let bdev = Arc::new(ErrorBdev::new(malloc("disk"), Uuid::random().unwrap()).unwrap());
    let mut host = host(Layout::Split, bdev.clone());
    host.front_end.add_target(Some(1), malloc("other"), &host.reactors.clone()).unwrap();
    assert_eq!(host.command(1, TEST_UNIT_READY, &[], 0).sense(), (6, 0x29, 0));
    bdev.inject(&[Kind::Read], Injection { fault: Fault::NoMemory, count: 50, queue_depth: 0 }).unwrap();
    let waits = host.begin(2, 0, &read_10(0, 1), &[], 512);
    host.turns(5);
    assert_eq!(host.command(1, &write_10(0, 1), &[5; 512], 0).status, 0);
    assert!(!host.is_over(&waits));
    assert_eq!(host.end(waits).status, 0);
}

#[test]
fn targets_come_and_go_while_others_work() {
    let mut host = host(Layout::Packed, slow(200_000));
    let reactors = host.reactors.clone();
    host.offer_events(4);
    let under_way = host.begin(2, 0, &read_10(0, 1), &[], 512);
    assert_eq!(host.front_end.add_target(None, malloc("second"), &reactors).unwrap(), 1);
    assert!(host.front_end.add_target(Some(1), malloc("third"), &reactors).is_err());
    assert_eq!(host.event(), Some(vec![1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]), "rescan");
    assert_eq!(host.command(1, TEST_UNIT_READY, &[], 0).sense(), (6, 0x29, 0));
    assert_eq!(host.command(1, &write_10(0, 1), &[5; 512], 0).status, 0);
    assert!(!host.is_over(&under_way), "the first target hangs, the second does not");

    // The slow one goes while its command is under way, which ends as it would have.
    host.front_end.remove_target(0, &reactors).unwrap();
    assert_eq!(host.event(), Some(vec![1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]), "removed");
    assert_eq!(host.command(0, TEST_UNIT_READY, &[], 0).response, 3);
    let answer = host.end(under_way);
    assert_eq!((answer.response, answer.status, answer.residual), (0, 0, 0));
    assert!(host.front_end.remove_target(0, &reactors).is_err());
}

#[test]
fn a_new_size_is_told_by_event_and_by_sense() {
    let bdev = malloc("disk");
    let mut host = host(Layout::Split, bdev.clone());
    let reactors = host.reactors.clone();
    host.offer_events(2);
    bdev.resize(BLOCKS * 2).unwrap();
    assert!(!nvlane_target::controller::FrontEnd::resized(&mut host.front_end, &bdev, &reactors));
    assert_eq!(host.event(), Some(vec![3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0x2A, 9, 0, 0]));
    assert_eq!(host.command(0, &read_10(0, 1), &[], 512).sense(), (6, 0x2A, 9));
    let capacity = host.command(0, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[], 8);
    assert_eq!(capacity.data[..4], (BLOCKS as u32 * 2 - 1).to_be_bytes());
    assert_eq!(host.command(0, &read_10(BLOCKS as u32, 1), &[], 512).status, 0);
}

#[test]
fn events_without_buffers_are_kept_and_those_after_them_missed() {
    let mut host = host(Layout::Split, malloc("disk"));
    let reactors = host.reactors.clone();
    for _ in 0..9 {
        host.front_end.add_target(Some(5), malloc("guest"), &reactors).unwrap();
        host.front_end.remove_target(5, &reactors).unwrap();
    }
    host.turns(2);
    host.offer_events(20);
    let events: Vec<_> = std::iter::from_fn(|| host.event()).collect();
    assert_eq!(events.len(), 16);
    let missed = events.iter().filter(|event| event[3] & 0x80 != 0).count();
    assert_eq!(missed, 1, "one of them says that there were more");
    assert!(host.doze(), "buffers that wait for events keep nobody awake");
}

#[test]
fn tasks_are_aborted_when_they_have_ended() {
    let mut host = host(Layout::Split, slow(50_000));
    let first = host.begin(2, 0, &read_10(0, 1), &[], 512);
    let second = host.begin(3, 0, &read_10(8, 1), &[], 512);
    host.turns(3);
    assert_eq!(host.task(6, 0, first.tag), 10, "QUERY TASK: there");
    assert_eq!(host.task(6, 0, 4711), 0, "not there");
    assert_eq!(host.task(7, 0, 0), 10, "QUERY TASK SET");
    assert_eq!(host.task(0, 0, first.tag), 0, "ABORT TASK");
    assert!(host.is_over(&first), "it was given back before the function was answered");
    assert_eq!(host.end(first).response, 2, "ABORTED");
    assert_eq!(host.end(second).response, 0, "the other was not meant");
    assert_eq!(host.task(7, 0, 0), 0);

    let under_way = [2, 3].map(|queue| host.begin(queue, 0, &write_10(0, 1), &[1; 512], 0));
    host.turns(3);
    assert_eq!(host.task(5, 0, 0), 0, "LOGICAL UNIT RESET");
    for task in under_way {
        assert!(host.is_over(&task));
        assert_eq!(host.end(task).response, 4, "RESET");
    }
    assert_eq!(host.command(0, TEST_UNIT_READY, &[], 0).sense(), (6, 0x29, 3));
    assert_eq!(host.task(4, 0, 0), 0, "I_T NEXUS RESET");
    assert_eq!(host.command(0, TEST_UNIT_READY, &[], 0).sense(), (6, 0x29, 7));
}

#[test]
fn what_the_control_queue_refuses() {
    let mut host = host(Layout::Split, malloc("disk"));
    assert_eq!(host.task(5, 1, 0), 3, "BAD_TARGET");
    assert_eq!(host.task(2, 0, 0), 11, "CLEAR ACA: there is never one");
    assert_eq!(host.task(99, 0, 0), 11);
    let mut query = vec![1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0];
    assert_eq!(host.control(&query, 5), [0, 0, 0, 0, 0], "no asynchronous event is supported");
    query[0] = 2;
    query[5] = 3;
    assert_eq!(host.control(&query, 5), [0, 0, 0, 0, 3]);
    assert_eq!(host.control(&[9, 0, 0, 0], 1), [9]);
    assert_eq!(host.control(&[], 1), [9]);
}

#[test]
fn a_session_that_goes_on_hears_of_no_power_on() {
    let bdev = malloc("disk");
    let mut host = host(Layout::Packed, bdev);
    assert_eq!(host.command(0, TEST_UNIT_READY, &[], 0).status, 0);
    host.reconnect();
    assert_eq!(host.command(0, TEST_UNIT_READY, &[], 0).status, 0);
    // The same rings from their beginning: a driver that begins anew.
    host.reset();
    assert_eq!(host.command(0, TEST_UNIT_READY, &[], 0).sense(), (6, 0x29, 0));
}
