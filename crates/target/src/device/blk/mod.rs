//! The virtio block device (virtio 1.3, 5.2): one queue's requests, as they come off the ring.

pub mod config;
pub mod fuzz;
mod parse;
mod slot;

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use nvlane_bdev::{Bdev, Operation, Status, Submitted};
use nvlane_memory::{Segment, copy, total};
use nvlane_ring::{Chain, Segments};

use super::{ChannelId, Device, Io, Step};
use parse::{HEADER, Header, RANGE, Range, UNMAP, kind};
use slot::{Rest, Slot};

/// The unit of the protocol, whatever the disk's blocks are.
pub const SECTOR: u64 = 512;
/// Segments of data that a request may have: the scratch holds them with header and status.
pub const SEGMENTS: usize = 126;
/// Ranges of one DISCARD or WRITE_ZEROES.
pub const MAX_RANGES: usize = 16;
/// 1 GiB: deallocating is cheap.
pub const MAX_DISCARD_SECTORS: u32 = 1 << 21;
/// 16 MiB, as SPDK has it: a disk in memory is zeroed while the other queues of its reactor wait.
pub const MAX_WRITE_ZEROES_SECTORS: u32 = 1 << 15;

/// VIRTIO_BLK_ID_BYTES
const ID_BYTES: usize = 20;

/// VIRTIO_BLK_S_*
mod reply {
    pub const OK: u8 = 0;
    pub const IOERR: u8 = 1;
    pub const UNSUPP: u8 = 2;
}

/// What the control thread and the queues know of a disk; it changes with a resize and when the bdev is removed.
pub struct Shape {
    bytes: AtomicU64,
    gone: AtomicBool,
    block_size: u32,
    max_transfer: u32,
    unmap: bool,
    write_zeroes: bool,
    read_only: bool,
    id: [u8; ID_BYTES],
}

impl Shape {
    pub fn new(bdev: &dyn Bdev, read_only: bool) -> Self {
        let info = bdev.info();
        let mut id = [0; ID_BYTES];
        // Not terminated if it fills the field (virtio 1.3, 5.2.6).
        for (to, from) in id.iter_mut().zip(info.name.bytes()) {
            *to = from;
        }
        Self {
            bytes: AtomicU64::new(bdev.bytes()),
            gone: AtomicBool::new(false),
            block_size: info.block_size,
            max_transfer: if info.max_transfer == 0 { u32::MAX } else { info.max_transfer },
            unmap: bdev.supports(Operation::Unmap),
            write_zeroes: bdev.supports(Operation::WriteZeroes { unmap: false }),
            read_only: read_only || info.read_only,
            id,
        }
    }

    pub fn resize(&self, bytes: u64) {
        self.bytes.store(bytes, Relaxed);
    }

    /// The bdev was removed: every request fails from now on.
    pub fn remove(&self) {
        self.gone.store(true, Relaxed);
    }
}

/// The front end of one queue.
pub struct Blk {
    channel: ChannelId,
    shape: Arc<Shape>,
    slots: Box<[Slot]>,
}

impl Blk {
    pub fn new(channel: ChannelId, shape: Arc<Shape>, queue_size: u16) -> Self {
        Self { channel, shape, slots: (0..queue_size).map(|_| Slot::default()).collect() }
    }

    /// A read or write: the one path that has to be short.
    #[inline]
    fn transfer(
        &mut self,
        id: u16,
        read: bool,
        sector: u64,
        data: &[Segment],
        status: Segment,
        io: &mut Io<'_>,
    ) -> Step {
        let length = total(data) as u64;
        let operation = if read { Operation::Read } else { Operation::Write };
        let written = if read { written(length) } else { 1 };
        let Some(offset) = self.place(sector, length).filter(|_| read || !self.shape.read_only) else {
            return done(status, reply::IOERR, written, io);
        };
        if length > u64::from(self.shape.max_transfer) {
            let logged = read.then_some(data);
            return self.several(id, Rest::transfer(operation, offset, data), status, written, logged, io);
        }
        match io.submit(self.channel, operation, offset, length, data, id, 0) {
            Submitted::Done(ended) => {
                if read && io.logs() {
                    io.guest_wrote(data);
                }
                done(status, code(ended), written, io)
            }
            Submitted::Pending => {
                let logged = if read && io.logs() { Some(data.into()) } else { None };
                self.slots[usize::from(id)].begin(status, written, logged);
                Step::Pending
            }
            Submitted::Busy => {
                let logged = read.then_some(data);
                self.several(id, Rest::transfer(operation, offset, data), status, written, logged, io)
            }
        }
    }

