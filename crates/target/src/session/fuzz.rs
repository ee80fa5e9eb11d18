//! Whole conversations: bytes become messages, descriptors, writes to the guest's memory and turns of a device, and a
//! session has to survive all of it and leave nothing behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{Interest, Owner, QueueParts, Session};
use nvlane_ring::{Chain, Ring, Segments};
use nvlane_vhost_user::features::{self, protocol};
use nvlane_vhost_user::frontend::{Client, SharedMemory, notifier};
use nvlane_vhost_user::{
    HEADER_SIZE, Inflight, LogArea, MemoryRegion, Message, Region, VringAddress, VringState,
};

const QUEUES: u16 = 3;
const MEMORY: u64 = 1 << 18;
const GUEST: u64 = 0x10_0000;
const USER: u64 = 0x7000_0000;
const SIZE: u32 = 16;
/// Rings of one guest lie this far apart.
const AREA: u64 = 0x4000;
/// Steps of one conversation: a longer one finds nothing that a shorter one does not.
const STEPS: usize = 200;

/// Takes numbers from the input; zeroes when it is used up.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((byte, rest)) => {
                self.0 = rest;
                *byte
            }
            None => 0,
        }
    }
    fn number(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }
    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        bytes
    }
}

/// A device that completes what it takes, unless it holds it back.
#[derive(Default)]
struct Null {
    queues: BTreeMap<u16, QueueParts>,
    returning: BTreeSet<u16>,
    held: Vec<(u16, Chain)>,
    hold: bool,
    loud: bool,
    segments: Segments,
}

impl Null {
    fn serve(&mut self) {
        for (&queue, parts) in &mut self.queues {
            while !self.returning.contains(&queue) {
                let Ok(Some(chain)) = parts.ring.pop(&mut self.segments) else { break };
                assert!(chain.id < parts.ring.size(), "an id beyond the ring");
                nvlane_memory::copy::zero(self.segments.writable(), 0, 1);
                match self.hold {
                    true => self.held.push((queue, chain)),
                    false => parts.ring.complete(chain, 1),
                }
            }
            parts.ring.publish();
        }
        if !self.hold {
            for (queue, chain) in self.held.drain(..) {
                if let Some(parts) = self.queues.get_mut(&queue) {
                    parts.ring.complete(chain, 1);
                    parts.ring.publish();
                }
            }
        }
    }

    fn give_back(&mut self, session: &mut Session) {
        for queue in std::mem::take(&mut self.returning) {
            if self.held.iter().any(|(held, _)| *held == queue) {
                self.returning.insert(queue);
            } else if let Some(parts) = self.queues.remove(&queue) {
                session.detached(queue, parts.ring.base().0, self);
            }
        }
    }
}

impl Owner for Null {
    fn features(&self) -> u64 {
        features::RING_PACKED
    }
    fn queues(&self) -> u16 {
        QUEUES
    }
    fn config(&self) -> Vec<u8> {
        vec![1; 60]
    }
    fn set_config(&mut self, offset: u32, bytes: &[u8], _migration: bool) -> bool {
        offset == 32 && bytes.len() == 1
    }
    fn attach(&mut self, queue: u16, parts: QueueParts) -> Result<(), String> {
        assert!(self.queues.insert(queue, parts).is_none(), "queue {queue} is attached twice");
        Ok(())
    }
    fn detach(&mut self, queue: u16) {
        assert!(
            self.queues.contains_key(&queue) && self.returning.insert(queue),
            "queue {queue} is not ours"
        );
    }
    fn set_call(&mut self, queue: u16, call: Option<OwnedFd>) {
        self.queues.get_mut(&queue).expect("a queue that is attached").call = call;
    }
    fn set_err(&mut self, queue: u16, err: Option<OwnedFd>) {
        self.queues.get_mut(&queue).expect("a queue that is attached").err = err;
    }
    fn is_quiet(&self) -> bool {
        !self.loud
    }
}

/// The front end: what it may send.
struct World {
    memory: SharedMemory,
    file: File,
    small: SharedMemory,
    record: Option<(Inflight, OwnedFd)>,
}

