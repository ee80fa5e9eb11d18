//! Requests from any bytes: what the fuzzer runs, and a test over what it found.

use std::sync::Arc;

use nvlane_bdev::{Bdev, Info, Malloc, Uuid};
use nvlane_ring::driver::{Buffer, DriverRing, Guest};
use nvlane_ring::{Layout, Queue};

use super::{Blk, Shape};
use crate::reactor::{Coalescing, QueueWork, Reactors};

const SECTORS: u64 = 128;
/// Where buffers may lie, and how long that is.
const AREA: u64 = 1 << 20;
const AREA_LENGTH: usize = 64 << 10;

/// Takes numbers off the front of the input; zeroes when it is used up.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let (taken, rest) = self.0.split_at(N.min(self.0.len()));
        self.0 = rest;
        std::array::from_fn(|index| taken.get(index).copied().unwrap_or(0))
    }

    fn byte(&mut self) -> u8 {
        u8::from_le_bytes(self.bytes())
    }
}

/// Serves the requests that `data` describes, and panics if one reaches beyond its own buffers or its disk, is answered
/// wrongly, or is not answered.
pub fn requests(data: &[u8]) {
    let mut input = Input(data);
    let setup = input.byte();
    let read_only = setup & 1 != 0;
    let layout = if setup & 2 != 0 { Layout::Packed } else { Layout::Split };
    let block_size = if setup & 4 != 0 { 4096 } else { 512 };
    let max_transfer = if setup & 8 != 0 { 8192 } else { 0 };
    let uuid = Uuid::random().expect("random bytes");
    let info = Info { max_transfer, ..Info::new("fuzz", uuid, block_size) };
    let blocks = SECTORS * 512 / u64::from(block_size);
    let bdev: Arc<dyn Bdev> = Arc::new(Malloc::new(info, blocks).expect("memory"));
    let (reactors, mut reactor) = Reactors::by_hand().expect("descriptors");
    let channel = reactors.open_channel(0, &bdev).expect("a channel");
    let mut guest = Guest::new(AREA + AREA_LENGTH as u64).expect("memory");
    let config = guest.queue(layout, 64);
    let mut driver = guest.driver(&config).expect("a driver");
    let device = Box::new(Blk::new(channel, Arc::new(Shape::new(&*bdev, read_only)), 64));
    let ring = Queue::new(config).expect("a queue");
    let coalescing = Coalescing::default();
    reactors.attach(0, QueueWork { ring, device, kick: None, call: None, err: None, coalescing, log: None });
    while !input.0.is_empty() {
        let buffers = request(&mut input, &guest);
        let before = guest.read(AREA, AREA_LENGTH);
        let Some(id) = driver.add(&buffers) else { return };
        driver.publish();
        let used = (0..1000).find_map(|_| {
            reactor.turn();
            driver.reap()
        });
        let used = used.expect("a request to memory is answered at once");
        assert_eq!(used.id, id);
        check(&guest, &before, &buffers, used.written);
    }
    if read_only {
        assert_eq!(
            bdev.statistics().kind(nvlane_bdev::Kind::Write).operations,
            0,
            "a read-only disk was written"
        );
    }
}

/// Writes the next request to guest memory; its buffers, one after the other with gaps or without.
fn request(input: &mut Input<'_>, guest: &Guest) -> Vec<Buffer> {
    let mut address = AREA + u64::from(u16::from_le_bytes(input.bytes()) & 0xfff);
    let kinds = [0_u32, 1, 4, 8, 11, 13, 0, 1];
    let kind = input.byte();
    let kind = match kinds.get(usize::from(kind)) {
        Some(&kind) => kind,
        None => u32::from_le_bytes([kind, input.byte(), 0, input.byte()]),
    };
    let mut header = Vec::from(kind.to_le_bytes());
    header.extend([0; 4]);
    let sector = input.bytes::<8>();
    // Mostly on the disk or just beyond.
    let sector = if sector[7] & 1 == 0 { u64::from(sector[0]) } else { u64::from_le_bytes(sector) };
    header.extend(sector.to_le_bytes());
    let ranges = usize::from(input.byte() % 20);
    for _ in 0..ranges {
        let [sector, sectors, flags, rest] = input.bytes();
        header.extend(u64::from(sector).to_le_bytes());
        header.extend((u32::from(sectors) | u32::from(rest & 0x80) << 20).to_le_bytes());
        header.extend(u32::from(flags & 3).to_le_bytes());
    }
    guest.write(address, &header);
    let shape = input.byte();
    let (readable, writable) = (usize::from(shape & 7), usize::from(shape >> 3 & 7));
    let mut buffers = Vec::new();
    for index in 0..(readable + writable).max(1) {
        let length = u32::from(u16::from_le_bytes(input.bytes()));
        let length = match length & 3 {
            0 => 16,
            1 => (length >> 2) % 64 + 1,
            2 => ((length >> 2) % 17) * 512,
            _ => 1,
        };
        if address + u64::from(length) > AREA + AREA_LENGTH as u64 {
            break;
        }
        buffers.push(Buffer { address, length, writable: index >= readable });
        address += u64::from(length);
    }
    buffers
}

fn check(guest: &Guest, before: &[u8], buffers: &[Buffer], written: u32) {
    let mut after = guest.read(AREA, AREA_LENGTH);
    let mut room = 0;
    let mut status = None;
    for buffer in buffers.iter().filter(|buffer| buffer.writable && buffer.length > 0) {
        let at = (buffer.address - AREA) as usize;
        let range = at..at + buffer.length as usize;
        status = Some(after[range.end - 1]);
        room += buffer.length;
        after[range.clone()].copy_from_slice(&before[range]);
    }
    assert!(after == before, "memory beyond the request's buffers was written");
    assert!(written <= room, "{written} bytes are said to be written of {room}");
    if let Some(status) = status {
        assert!(status <= 2, "a status of {status}");
    }
}