    /// Where a transfer begins, if all of it lies on the disk and on its blocks.
    #[inline]
    fn place(&self, sector: u64, length: u64) -> Option<u64> {
        let offset = sector.checked_mul(SECTOR)?;
        let end = offset.checked_add(length)?;
        let aligned = (offset | length) & (u64::from(self.shape.block_size) - 1) == 0;
        let shape = &*self.shape;
        (aligned && end <= shape.bytes.load(Relaxed) && !shape.gone.load(Relaxed)).then_some(offset)
    }

    /// Everything but reads and writes.
    #[cold]
    fn other(
        &mut self,
        id: u16,
        header: Header,
        segments: &Segments,
        status: Segment,
        io: &mut Io<'_>,
    ) -> Step {
        let (to, from) = (segments.readable(), segments.writable());
        match header.kind {
            kind::FLUSH => self.several(id, Rest::flush(), status, 1, None, io),
            kind::GET_ID => {
                let count = copy::copy_out(&self.shape.id, from, 0);
                if io.logs() {
                    io.guest_wrote(from);
                }
                let reply = if count == ID_BYTES { reply::OK } else { reply::IOERR };
                done(status, reply, written(total(from) as u64), io)
            }
            kind::DISCARD if self.shape.unmap => self.ranges(id, Operation::Unmap, to, status, io),
            kind::WRITE_ZEROES if self.shape.write_zeroes => {
                self.ranges(id, Operation::WriteZeroes { unmap: false }, to, status, io)
            }
            _ => done(status, reply::UNSUPP, 1, io),
        }
    }

    /// DISCARD and WRITE_ZEROES: checked whole before the first range is touched.
    fn ranges(
        &mut self,
        id: u16,
        operation: Operation,
        data: &[Segment],
        status: Segment,
        io: &mut Io<'_>,
    ) -> Step {
        let length = total(data);
        let count = length / RANGE;
        if self.shape.read_only || length % RANGE != 0 || count == 0 || count > MAX_RANGES {
            return done(status, reply::IOERR, 1, io);
        }
        let mut ranges = Vec::with_capacity(count);
        for index in 0..count {
            let mut bytes = [0; RANGE];
            copy::copy_in(data, index * RANGE, &mut bytes);
            match self.range(operation, Range::parse(&bytes)) {
                Ok(Some(checked)) => ranges.push(checked),
                Ok(None) => {}
                Err(reply) => return done(status, reply, 1, io),
            }
        }
        self.several(id, Rest::ranges(ranges), status, 1, None, io)
    }

    /// One range with its operation; none for an empty one.
    fn range(&self, operation: Operation, range: Range) -> Result<Option<(Operation, u64, u64)>, u8> {
        // A discard must not say unmap, and no other bit means anything yet (virtio 1.3, 5.2.6.2).
        let (operation, known, most) = match operation {
            Operation::Unmap => (operation, 0, MAX_DISCARD_SECTORS),
            _ => {
                (Operation::WriteZeroes { unmap: range.flags & UNMAP != 0 }, UNMAP, MAX_WRITE_ZEROES_SECTORS)
            }
        };
        if range.flags & !known != 0 {
            return Err(reply::UNSUPP);
        }
        if range.sectors > most {
            return Err(reply::IOERR);
        }
        let length = u64::from(range.sectors) * SECTOR;
        let offset = self.place(range.sector, length).ok_or(reply::IOERR)?;
        Ok((length > 0).then_some((operation, offset, length)))
    }