impl World {
    fn descriptor(&self, kind: u8) -> OwnedFd {
        let copy = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().expect("a descriptor");
        match (kind % 6, &self.record) {
            (0, _) => copy(self.memory.file()),
            (1, _) => copy(self.small.file()),
            (2, _) => notifier().expect("a descriptor"),
            (3, Some((_, file))) => copy(file.as_fd()),
            (4, _) => UnixStream::pair().expect("a descriptor").0.into(),
            _ => File::open("/dev/null").expect("/dev/null").into(),
        }
    }

    /// A message that makes sense, or nearly so.
    fn message(&self, input: &mut Input<'_>) -> Message {
        let (kind, index, spice) = (input.byte(), u32::from(input.byte() % 4), input.byte());
        let fd = |kind: u8| self.descriptor(if spice % 16 == 15 { spice } else { kind });
        let optional = |kind: u8| (spice % 8 != 7).then(|| fd(kind));
        let region = |at: u64| Region {
            guest_address: GUEST + at,
            size: MEMORY >> (spice % 3),
            user_address: USER + at,
            mmap_offset: u64::from(spice & 0x40) << 6,
        };
        let user = USER + u64::from(index) * AREA;
        match kind % 30 {
            0 => Message::GetFeatures,
            1 => Message::SetFeatures(
                features::VERSION_1
                    | if spice & 1 != 0 { features::RING_PACKED } else { 0 }
                    | if spice & 2 != 0 { features::LOG_ALL } else { 0 }
                    | if spice & 4 != 0 { features::EVENT_IDX } else { 0 }
                    | if spice & 8 != 0 { features::INDIRECT_DESC } else { 0 }
                    | if spice & 16 != 0 { features::PROTOCOL_FEATURES } else { 0 },
            ),
            2 => Message::SetProtocolFeatures(protocol::STORAGE),
            3 => Message::GetProtocolFeatures,
            4..=6 => Message::SetMemTable(
                (0..u64::from(spice % 3) + 1)
                    .map(|n| MemoryRegion { region: region(n * MEMORY), file: fd(0) })
                    .collect(),
            ),
            7 => Message::AddMemReg(MemoryRegion {
                region: region(u64::from(spice % 5) * MEMORY),
                file: fd(0),
            }),
            8 => Message::RemMemReg(region(u64::from(spice % 5) * MEMORY)),
            9 => Message::SetLogBase(LogArea { size: 64, offset: u64::from(spice % 9) }, optional(1)),
            10 | 11 => Message::SetVringNum(VringState { index, num: if spice > 250 { 3 } else { SIZE } }),
            12 | 13 => Message::SetVringAddr(VringAddress {
                index,
                flags: u32::from(spice & 1),
                descriptor: user,
                available: user + 0x1000,
                used: user + 0x2000,
                log: GUEST,
            }),
            14 => Message::SetVringBase(VringState {
                index,
                num: if spice % 4 == 0 { 0x8000_8000 } else { u32::from(spice % 32) },
            }),
            15 | 16 => Message::GetVringBase(index),
            17 | 18 => Message::SetVringKick(index as u8, optional(2)),
            19 => Message::SetVringCall(index as u8, optional(2)),
            20 => Message::SetVringErr(index as u8, optional(2)),
            21 | 22 => Message::SetVringEnable(index, spice % 4 != 0),
            23 => Message::SetBackendReqFd(fd(4)),
            24 => Message::GetConfig { offset: u32::from(spice), size: u32::from(input.byte()), flags: 0 },
            25 => Message::GetInflightFd(Inflight {
                mmap_size: 0,
                mmap_offset: 0,
                num_queues: QUEUES,
                queue_size: if spice > 250 { 0 } else { SIZE as u16 },
            }),
            26 => match &self.record {
                Some((inflight, _)) => Message::SetInflightFd(*inflight, fd(3)),
                None => Message::GetStatus,
            },
            27 => Message::SetStatus(u64::from(spice % 2) * 15),
            28 => Message::ResetDevice,
            _ => Message::ResetOwner,
        }
    }
}

/// Sends a message, perhaps with some of its bytes changed or with lies in its head.
fn send(client: &mut Client, world: &World, input: &mut Input<'_>) -> bool {
    let how = input.byte();
    let message = world.message(input);
    let mut bytes = message.bytes(how & 1 != 0);
    let mut descriptors = message.descriptors();
    if how & 0x30 == 0x30 {
        let at = usize::from(input.byte()) % bytes.len();
        bytes[at] ^= input.byte();
    }
    if how & 0xc0 == 0xc0 {
        descriptors.truncate(usize::from(input.byte() % 2));
    }
    client.send_raw(&bytes, &descriptors).is_ok()
}

