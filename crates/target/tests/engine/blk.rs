//! What a virtio block device answers.

use nvlane_bdev::{Info, Limits, Null, Uuid};
use nvlane_ring::Layout;
use nvlane_ring::driver::{Buffer, DriverRing};

use crate::rig::*;

const LAYOUTS: [Layout; 2] = [Layout::Split, Layout::Packed];

#[test]
fn what_was_written_is_read_and_discarded_is_zero() {
    for layout in LAYOUTS {
        let mut rig = Rig::new(malloc(2048, 512), false);
        let (mut queue, _) = rig.queue(layout);
        let data: Vec<u8> = (0..4096u32).map(|n| (n * 7) as u8).collect();
        assert_eq!(rig.ask(&mut queue, OUT, 8, &data, 0).0, OK);
        assert_eq!(rig.ask(&mut queue, IN, 8, &[], 4096), (OK, data.clone()));
        assert_eq!(rig.ask(&mut queue, FLUSH, 0, &[], 0).0, OK);
        // Two ranges: sectors 8 and 15.
        let ranges = [range(8, 1, 0), range(15, 1, 0)].concat();
        assert_eq!(rig.ask(&mut queue, WRITE_ZEROES, 0, &ranges, 0).0, OK);
        let (status, read) = rig.ask(&mut queue, IN, 8, &[], 4096);
        assert_eq!(status, OK);
        assert!(read[..512].iter().chain(&read[3584..]).all(|&byte| byte == 0));
        assert_eq!(read[512..3584], data[512..3584]);
        assert_eq!(rig.ask(&mut queue, DISCARD, 0, &range(9, 6, 0), 0).0, OK);
        assert_eq!(rig.ask(&mut queue, WRITE_ZEROES, 0, &range(0, 2048, 1), 0).0, OK);
    }
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut bytes = Vec::from(sector.to_le_bytes());
    bytes.extend(sectors.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes
}

#[test]
fn the_id_is_the_name() {
    let mut rig = Rig::new(malloc(2048, 512), false);
    let (mut queue, _) = rig.queue(Layout::Split);
    let (status, id) = rig.ask(&mut queue, GET_ID, 0, &[], 20);
    assert_eq!((status, &id[..5]), (OK, &b"disk\0"[..]));
    assert_eq!(rig.ask(&mut queue, GET_ID, 0, &[], 19).0, IOERR);
}

#[test]
fn hostile_requests_fail_themselves_only() {
    let mut rig = Rig::new(malloc(2048, 512), false);
    let (mut queue, _) = rig.queue(Layout::Split);
    let sector = [1_u8; 512];
    let bad: [(u32, u64, Vec<u8>, u32, u8); 16] = [
        (IN, 2048, vec![], 512, IOERR),
        (IN, 2047, vec![], 1024, IOERR),
        (IN, u64::MAX, vec![], 512, IOERR),
        (IN, u64::MAX / 512, vec![], 512, IOERR),
        (IN, 0, vec![], 511, IOERR),
        (OUT, 0, sector[..100].to_vec(), 0, IOERR),
        (OUT, 1 << 55, sector.to_vec(), 0, IOERR),
        (99, 0, vec![], 0, UNSUPP),
        (u32::MAX, 0, sector.to_vec(), 512, UNSUPP),
        (DISCARD, 0, vec![], 0, IOERR),
        (DISCARD, 0, range(0, 1, 0)[..15].to_vec(), 0, IOERR),
        (DISCARD, 0, range(0, 1, 1), 0, UNSUPP),
        (DISCARD, 0, range(2047, 2, 0), 0, IOERR),
        (DISCARD, 0, range(0, 1, 0).repeat(17), 0, IOERR),
        (WRITE_ZEROES, 0, range(0, 1, 2), 0, UNSUPP),
        (WRITE_ZEROES, 0, range(u64::MAX - 1, 2, 0), 0, IOERR),
    ];
    for (kind, at, out, room, status) in bad {
        assert_eq!(rig.ask(&mut queue, kind, at, &out, room).0, status, "type {kind} at {at}");
    }
    // A bad second range leaves the first one's data alone.
    assert_eq!(rig.ask(&mut queue, OUT, 0, &sector, 0).0, OK);
    let ranges = [range(0, 1, 0), range(4096, 1, 0)].concat();
    assert_eq!(rig.ask(&mut queue, WRITE_ZEROES, 0, &ranges, 0).0, IOERR);
    assert_eq!(rig.ask(&mut queue, IN, 0, &[], 512), (OK, sector.to_vec()));
}

#[test]
fn a_read_only_disk_stays_as_it_is() {
    let mut rig = Rig::new(malloc(2048, 512), true);
    let (mut queue, _) = rig.queue(Layout::Packed);
    assert_eq!(rig.ask(&mut queue, OUT, 0, &[1; 512], 0).0, IOERR);
    assert_eq!(rig.ask(&mut queue, DISCARD, 0, &range(0, 1, 0), 0).0, IOERR);
    assert_eq!(rig.ask(&mut queue, WRITE_ZEROES, 0, &range(0, 1, 0), 0).0, IOERR);
    assert_eq!(rig.ask(&mut queue, FLUSH, 0, &[], 0).0, OK);
    assert_eq!(rig.ask(&mut queue, IN, 0, &[], 512), (OK, vec![0; 512]));
}

#[test]
fn blocks_of_4096_bytes_are_the_smallest_unit() {
    let mut rig = Rig::new(malloc(256, 4096), false);
    let (mut queue, _) = rig.queue(Layout::Split);
    assert_eq!(rig.ask(&mut queue, IN, 1, &[], 4096).0, IOERR);
    assert_eq!(rig.ask(&mut queue, IN, 8, &[], 512).0, IOERR);
    assert_eq!(rig.ask(&mut queue, IN, 8, &[], 8192).0, OK);
}

/// VIRTIO_F_VERSION_1 lets a driver cut a request where it likes.
#[test]
fn the_status_is_the_last_byte_whatever_the_layout() {
    for layout in LAYOUTS {
        let mut rig = Rig::new(malloc(2048, 512), false);
        let (mut queue, _) = rig.queue(layout);
        let data: Vec<u8> = (0..512u32).map(|n| n as u8 | 1).collect();
        for cuts in [&[16, 512, 1][..], &[528, 1], &[1, 15, 500, 12, 1], &[3, 520, 5, 1]] {
            let at = queue.guest.allocate(1024, 16);
            let mut bytes = vec![0; 16];
            bytes[0] = OUT as u8;
            bytes.extend(&data);
            queue.guest.write(at, &bytes);
            assert_eq!(raw(&mut rig, &mut queue, at, cuts, cuts.len() - 1, 528), OK, "{cuts:?}");
        }
        for cuts in [&[16, 512, 1][..], &[16, 513], &[8, 8, 100, 400, 13], &[16, 1, 511, 1]] {
            let at = queue.guest.allocate(1024, 16);
            let readable = if cuts[0] == 8 { 2 } else { 1 };
            assert_eq!(raw(&mut rig, &mut queue, at, cuts, readable, 528), OK, "{cuts:?}");
            assert_eq!(queue.guest.read(at + 16, 512), data, "{cuts:?}");
        }
        // No place for a status: the guest gets its chain back, and that is all.
        let at = queue.guest.allocate(16, 16);
        queue.driver.add(&[Buffer { address: at, length: 16, writable: false }]).unwrap();
        queue.driver.publish();
        assert_eq!(rig.until(|| queue.driver.reap()).written, 0);
        // No header: it is said.
        let at = queue.guest.allocate(16, 16);
        assert_eq!(raw(&mut rig, &mut queue, at, &[15, 1], 1, 15), IOERR);
    }
}

/// A chain of contiguous buffers of these lengths, the first `readable` of them for the device to read.
fn raw(rig: &mut Rig, queue: &mut GuestQueue, at: u64, lengths: &[u32], readable: usize, status: u64) -> u8 {
    let mut address = at;
    let mut buffers = Vec::new();
    for (index, &length) in lengths.iter().enumerate() {
        buffers.push(Buffer { address, length, writable: index >= readable });
        address += u64::from(length);
    }
    queue.guest.write(at + status, &[UNTOUCHED]);
    queue.driver.add(&buffers).unwrap();
    queue.driver.publish();
    rig.until(|| queue.driver.reap());
    queue.guest.read(at + status, 1)[0]
}

#[test]
fn a_limited_disk_holds_requests_back_and_loses_none() {
    let mut rig = Rig::new(malloc(2048, 512), false);
    rig.bdev.set_limits(Limits { rw_ios_per_sec: 1000, ..Limits::default() });
    let (mut queue, _) = rig.queue(Layout::Split);
    let asked: Vec<_> =
        (0..40).map(|n| queue.ask(if n % 4 == 0 { FLUSH } else { IN }, n, &[], 512)).collect();
    let mut back = Vec::new();
    while back.len() < asked.len() {
        back.push(rig.until(|| queue.driver.reap()).id);
    }
    for request in &asked {
        assert_eq!(queue.status(request), OK);
    }
    back.sort_unstable();
    back.dedup();
    assert_eq!(back.len(), 40, "each came back once");
}

#[test]
fn transfers_beyond_the_disks_limit_are_cut() {
    let info = Info { max_transfer: 1024, ..Info::new("small", Uuid::random().unwrap(), 512) };
    let bdev = std::sync::Arc::new(Null::new(info, 2048).unwrap());
    let mut rig = Rig::new(bdev, false);
    let (mut queue, _) = rig.queue(Layout::Split);
    assert_eq!(rig.ask(&mut queue, IN, 0, &[], 4096).0, OK);
    let reads = rig.bdev.statistics().kind(nvlane_bdev::Kind::Read).operations;
    assert_eq!(reads, 4);
}