    /// A request that takes several operations, or has to wait for room.
    #[cold]
    fn several(
        &mut self,
        id: u16,
        rest: Rest,
        status: Segment,
        written: u32,
        logged: Option<&[Segment]>,
        io: &mut Io<'_>,
    ) -> Step {
        let logged = logged.filter(|_| io.logs()).map(Into::into);
        let slot = &mut self.slots[usize::from(id)];
        slot.begin(status, written, logged);
        slot.under_way = 0;
        slot.rest = Some(Box::new(rest));
        self.advance(id, io)
    }

    /// Submits what is left of a request, as far as there is room.
    fn advance(&mut self, id: u16, io: &mut Io<'_>) -> Step {
        let slot = &mut self.slots[usize::from(id)];
        while let Some(rest) = &mut slot.rest {
            // Nothing more is begun after a failure.
            let Some(next) = rest.next(self.shape.max_transfer).filter(|_| slot.status == Status::Ok) else {
                slot.rest = None;
                break;
            };
            let submitted =
                io.submit(self.channel, next.operation, next.offset, next.length, &next.segments, id, 0);
            match submitted {
                Submitted::Busy if slot.under_way > 0 => return Step::Pending,
                Submitted::Busy => return Step::Again,
                Submitted::Pending => slot.under_way += 1,
                Submitted::Done(_) => {}
            }
            rest.taken(next.length);
            if let Submitted::Done(status) = submitted {
                slot.note(status);
            }
        }
        self.end_if_over(id, io)
    }

    #[inline]
    fn end_if_over(&mut self, id: u16, io: &mut Io<'_>) -> Step {
        let slot = &mut self.slots[usize::from(id)];
        if slot.under_way > 0 {
            return Step::Pending;
        }
        if let Some(logged) = slot.logged.take() {
            io.guest_wrote(&logged);
        }
        done(slot.reply_to, code(slot.status), slot.written, io)
    }
}

impl Device for Blk {
    #[inline]
    fn request(&mut self, chain: &Chain, segments: &mut Segments, io: &mut Io<'_>) -> Step {
        // Without a byte for the status there is no way to say anything: the guest gets its chain back.
        let Some(status) = segments.take_status() else { return Step::Done { written: 0 } };
        let mut header = [0; HEADER];
        if !segments.take_header(&mut header) {
            return done(status, reply::IOERR, written(segments.writable_bytes() as u64), io);
        }
        let header = Header::parse(&header);
        match header.kind {
            kind::IN => self.transfer(chain.id, true, header.sector, segments.writable(), status, io),
            kind::OUT => self.transfer(chain.id, false, header.sector, segments.readable(), status, io),
            _ => self.other(chain.id, header, segments, status, io),
        }
    }

    #[inline]
    fn looks_ahead(&self, io: &mut Io<'_>) -> bool {
        io.prefetches(self.channel)
    }

    #[inline]
    fn foresee(&self, header: &[u8; HEADER], io: &mut Io<'_>) {
        let header = Header::parse(header);
        let operation = match header.kind {
            kind::IN => Operation::Read,
            kind::OUT => Operation::Write,
            _ => return,
        };
        if let Some(offset) = header.sector.checked_mul(SECTOR) {
            io.prefetch(self.channel, operation, offset, SECTOR);
        }
    }

    fn ended(&mut self, id: u16, _part: u16, status: Status, io: &mut Io<'_>) -> Step {
        let slot = &mut self.slots[usize::from(id)];
        slot.note(status);
        slot.under_way -= 1;
        if slot.rest.is_some() { self.advance(id, io) } else { self.end_if_over(id, io) }
    }

    fn resume(&mut self, id: u16, io: &mut Io<'_>) -> Step {
        self.advance(id, io)
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// The chain's writable bytes: the data and the status after it.
#[inline]
fn written(data: u64) -> u32 {
    u32::try_from(data + 1).unwrap_or(u32::MAX)
}

#[inline]
fn code(status: Status) -> u8 {
    match status {
        Status::Ok => reply::OK,
        Status::Unsupported => reply::UNSUPP,
        _ => reply::IOERR,
    }
}

#[inline]
fn done(status: Segment, reply: u8, written: u32, io: &mut Io<'_>) -> Step {
    copy::store_byte(status, reply);
    if io.logs() {
        io.guest_wrote(&[status]);
    }
    Step::Done { written }
}