/// A frame of nothing but input.
fn send_noise(client: &mut Client, world: &World, input: &mut Input<'_>) -> bool {
    let (number, flags, count) = (input.byte() % 48, input.byte(), input.byte() % 4);
    let descriptors: Vec<OwnedFd> = (0..count).map(|_| world.descriptor(input.byte())).collect();
    let length = usize::from(input.byte());
    let body = input.bytes(length);
    let mut bytes = Vec::with_capacity(HEADER_SIZE + body.len());
    bytes.extend(u32::from(number).to_ne_bytes());
    bytes.extend((u32::from(flags & 0xc) | 1).to_ne_bytes());
    bytes.extend((body.len() as u32).to_ne_bytes());
    bytes.extend(body);
    let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    client.send_raw(&bytes, &descriptors).is_ok()
}

/// The driver's side: a descriptor, and the ring's index moves on. Nonsense included.
fn submit(world: &World, input: &mut Input<'_>) {
    let (queue, slot) = (u64::from(input.byte() % 4), u64::from(input.byte() % SIZE as u8));
    let (flags, length) =
        (u16::from(input.byte()) << 7 | u16::from(input.byte() % 8), u32::from(input.byte()));
    let base = queue * AREA;
    let mut descriptor = Vec::new();
    descriptor.extend((GUEST + 0x1_0000 + slot * 256).to_le_bytes());
    descriptor.extend(length.to_le_bytes());
    descriptor.extend((slot as u16).to_le_bytes());
    descriptor.extend(flags.to_le_bytes());
    let write = |at: u64, bytes: &[u8]| world.file.write_all_at(bytes, at).expect("the guest's memory");
    write(base + slot * 16, &descriptor);
    let mut index = [0; 2];
    world.file.read_exact_at(&mut index, base + 0x1002).expect("the guest's memory");
    let index = u16::from_le_bytes(index);
    write(base + 0x1004 + u64::from(index % SIZE as u16) * 2, &(slot as u16).to_le_bytes());
    write(base + 0x1002, &index.wrapping_add(1).to_le_bytes());
}

/// Runs one conversation.
///
/// # Panics
/// When the session breaks a promise.
pub fn conversation(data: &[u8]) {
    let mut input = Input(data);
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    let mut session = Session::new(ours, QUEUES).expect("a session");
    let mut client = Client::new(theirs).expect("a client");
    client.deadline = Duration::ZERO;
    let memory = SharedMemory::new(MEMORY).expect("memory");
    let file = File::from(memory.file().try_clone_to_owned().expect("a descriptor"));
    let small = SharedMemory::new(4096).expect("memory");
    let mut world = World { memory, file, small, record: None };
    let mut null = Null::default();
    for _ in 0..STEPS {
        if input.0.is_empty() || session.descriptor().is_none() {
            break;
        }
        match input.byte() % 16 {
            0..=7 => drop(send(&mut client, &world, &mut input)),
            8 => drop(send_noise(&mut client, &world, &mut input)),
            9 | 10 => submit(&world, &mut input),
            11 => {
                let at = input.number() % (MEMORY - 256);
                let count = usize::from(input.byte());
                world.file.write_all_at(input.bytes(count), at).expect("the guest's memory");
            }
            12 => null.hold = input.byte() % 2 == 0,
            13 => {
                null.loud = input.byte() % 4 == 0;
                session.go_on(&mut null);
            }
            14 => session.config_changed(),
            _ => session.check(&mut null),
        }
        if session.interest() != Interest::Nothing {
            session.ready(&mut null);
        }
        null.serve();
        null.give_back(&mut session);
        while let Ok(Some(frame)) = client.receive() {
            assert!(frame.header.reply, "a back end asks nothing here");
            let request = nvlane_vhost_user::Request::GetInflightFd;
            if frame.header.number == request as u32 {
                if let Some(nvlane_vhost_user::Reply::Inflight(inflight, Some(file))) =
                    nvlane_vhost_user::Reply::parse(request, frame)
                {
                    world.record = Some((inflight, file));
                }
            }
        }
    }
    drop(client);
    session.end(&mut null, None);
    null.hold = false;
    null.loud = false;
    null.serve();
    null.give_back(&mut session);
    assert!(session.is_finished() && null.queues.is_empty(), "something of the session is left");
}
