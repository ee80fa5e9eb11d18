//! What a driver must not do, and what the device must log.
#![cfg(not(loom))]

use std::sync::Arc;

use nvlane_memory::{DirtyLog, memfd};
use nvlane_ring::driver::{self, Buffer, DriverRing, Guest, INDIRECT_FLAG};
use nvlane_ring::{Layout, Log, Queue, QueueConfig, Ring, RingError, Segments, VringBase};

const NEXT: u16 = 1;
const WRITE: u16 = 2;

fn queue(layout: Layout, size: u16) -> (Guest, QueueConfig) {
    let mut guest = Guest::new(0x10_0000).unwrap();
    let mut config = guest.queue(layout, size);
    config.indirect = true;
    (guest, config)
}

/// Writes a descriptor of a split table, or of a packed ring in its first lap.
fn descriptor(layout: Layout, address: u64, length: u32, flags: u16, next_or_id: u16) -> [u8; 16] {
    let (third, fourth) = match layout {
        Layout::Split => (flags, next_or_id),
        Layout::Packed => (next_or_id, flags | 0x80),
    };
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&address.to_le_bytes());
    bytes[8..12].copy_from_slice(&length.to_le_bytes());
    bytes[12..14].copy_from_slice(&third.to_le_bytes());
    bytes[14..].copy_from_slice(&fourth.to_le_bytes());
    bytes
}

/// What comes of these descriptors, the first of which is made available.
fn popped(layout: Layout, descriptors: &[(u64, u32, u16, u16)]) -> RingError {
    let (guest, config) = queue(layout, 8);
    for (index, &(address, length, flags, next)) in (0u64..).zip(descriptors) {
        let bytes = descriptor(layout, address, length, flags, next);
        guest.write(config.addresses.descriptors + 16 * index, &bytes);
    }
    if layout == Layout::Split {
        guest.write(config.addresses.driver + 2, &1u16.to_le_bytes());
    }
    let mut queue = Queue::new(config).unwrap();
    let error = queue.pop(&mut Segments::new()).unwrap_err();
    assert_eq!(queue.pop(&mut Segments::new()), Err(error), "a broken queue stays broken");
    assert_eq!(queue.in_flight(), 0);
    error
}

#[test]
fn broken_chains() {
    use Layout::{Packed, Split};
    let far = 0x10_0000;
    assert_eq!(popped(Split, &[(0, 16, NEXT, 8)]), RingError::OutOfRange(8));
    assert_eq!(popped(Split, &[(0, 16, NEXT, 1), (0, 16, NEXT, 0)]), RingError::Loop(0));
    assert_eq!(popped(Packed, &[(0, 16, NEXT, 1); 8]), RingError::Loop(1));
    assert_eq!(popped(Packed, &[(0, 16, 0, 8)]), RingError::OutOfRange(8));
    for layout in [Split, Packed] {
        assert_eq!(
            popped(layout, &[(0, 16, WRITE | NEXT, 1), (0, 16, 0, 0)]),
            RingError::Order(if layout == Split { 0 } else { 1 })
        );
        assert_eq!(popped(layout, &[(far, 16, 0, 0)]), RingError::Address { address: far, length: 16 });
        assert_eq!(popped(layout, &[(far - 8, 16, 0, 0)]), RingError::Address { address: far, length: 8 });
        assert_eq!(
            popped(layout, &[(u64::MAX, 16, 0, 0)]),
            RingError::Address { address: u64::MAX, length: 16 }
        );
        for (length, flags) in [(0, INDIRECT_FLAG), (24, INDIRECT_FLAG), (16, INDIRECT_FLAG | NEXT)] {
            assert_eq!(popped(layout, &[(0x8_0000, length, flags, 0)]), RingError::Indirect(0));
        }
        assert_eq!(
            popped(layout, &[(far - 16, 32, INDIRECT_FLAG, 0)]),
            RingError::Address { address: far - 16, length: 32 }
        );
    }
}

#[test]
fn broken_tables() {
    for layout in [Layout::Split, Layout::Packed] {
        let pop = |table: &[u8]| {
            let (mut guest, config) = queue(layout, 8);
            let at = guest.allocate(0x1_0000, 16);
            guest.write(at, table);
            let mut driver = guest.driver(&config).unwrap();
            driver.add_raw(at, table.len() as u32, INDIRECT_FLAG).unwrap();
            driver.publish();
            let mut queue = Queue::new(config).unwrap();
            queue.pop(&mut Segments::new()).map(|chain| chain.is_some())
        };
        let nested = descriptor(layout, 0, 16, INDIRECT_FLAG, 0);
        assert!(matches!(pop(&nested), Err(RingError::Indirect(_))));
        let buffers = vec![Buffer { address: 0, length: 1, writable: false }; 259];
        assert!(matches!(pop(&driver::table(layout, &buffers)), Err(RingError::TooManySegments(_))));
        assert_eq!(pop(&driver::table(layout, &buffers[..258])), Ok(true));
        if layout == Layout::Split {
            assert!(matches!(pop(&descriptor(layout, 0, 16, NEXT, 0)), Err(RingError::Loop(_))));
            assert!(matches!(pop(&descriptor(layout, 0, 16, NEXT, 1)), Err(RingError::OutOfRange(1))));
        }
    }
}

