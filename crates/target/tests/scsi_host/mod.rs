//! A guest with a virtio SCSI host: control and event queue and a few request queues.

use std::collections::HashMap;

use nvlane_ring::driver::{Buffer, Driver, DriverRing, Guest, Used};
use nvlane_ring::{Layout, Queue, QueueConfig, Ring, VringBase};
use nvlane_target::controller::{FrontEnd, NewQueue};
use nvlane_target::device::scsi::ScsiFrontEnd;
use nvlane_target::reactor::{ByHand, Coalescing, QueueId, QueueWork, Reactors};

pub const TEST_UNIT_READY: &[u8] = &[0; 6];

pub fn read_10(lba: u32, blocks: u16) -> [u8; 10] {
    transfer(0x28, lba, blocks)
}

pub fn write_10(lba: u32, blocks: u16) -> [u8; 10] {
    transfer(0x2A, lba, blocks)
}

fn transfer(code: u8, lba: u32, blocks: u16) -> [u8; 10] {
    let ([a, b, c, d], [high, low]) = (lba.to_be_bytes(), blocks.to_be_bytes());
    [code, 0, a, b, c, d, 0, high, low, 0]
}

/// VIRTIO_SCSI_F_HOTPLUG and _CHANGE
const FEATURES: u64 = 1 << 1 | 1 << 2;
const QUEUE_SIZE: u16 = 64;
const TURNS: usize = 10_000_000;

/// A request that was sent.
pub struct Sent {
    queue: usize,
    id: u16,
    pub tag: u64,
    /// Where its writable pieces are.
    pieces: Vec<(u64, usize)>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub written: u32,
    pub response: u8,
    pub status: u8,
    pub residual: u32,
    sense: Vec<u8>,
    pub data: Vec<u8>,
}

impl Answer {
    /// Key, code and qualifier of fixed sense data that came with CHECK CONDITION.
    pub fn sense(&self) -> (u8, u8, u8) {
        assert_eq!((self.response, self.status, self.sense.len()), (0, 2, 18), "{self:?}");
        (self.sense[2] & 0xF, self.sense[12], self.sense[13])
    }
}

pub struct Host {
    pub front_end: ScsiFrontEnd,
    pub reactors: Reactors,
    hand: ByHand,
    guest: Guest,
    configs: Vec<QueueConfig>,
    drivers: Vec<Driver>,
    ids: Vec<QueueId>,
    over: HashMap<(usize, u16), Used>,
    events: HashMap<u16, u64>,
    tag: u64,
}

impl Host {
    pub fn new(layout: Layout, requests: u16) -> Host {
        let (reactors, hand) = Reactors::by_hand().unwrap();
        let mut guest = Guest::new(64 << 20).unwrap();
        let mut configs: Vec<QueueConfig> =
            (0..2 + requests).map(|_| guest.queue(layout, QUEUE_SIZE)).collect();
        // As many pieces as a test likes.
        for config in &mut configs {
            config.indirect = true;
        }
        let drivers = configs.iter().map(|config| guest.driver(config).unwrap()).collect();
        let front_end = ScsiFrontEnd::new(&[0]);
        let (over, events) = (HashMap::new(), HashMap::new());
        Host { front_end, reactors, hand, guest, configs, drivers, ids: Vec::new(), over, events, tag: 1 }
    }

    /// Hands all queues to the reactor.
    pub fn start(&mut self) {
        for (index, config) in (0..).zip(&self.configs) {
            let ring = Queue::new(config.clone()).unwrap();
            let fresh = config.base == VringBase::start(config.layout);
            let (size, features) = (ring.size(), FEATURES);
            let queue = NewQueue { session: 1, index, size, reactor: 0, fresh, features };
            let device = self.front_end.device(queue, &self.reactors).unwrap();
            // A kick that never comes: turns are taken by hand.
            let kick = Some(rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap());
            let coalescing = Coalescing::default();
            let work = QueueWork { ring, device, kick, call: None, err: None, coalescing, log: None };
            let id = self.reactors.attach(0, work);
            self.front_end.attached(queue, id);
            self.ids.push(id);
        }
        self.turns(2);
    }

    /// Takes the queues back, each where it stands.
    fn stop(&mut self) {
        for id in &self.ids {
            self.reactors.detach(*id);
        }
        let mut left = self.ids.len();
        while left > 0 {
            self.hand.turn();
            for detached in self.reactors.take_back() {
                let index = self.ids.iter().position(|id| *id == detached.queue).unwrap();
                self.configs[index].base = detached.base;
                self.front_end.detached(detached.queue);
                left -= 1;
            }
        }
        self.ids.clear();
    }

    /// Another session takes up the rings where they are.
    pub fn reconnect(&mut self) {
        self.stop();
        self.front_end.session_over(1);
        self.start();
    }

    /// The guest's driver begins anew, on empty rings.
    pub fn reset(&mut self) {
        self.stop();
        for (config, driver) in self.configs.iter_mut().zip(&mut self.drivers) {
            let size = usize::from(QUEUE_SIZE);
            let areas = &config.addresses;
            for (at, length) in
                [(areas.descriptors, 16 * size), (areas.driver, 2 * size), (areas.device, 8 * size)]
            {
                self.guest.write(at, &vec![0; length + 6]);
            }
            config.base = VringBase::start(config.layout);
            *driver = self.guest.driver(config).unwrap();
        }
        self.start();
    }

