//! Live migration: what the device writes is marked in the log while it is asked to, also when that changes under load.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use nvlane_vhost_user::features::{self, LOG_ALL};
use nvlane_vhost_user::frontend::{Client, SharedMemory};
use nvlane_vhost_user::{LogArea, Message, VringAddress};

use super::guest::{Driver, GUEST_ADDRESS, Guest, negotiate};
use super::server::{Server, duplicate};

const LOG_SIZE: u64 = 4096;

struct Log(SharedMemory);

impl Log {
    fn new() -> Log {
        Log(SharedMemory::new(LOG_SIZE).unwrap())
    }

    fn set(&self, client: &mut Client) {
        client.set_log(LogArea { size: LOG_SIZE, offset: 0 }, self.0.file()).unwrap();
    }

    /// The pages that are marked, and no longer are afterwards.
    fn take(&self) -> BTreeSet<u64> {
        let file = File::from(duplicate(self.0.file()));
        let mut bytes = vec![0; LOG_SIZE as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        file.write_all_at(&vec![0; LOG_SIZE as usize], 0).unwrap();
        (0..LOG_SIZE * 8).filter(|page| bytes[(page / 8) as usize] >> (page % 8) & 1 == 1).collect()
    }
}

fn page(guest_offset: u64) -> u64 {
    (GUEST_ADDRESS + guest_offset) / 4096
}

/// As QEMU does it (hw/virtio/vhost.c, vhost_dev_set_log): features, then every ring's address with or without the flag.
fn log_rings(client: &mut Client, driver: &Driver, on: bool) {
    let features = client.features & !LOG_ALL | if on { LOG_ALL } else { 0 };
    client.set_features(features).unwrap();
    let flags = if on { features::VRING_LOG } else { 0 };
    client.call(&Message::SetVringAddr(VringAddress { flags, ..driver.address() })).unwrap();
}

#[test]
fn writes_are_marked_while_the_log_is_on() {
    for packed in [false, true] {
        let (_server, mut client) = Server::start();
        negotiate(&mut client, packed);
        let guest = Guest::new();
        client.call(&guest.table()).unwrap();
        let mut driver = Driver::new(0, packed);
        driver.start(&mut client, driver.base());
        let log = Log::new();
        log.set(&mut client);
        let round = |client: &mut Client, driver: &mut Driver| {
            let ids: Vec<u16> = (0..4).map(|_| driver.submit(&guest)).collect();
            driver.kick();
            assert_eq!(driver.wait(&guest, 4).len(), 4);
            // Obeyed after everything before it.
            client.get_queue_num().unwrap();
            let buffers: BTreeSet<u64> = ids.iter().map(|id| page(driver.buffer(*id))).collect();
            let ring = page(if packed { 0 } else { 0x8000 });
            (buffers, ring, log.take())
        };
        let (_, _, marked) = round(&mut client, &mut driver);
        assert!(marked.is_empty(), "marked without being asked: {marked:?}");

        log_rings(&mut client, &driver, true);
        let (buffers, ring, marked) = round(&mut client, &mut driver);
        assert!(marked.is_superset(&buffers), "packed {packed}: {marked:?} lacks some of {buffers:?}");
        assert!(marked.contains(&ring), "packed {packed}: {marked:?} lacks the ring's {ring}");
        assert!(marked.iter().all(|&p| p >= page(0) && p < page(0x1_0000)), "{marked:?}");

        // LOG_ALL without the ring's own flag: the buffers alone.
        client.call(&Message::SetVringAddr(driver.address())).unwrap();
        let (buffers, ring, marked) = round(&mut client, &mut driver);
        assert!(marked.is_superset(&buffers) && !marked.contains(&ring), "packed {packed}: {marked:?}");

        log_rings(&mut client, &driver, false);
        let (_, _, marked) = round(&mut client, &mut driver);
        assert!(marked.is_empty(), "{marked:?}");
    }
}

#[test]
fn the_log_changes_under_load_and_misses_nothing() {
    for packed in [false, true] {
        let (_server, mut client) = Server::start();
        negotiate(&mut client, packed);
        let guest = Guest::new();
        client.call(&guest.table()).unwrap();
        let mut driver = Driver::new(0, packed);
        driver.start(&mut client, driver.base());
        let mut logs = vec![Log::new()];
        logs[0].set(&mut client);
        log_rings(&mut client, &driver, true);
        for _ in 0..50 {
            let ids: Vec<u16> = (0..16).map(|_| driver.submit(&guest)).collect();
            driver.kick();
            // A larger log takes the old one's place, as when memory is plugged in.
            let next = Log::new();
            next.set(&mut client);
            logs.push(next);
            assert_eq!(driver.wait(&guest, 16).len(), 16);
            let marked: BTreeSet<u64> = logs.iter().flat_map(Log::take).collect();
            let missing: Vec<_> =
                ids.iter().filter(|id| !marked.contains(&page(driver.buffer(**id)))).collect();
            assert!(missing.is_empty(), "packed {packed}: {missing:?} of {ids:?} are not marked");
        }
    }
}

#[test]
fn a_log_that_is_no_memory_ends_the_connection() {
    // QEMU looks at no number in the reply: a migration without a log would lose writes.
    let (_server, mut client) = Server::start();
    negotiate(&mut client, false);
    let null = File::open("/dev/null").unwrap();
    assert!(client.set_log(LogArea { size: 4096, offset: 0 }, null.as_fd()).is_err());
    let (_server, mut client) = Server::start();
    negotiate(&mut client, false);
    let small = SharedMemory::new(4096).unwrap();
    assert!(client.set_log(LogArea { size: 8192, offset: 0 }, small.file()).is_err());
    assert!(client.get_queue_num().is_err());
}

#[test]
fn a_log_that_does_not_cover_the_memory_is_written_within_its_bounds() {
    let (server, mut client) = Server::start();
    negotiate(&mut client, false);
    let guest = Guest::new();
    client.call(&guest.table()).unwrap();
    let mut driver = Driver::new(0, false);
    driver.start(&mut client, 0);
    let log = SharedMemory::new(4096).unwrap();
    client.set_log(LogArea { size: 8, offset: 0 }, log.file()).unwrap();
    let features = client.features | LOG_ALL;
    client.set_features(features).unwrap();
    let address = VringAddress { flags: features::VRING_LOG, log: u64::MAX - 8, ..driver.address() };
    client.call(&Message::SetVringAddr(address)).unwrap();
    driver.submit(&guest);
    driver.wait(&guest, 1);
    let mut bytes = [0; 4096];
    File::from(duplicate(log.file())).read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes[8..].iter().all(|byte| *byte == 0));
    assert!(server.visit(|session, _| session.descriptor().is_some()));
}