#[test]
fn broken_rings() {
    let (guest, config) = queue(Layout::Split, 8);
    guest.write(config.addresses.driver + 2, &9u16.to_le_bytes());
    let mut far = Queue::new(config.clone()).unwrap();
    assert_eq!(far.pop(&mut Segments::new()), Err(RingError::IndexTooFar { index: 9, expected: 0 }));
    // The same head twice.
    guest.write(config.addresses.driver + 2, &2u16.to_le_bytes());
    guest.write(config.addresses.descriptors, &descriptor(Layout::Split, 0, 16, 0, 0));
    let mut twice = Queue::new(config.clone()).unwrap();
    assert!(twice.pop(&mut Segments::new()).is_ok());
    assert_eq!(twice.pop(&mut Segments::new()), Err(RingError::InFlightTwice(0)));
    // A head beyond the ring.
    guest.write(config.addresses.driver + 4, &8u16.to_le_bytes());
    let mut beyond = Queue::new(config).unwrap();
    assert_eq!(beyond.pop(&mut Segments::new()), Err(RingError::OutOfRange(8)));
}

#[test]
fn impossible_queues() {
    let (_guest, split) = queue(Layout::Split, 8);
    let (_other, packed) = queue(Layout::Packed, 7);
    let refused = |config: &QueueConfig, change: &dyn Fn(&mut QueueConfig)| {
        let mut config = config.clone();
        change(&mut config);
        let Err(error) = Queue::new(config) else { panic!("such a queue cannot be") };
        error
    };
    for size in [0, 7, 32769] {
        assert_eq!(refused(&split, &|config| config.size = size), RingError::Size(size));
    }
    assert_eq!(refused(&packed, &|config| config.size = 0), RingError::Size(0));
    assert_eq!(refused(&packed, &|config| config.size = 32769), RingError::Size(32769));
    for config in [&split, &packed] {
        assert!(matches!(
            refused(config, &|config| config.addresses.descriptors += 8),
            RingError::Area { .. }
        ));
        assert!(matches!(refused(config, &|config| config.addresses.driver += 1), RingError::Area { .. }));
        assert!(matches!(refused(config, &|config| config.addresses.device += 2), RingError::Area { .. }));
        assert!(matches!(
            refused(config, &|config| config.addresses.device = 0x10_0000 - 2),
            RingError::Area { .. }
        ));
    }
    assert!(matches!(refused(&packed, &|config| config.addresses.driver += 2), RingError::Area { .. }));
    assert_eq!(refused(&packed, &|config| config.base = VringBase(7)), RingError::OutOfRange(7));
    let near_the_end = refused(&split, &|config| config.addresses.descriptors = 0x10_0000 - 64);
    assert!(matches!(near_the_end, RingError::Area { .. }), "it does not fit");
}

/// The pages that are marked in a log of one page.
fn marked(log: &std::fs::File) -> Vec<u64> {
    use std::os::unix::fs::FileExt;
    let mut bytes = [0; 64];
    log.read_exact_at(&mut bytes, 0).unwrap();
    log.write_all_at(&[0; 64], 0).unwrap();
    (0..512).filter(|page| bytes[page / 8] >> (page % 8) & 1 == 1).map(|page| page as u64).collect()
}

#[test]
fn what_the_device_writes_is_logged_before_it_is_shown() {
    for layout in [Layout::Split, Layout::Packed] {
        let (mut guest, mut config) = queue(layout, 8);
        let file = memfd(c"log", 0).unwrap();
        file.set_len(64).unwrap();
        let log = Arc::new(DirtyLog::map(file.try_clone().unwrap().into(), 0, 64).unwrap());
        config.log = Some(Log { log, used_address: Some(config.addresses.device) });
        let page = |address: u64| address / 4096;
        let (ring, used) = (page(config.addresses.descriptors), page(config.addresses.device));
        let data = guest.allocate(0x5000, 4096);
        let buffers = [
            Buffer { address: data, length: 4096, writable: false },
            Buffer { address: data + 0x1fff, length: 2, writable: true },
            Buffer { address: data + 0x4000, length: 1, writable: true },
        ];
        let mut driver = guest.driver(&config).unwrap();
        let mut queue = Queue::new(config).unwrap();
        queue.suppress();
        assert_eq!(marked(&file), [used], "the device's wish not to be kicked");
        driver.add(&buffers).unwrap();
        driver.publish();
        let chain = queue.pop(&mut Segments::new()).unwrap().unwrap();
        assert!(marked(&file).is_empty(), "nothing is written yet");
        queue.complete(chain, 3);
        let written = [page(data) + 1, page(data) + 2, page(data) + 4];
        let early = marked(&file);
        assert!(written.iter().all(|page| early.contains(page)) && driver.reap().is_none());
        queue.publish();
        let all = [early, marked(&file)].concat();
        let ring_page = if layout == Layout::Split { used } else { ring };
        assert!(all.contains(&ring_page), "the used ring");
        assert!(!all.contains(&page(data)), "what the device only reads");
        assert!(driver.reap().is_some());
    }
}