    pub fn turns(&mut self, count: usize) {
        for _ in 0..count {
            self.hand.turn();
        }
    }

    pub fn doze(&mut self) -> bool {
        self.hand.doze()
    }

    pub fn header(&mut self, target: u8, cdb: &[u8]) -> Vec<u8> {
        self.tag += 1;
        let mut header = vec![1, target, 0x40, 0, 0, 0, 0, 0];
        header.extend(self.tag.to_le_bytes());
        header.extend([0; 3]);
        header.extend(cdb);
        header.resize(51, 0);
        header
    }

    /// A command on the first request queue, and its end.
    pub fn command(&mut self, target: u8, cdb: &[u8], out: &[u8], room: usize) -> Answer {
        let sent = self.begin(2, target, cdb, out, room);
        self.end(sent)
    }

    pub fn begin(&mut self, queue: usize, target: u8, cdb: &[u8], out: &[u8], room: usize) -> Sent {
        let header = self.header(target, cdb);
        let readable: Vec<&[u8]> = [&header[..], out].into_iter().filter(|piece| !piece.is_empty()).collect();
        let writable: Vec<usize> = [108, room].into_iter().filter(|length| *length > 0).collect();
        self.send(queue, &readable, &writable)
    }

    /// A request in the pieces given, and its end.
    pub fn raw(&mut self, queue: usize, readable: &[&[u8]], writable: &[usize]) -> Answer {
        let sent = self.send(queue, readable, writable);
        self.end(sent)
    }

    fn send(&mut self, queue: usize, readable: &[&[u8]], writable: &[usize]) -> Sent {
        let mut buffers = Vec::new();
        let mut pieces = Vec::new();
        for bytes in readable {
            let address = self.guest.allocate(bytes.len() as u64, 1);
            self.guest.write(address, bytes);
            buffers.push(Buffer { address, length: bytes.len() as u32, writable: false });
        }
        for &length in writable {
            let address = self.guest.allocate(length as u64, 1);
            buffers.push(Buffer { address, length: length as u32, writable: true });
            pieces.push((address, length));
        }
        let table = nvlane_ring::driver::table(self.configs[queue].layout, &buffers);
        let at = self.guest.allocate(table.len() as u64, 16);
        self.guest.write(at, &table);
        let driver = &mut self.drivers[queue];
        let id = driver.add_raw(at, table.len() as u32, nvlane_ring::driver::INDIRECT_FLAG).unwrap();
        driver.publish();
        Sent { queue, id, tag: self.tag, pieces }
    }

    fn reap(&mut self) {
        for (queue, driver) in self.drivers.iter_mut().enumerate() {
            while let Some(used) = driver.reap() {
                self.over.insert((queue, used.id), used);
            }
        }
    }

    pub fn is_over(&mut self, sent: &Sent) -> bool {
        self.reap();
        self.over.contains_key(&(sent.queue, sent.id))
    }

    fn wait(&mut self, sent: &Sent) -> (u32, Vec<u8>) {
        for _ in 0..TURNS {
            if self.is_over(sent) {
                break;
            }
            self.hand.turn();
        }
        let used = self.over.remove(&(sent.queue, sent.id)).expect("the request ends");
        let bytes: Vec<u8> =
            sent.pieces.iter().flat_map(|&(at, length)| self.guest.read(at, length)).collect();
        assert!(used.written as usize <= bytes.len());
        (used.written, bytes)
    }

    pub fn end(&mut self, sent: Sent) -> Answer {
        let (written, bytes) = self.wait(&sent);
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        if bytes.len() < 108 {
            let data = Vec::new();
            return Answer { written, response: 0, status: 0, residual: 0, sense: data.clone(), data };
        }
        Answer {
            written,
            residual: word(4),
            status: bytes[10],
            response: bytes[11],
            sense: bytes[12..12 + word(0) as usize].to_vec(),
            data: bytes[108..].to_vec(),
        }
    }

    /// A task management function and its response.
    pub fn task(&mut self, subtype: u32, target: u8, tag: u64) -> u8 {
        let mut request = vec![0; 4];
        request.extend(subtype.to_le_bytes());
        request.extend([1, target, 0x40, 0, 0, 0, 0, 0]);
        request.extend(tag.to_le_bytes());
        self.control(&request, 1)[0]
    }

    pub fn control(&mut self, request: &[u8], room: usize) -> Vec<u8> {
        let readable: Vec<&[u8]> = if request.is_empty() { vec![] } else { vec![request] };
        let sent = self.send(0, &readable, &[room]);
        let (written, bytes) = self.wait(&sent);
        assert_eq!(written as usize, room);
        bytes
    }

    pub fn offer_events(&mut self, count: usize) {
        for _ in 0..count {
            let sent = self.send(1, &[], &[16]);
            self.events.insert(sent.id, sent.pieces[0].0);
        }
        self.turns(2);
    }

    /// The next event, if there is one now.
    pub fn event(&mut self) -> Option<Vec<u8>> {
        self.turns(3);
        self.reap();
        let key = self.over.keys().copied().filter(|(queue, _)| *queue == 1).min()?;
        let used = self.over.remove(&key)?;
        assert_eq!(used.written, 16);
        let address = self.events.remove(&used.id)?;
        Some(self.guest.read(address, 16))
    }
}
