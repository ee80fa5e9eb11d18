//! A guest's driver, written against virtio 1.3 alone. It reads and writes its memory as a file, so that nothing here
//! shares code with what it tests.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nvlane_vhost_user::features::{self, protocol};
use nvlane_vhost_user::frontend::{Client, SharedMemory, notifier, notify, wait_notified};
use nvlane_vhost_user::{Message, VringAddress};

use super::server::duplicate;

pub const GUEST_ADDRESS: u64 = 0x10_0000;
/// Where the front end pretends to have the memory mapped.
pub const USER_ADDRESS: u64 = 0x7f00_0000_0000;
pub const MEMORY: u64 = 1 << 20;
pub const SIZE: u16 = 64;

const AREA: u64 = 0x1_0000;
const DRIVER: u64 = 0x4000;
const DEVICE: u64 = 0x8000;
const BUFFERS: u64 = 0xc000;

const WRITE: u16 = 2;
const PACKED_AVAIL: u16 = 1 << 7;
const PACKED_USED: u16 = 1 << 15;

/// One ring, from the driver's side.
pub struct Driver {
    pub index: u16,
    pub packed: bool,
    pub kick: OwnedFd,
    pub call: OwnedFd,
    pub err: OwnedFd,
    free: Vec<u16>,
    next: u16,
    next_wrap: bool,
    seen: u16,
    seen_wrap: bool,
}

pub struct Guest {
    pub memory: SharedMemory,
    file: File,
}

impl Guest {
    pub fn new() -> Guest {
        let memory = SharedMemory::new(MEMORY).unwrap();
        let file = File::from(duplicate(memory.file()));
        Guest { memory, file }
    }

    pub fn read<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.file.read_exact_at(&mut bytes, at).unwrap();
        bytes
    }

    pub fn write(&self, at: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, at).unwrap();
    }

    fn word(&self, at: u64) -> u16 {
        u16::from_le_bytes(self.read(at))
    }

    pub fn table(&self) -> Message {
        Message::SetMemTable(vec![self.memory.region(GUEST_ADDRESS, USER_ADDRESS).unwrap()])
    }
}

impl Driver {
    pub fn new(index: u16, packed: bool) -> Driver {
        let event = || notifier().unwrap();
        Driver {
            index,
            packed,
            kick: event(),
            call: event(),
            err: event(),
            free: (0..SIZE).rev().collect(),
            next: 0,
            next_wrap: true,
            seen: 0,
            seen_wrap: true,
        }
    }

    fn area(&self) -> u64 {
        u64::from(self.index) * AREA
    }

    pub fn address(&self) -> VringAddress {
        let user = USER_ADDRESS + self.area();
        VringAddress {
            index: u32::from(self.index),
            flags: 0,
            descriptor: user,
            used: user + DEVICE,
            available: user + DRIVER,
            log: GUEST_ADDRESS + self.area() + DEVICE,
        }
    }

    /// Where a ring begins after a reset.
    pub fn base(&self) -> u32 {
        if self.packed { 0x8000_8000 } else { 0 }
    }

    pub fn start(&self, client: &mut Client, base: u32) {
        let (kick, call) = (Some(self.kick.as_fd()), Some(self.call.as_fd()));
        client.call(&Message::SetVringErr(self.index as u8, Some(duplicate(&self.err)))).unwrap();
        client.start_vring(u32::from(SIZE), base, self.address(), kick, call).unwrap();
    }

    /// Where the buffer of a descriptor lies in the guest's memory file.
    pub fn buffer(&self, id: u16) -> u64 {
        self.area() + BUFFERS + u64::from(id) * 64
    }

    /// Makes one writable buffer of 16 bytes available, filled with 0xff. Returns its id.
    pub fn submit(&mut self, guest: &Guest) -> u16 {
        let id = self.free.pop().expect("the ring is full");
        guest.write(self.buffer(id), &[0xff; 16]);
        let address = (GUEST_ADDRESS + self.buffer(id)).to_le_bytes();
        if self.packed {
            let slot = self.area() + u64::from(self.next) * 16;
            let flags = if self.next_wrap { PACKED_AVAIL } else { PACKED_USED } | WRITE;
            guest.write(slot, &address);
            guest.write(slot + 8, &16u32.to_le_bytes());
            guest.write(slot + 12, &id.to_le_bytes());
            guest.write(slot + 14, &flags.to_le_bytes());
            self.next += 1;
            if self.next == SIZE {
                (self.next, self.next_wrap) = (0, !self.next_wrap);
            }
        } else {
            let slot = self.area() + u64::from(id) * 16;
            guest.write(slot, &address);
            guest.write(slot + 8, &16u32.to_le_bytes());
            guest.write(slot + 12, &WRITE.to_le_bytes());
            let driver = self.area() + DRIVER;
            guest.write(driver + 4 + u64::from(self.next % SIZE) * 2, &id.to_le_bytes());
            self.next = self.next.wrapping_add(1);
            guest.write(driver + 2, &self.next.to_le_bytes());
        }
        id
    }

    pub fn kick(&self) {
        notify(&self.kick).unwrap();
    }

    /// The buffers that came back since the last time.
    pub fn collect(&mut self, guest: &Guest) -> Vec<u16> {
        let mut back = Vec::new();
        while let Some(id) = self.used(guest) {
            assert!(!self.free.contains(&id), "buffer {id} came back twice");
            self.free.push(id);
            back.push(id);
        }
        back
    }

    fn used(&mut self, guest: &Guest) -> Option<u16> {
        if self.packed {
            let slot = self.area() + u64::from(self.seen) * 16;
            let flags = guest.word(slot + 14);
            let (avail, used) = (flags & PACKED_AVAIL != 0, flags & PACKED_USED != 0);
            if avail != used || used != self.seen_wrap {
                return None;
            }
            let id = guest.word(slot + 12);
            self.seen += 1;
            if self.seen == SIZE {
                (self.seen, self.seen_wrap) = (0, !self.seen_wrap);
            }
            return Some(id);
        }
        let device = self.area() + DEVICE;
        if guest.word(device + 2) == self.seen {
            return None;
        }
        let entry = device + 4 + u64::from(self.seen % SIZE) * 8;
        self.seen = self.seen.wrapping_add(1);
        Some(u32::from_le_bytes(guest.read(entry)) as u16)
    }

    /// Waits for buffers, called by the device as a guest is.
    pub fn wait(&mut self, guest: &Guest, count: usize) -> Vec<u16> {
        let mut back = self.collect(guest);
        while back.len() < count {
            assert!(
                wait_notified(&self.call, Duration::from_secs(20)).unwrap(),
                "{} of {count} buffers came back",
                back.len()
            );
            back.extend(self.collect(guest));
        }
        back
    }

    /// How many are out.
    pub fn out(&self) -> usize {
        usize::from(SIZE) - self.free.len()
    }
}

/// Agrees on everything a storage front end uses.
pub fn negotiate(client: &mut Client, packed: bool) {
    let mut wanted = features::VERSION_1 | features::INDIRECT_DESC | features::PROTOCOL_FEATURES;
    if packed {
        wanted |= features::RING_PACKED;
    }
    client.negotiate(wanted, protocol::STORAGE).unwrap();
    assert_eq!(client.features, wanted);
}
