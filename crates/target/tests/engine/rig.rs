//! A guest with block queues, and a reactor that turns when it is told to.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nvlane_bdev::{Bdev, Delay, Info, Malloc, Uuid, delay::Latencies};
use nvlane_ring::driver::{Buffer, Driver, DriverRing, Guest};
use nvlane_ring::{Layout, Queue};
use nvlane_target::device::blk::{Blk, Shape};
use nvlane_target::reactor::{ByHand, ChannelId, Coalescing, Detached, QueueId, QueueWork, Reactors, Served};
use nvlane_vhost_user::frontend::notifier;

pub const IN: u32 = 0;
pub const OUT: u32 = 1;
pub const FLUSH: u32 = 4;
pub const GET_ID: u32 = 8;
pub const DISCARD: u32 = 11;
pub const WRITE_ZEROES: u32 = 13;

pub const OK: u8 = 0;
pub const IOERR: u8 = 1;
pub const UNSUPP: u8 = 2;
/// What the status byte holds before the device writes it.
pub const UNTOUCHED: u8 = 0xee;

pub fn malloc(blocks: u64, block_size: u32) -> Arc<dyn Bdev> {
    Arc::new(Malloc::new(Info::new("disk", Uuid::random().unwrap(), block_size), blocks).unwrap())
}

/// A disk whose requests take this long.
pub fn slow(microseconds: u64) -> Arc<dyn Bdev> {
    let latencies = Latencies {
        avg_read: microseconds,
        p99_read: microseconds,
        avg_write: microseconds,
        p99_write: microseconds,
    };
    Arc::new(Delay::new(malloc(2048, 512), "slow", Uuid::random().unwrap(), latencies).unwrap())
}

/// One queue of a guest: the driver's half, and its notifiers.
pub struct GuestQueue {
    pub guest: Guest,
    pub driver: Driver,
    pub kick: OwnedFd,
    pub call: OwnedFd,
    pub err: OwnedFd,
}

impl GuestQueue {
    pub fn new(layout: Layout, size: u16, event_idx: bool) -> (GuestQueue, Queue) {
        let mut guest = Guest::new(8 << 20).unwrap();
        let mut config = guest.queue(layout, size);
        config.event_idx = event_idx;
        let driver = guest.driver(&config).unwrap();
        let (kick, call, err) = (notifier().unwrap(), notifier().unwrap(), notifier().unwrap());
        (GuestQueue { guest, driver, kick, call, err }, Queue::new(config).unwrap())
    }

    pub fn work(&self, ring: Queue, device: Box<dyn Served>) -> QueueWork {
        let own = |descriptor: &OwnedFd| Some(descriptor.as_fd().try_clone_to_owned().unwrap());
        QueueWork {
            ring,
            device,
            kick: own(&self.kick),
            call: own(&self.call),
            err: own(&self.err),
            coalescing: Coalescing::default(),
            log: None,
        }
    }

    /// Puts a request on the ring; where its data and its status are.
    pub fn ask(&mut self, kind: u32, sector: u64, out: &[u8], room: u32) -> Asked {
        let header = self.guest.allocate(16 + out.len() as u64, 16);
        let mut bytes = Vec::from(kind.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(sector.to_le_bytes());
        bytes.extend(out);
        self.guest.write(header, &bytes);
        let data = self.guest.allocate(u64::from(room), 16);
        let status = self.guest.allocate(1, 1);
        self.guest.write(status, &[UNTOUCHED]);
        let mut buffers = vec![Buffer { address: header, length: 16, writable: false }];
        if !out.is_empty() {
            buffers.push(Buffer { address: header + 16, length: out.len() as u32, writable: false });
        }
        if room > 0 {
            buffers.push(Buffer { address: data, length: room, writable: true });
        }
        buffers.push(Buffer { address: status, length: 1, writable: true });
        let id = self.driver.add(&buffers).expect("room on the ring");
        self.driver.publish();
        Asked { id, data, room, status }
    }

    pub fn status(&self, asked: &Asked) -> u8 {
        self.guest.read(asked.status, 1)[0]
    }

    pub fn data(&self, asked: &Asked) -> Vec<u8> {
        self.guest.read(asked.data, asked.room as usize)
    }
}

pub struct Asked {
    pub id: u16,
    pub data: u64,
    pub room: u32,
    pub status: u64,
}

/// A reactor by hand with one disk.
pub struct Rig {
    pub reactors: Reactors,
    pub reactor: ByHand,
    pub bdev: Arc<dyn Bdev>,
    pub shape: Arc<Shape>,
    pub channel: ChannelId,
}

impl Rig {
    pub fn new(bdev: Arc<dyn Bdev>, read_only: bool) -> Rig {
        let (reactors, reactor) = Reactors::by_hand().unwrap();
        let channel = reactors.open_channel(0, &bdev).unwrap();
        let shape = Arc::new(Shape::new(&*bdev, read_only));
        Rig { reactors, reactor, bdev, shape, channel }
    }

    pub fn attach(&self, queue: &GuestQueue, ring: Queue) -> QueueId {
        let device = Box::new(Blk::new(self.channel, self.shape.clone(), 256));
        self.reactors.attach(0, queue.work(ring, device))
    }

    /// A queue on the reactor.
    pub fn queue(&self, layout: Layout) -> (GuestQueue, QueueId) {
        let (queue, ring) = GuestQueue::new(layout, 256, false);
        let id = self.attach(&queue, ring);
        (queue, id)
    }

    pub fn turns(&mut self, count: usize) {
        for _ in 0..count {
            self.reactor.turn();
        }
    }

    /// Asks, and turns until the guest has it back.
    pub fn ask(
        &mut self,
        queue: &mut GuestQueue,
        kind: u32,
        sector: u64,
        out: &[u8],
        room: u32,
    ) -> (u8, Vec<u8>) {
        let asked = queue.ask(kind, sector, out, room);
        let used = self.until(|| queue.driver.reap());
        assert_eq!(used.id, asked.id);
        (queue.status(&asked), queue.data(&asked))
    }

    /// Turns until there is something.
    pub fn until<T>(&mut self, mut what: impl FnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            self.reactor.turn();
            if let Some(found) = what() {
                return found;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "nothing came");
        }
    }

    /// Turns until a queue has come back.
    pub fn detached(&mut self) -> Detached {
        let reactors = self.reactors.clone();
        self.until(|| reactors.take_back().pop())
    }
}
