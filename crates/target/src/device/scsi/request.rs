//! A request queue: commands for the units of one session, as they come off the ring.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use nvlane_bdev::{Operation, Status as Ended, Submitted};
use nvlane_memory::{Segment, copy};
use nvlane_ring::{Chain, Segments};
use nvlane_scsi::{Cdb, Operation as Asked, Outcome, Sense, Status, Transfer, parameter_length};

use super::super::{ChannelId, Device, Io, Step};
use super::TARGETS;
use super::lun::{Lun, sense_of};
use super::place::{Place, part};
use super::plan::{Plan, Progress};
use super::tasks::{Action, Tasks};
use super::wire::{Address, REQUEST_HEADER, Request, Response, response};

/// A target, as one reactor reaches it.
#[derive(Clone)]
pub(super) struct Seat {
    pub lun: Arc<Lun>,
    pub channel: ChannelId,
}

/// A command under way.
struct Task {
    target: u8,
    tag: u64,
    place: Place,
    lun: Arc<Lun>,
    /// Bytes of both data buffers.
    offered: u64,
    /// Of them what the command transfers, and which way.
    transferred: u64,
    write: bool,
    /// What a read writes, if somebody logs it.
    logged: Option<Box<[Segment]>>,
    /// None: one operation, whose end is the command's.
    plan: Option<(Box<Plan>, ChannelId)>,
}

pub(super) struct RequestQueue {
    targets: [Option<Seat>; TARGETS],
    /// By chain.
    tasks: Box<[Option<Task>]>,
    /// Who waits for the end of which chain.
    marked: Vec<(u16, Arc<Tasks>)>,
    data: Vec<u8>,
    segments: Vec<Segment>,
}

/// What the guest offers for data.
struct Buffers<'a> {
    readable: &'a [Segment],
    writable: &'a [Segment],
    data_out: u64,
    data_in: u64,
}

impl Buffers<'_> {
    fn both(&self) -> u64 {
        self.data_out + self.data_in
    }
}

enum Reply {
    /// GOOD, with so many bytes transferred, and so many of them into the guest.
    Good {
        transferred: u64,
        written: u64,
    },
    Check(Sense),
    /// The command never got as far as a status.
    Refused(u8),
}

impl RequestQueue {
    pub fn new(targets: [Option<Seat>; TARGETS], size: u16) -> RequestQueue {
        let tasks = (0..size).map(|_| None).collect();
        RequestQueue { targets, tasks, marked: Vec::new(), data: Vec::new(), segments: Vec::new() }
    }

    /// A target has come or gone. Commands of the old one that are under way end as they would have.
    pub fn set_target(&mut self, number: u8, seat: Option<Seat>) {
        self.targets[usize::from(number)] = seat;
    }

    /// Marks every task that is meant, and counts it for whoever waits.
    pub fn mark(&mut self, wanted: &Arc<Tasks>) {
        for (id, task) in (0..).zip(&mut self.tasks) {
            let Some(task) = task else { continue };
            if !wanted.means(task.target, task.tag) {
                continue;
            }
            wanted.found.store(true, Relaxed);
            if wanted.action == Action::Query {
                continue;
            }
            if let Some((plan, _)) = &mut task.plan {
                plan.give_up();
            }
            wanted.begin();
            self.marked.push((id, wanted.clone()));
        }
    }

    /// A READ or WRITE whose unit has nothing to say about it.
    #[inline(always)]
    fn transfer(
        &mut self,
        id: u16,
        request: &Request,
        transfer: Transfer,
        buffers: &Buffers<'_>,
        place: Place,
        io: &mut Io<'_>,
    ) -> Step {
        let Some(seat) = self.seat(request) else {
            return answer(&place, Reply::Refused(response::BAD_TARGET), buffers, None, io);
        };
        let extent = match transfer.extent(seat.lun.blocks(), seat.lun.disk().limits.transfer_blocks) {
            Ok(extent) => extent,
            Err(sense) => return answer(&place, Reply::Check(sense), buffers, Some(&seat.lun), io),
        };
        let length = seat.lun.bytes_of(extent.blocks);
        let (operation, data, there) = match transfer.write {
            true => (Operation::Write, buffers.readable, buffers.data_out),
            false => (Operation::Read, buffers.writable, buffers.data_in),
        };
        if length != there || length > seat.lun.max_transfer() || length == 0 {
            let write = transfer.write;
            let asked = match write {
                true => Asked::Write { extent, through: false },
                false => Asked::Read { extent, through: false },
            };
            return self.operate(id, request, asked, buffers, place, io);
        }
        let offset = seat.lun.bytes_of(extent.lba);
        match io.submit(seat.channel, operation, offset, length, data, id, 0) {
            Submitted::Done(Ended::Ok) => {
                if !transfer.write && io.logs() {
                    io.guest_wrote(data);
                }
                let written = if transfer.write { 0 } else { length };
                let good = Reply::Good { transferred: length, written };
                answer(&place, good, buffers, Some(&seat.lun), io)
            }
            Submitted::Done(status) => {
                let sense = sense_of(status, transfer.write);
                answer(&place, Reply::Check(sense), buffers, Some(&seat.lun), io)
            }
            Submitted::Pending => {
                let logged = if !transfer.write && io.logs() { Some(data.into()) } else { None };
                let (lun, target) = (seat.lun.clone(), target_of(request));
                let (tag, offered, write) = (request.tag, buffers.both(), transfer.write);
                let task =
                    Task { target, tag, place, lun, offered, transferred: length, write, logged, plan: None };
                self.tasks[usize::from(id)] = Some(task);
                Step::Pending
            }
            Submitted::Busy => {
                let asked = match transfer.write {
                    true => Asked::Write { extent, through: false },
                    false => Asked::Read { extent, through: false },
                };
                self.operate(id, request, asked, buffers, place, io)
            }
        }
    }

    #[inline]
    fn seat(&self, request: &Request) -> Option<&Seat> {
        match request.address {
            Address::Unit { target, lun: 0 } => self.targets.get(usize::from(target))?.as_ref(),
            _ => None,
        }
    }

    /// Everything but plain reads and writes.
    #[cold]
    fn command(
        &mut self,
        id: u16,
        request: &Request,
        buffers: &Buffers<'_>,
        place: Place,
        io: &mut Io<'_>,
    ) -> Step {
        let mut data = std::mem::take(&mut self.data);
        let (outcome, lun) = self.outcome(request, buffers, &mut data);
        let step = match outcome {
            Err(refused) => answer(&place, Reply::Refused(refused), buffers, lun.as_deref(), io),
            Ok(Outcome::Good) => {
                // A parameter list was taken.
                let list = lun.as_ref().map_or(0, |lun| parameter_length(lun.disk(), &request.cdb) as u64);
                answer(&place, Reply::Good { transferred: list, written: 0 }, buffers, lun.as_deref(), io)
            }
            Ok(Outcome::CheckCondition(sense)) => {
                answer(&place, Reply::Check(sense), buffers, lun.as_deref(), io)
            }
            Ok(Outcome::Data) if data.len() as u64 > buffers.data_in => {
                answer(&place, Reply::Refused(response::OVERRUN), buffers, lun.as_deref(), io)
            }
            Ok(Outcome::Data) => {
                copy::copy_out(&data, buffers.writable, 0);
                if io.logs() {
                    io.guest_wrote(buffers.writable);
                }
                let length = data.len() as u64;
                let good = Reply::Good { transferred: length, written: length };
                answer(&place, good, buffers, lun.as_deref(), io)
            }
            Ok(Outcome::Operation(asked)) => self.operate(id, request, asked, buffers, place, io),
        };
        data.clear();
        data.shrink_to(4096);
        self.data = data;
        step
    }

    /// What the addressed unit says, if there is one; else what its target or the transport says.
    fn outcome(
        &self,
        request: &Request,
        buffers: &Buffers<'_>,
        data: &mut Vec<u8>,
    ) -> (Result<Outcome, u8>, Option<Arc<Lun>>) {
        match request.address {
            Address::WellKnown => {
                let present = (0..).zip(&self.targets).filter(|(_, seat)| seat.is_some());
                let list: Vec<[u8; 8]> = present.map(|(target, _)| Address::of(target)).collect();
                (Ok(nvlane_scsi::well_known(&request.cdb, &list, data)), None)
            }
            Address::Unit { target, lun } => match self.targets.get(usize::from(target)) {
                Some(Some(_)) if lun != 0 => (Ok(nvlane_scsi::absent(&request.cdb, true, data)), None),
                Some(Some(seat)) => (run(&seat.lun, &request.cdb, buffers, data), Some(seat.lun.clone())),
                _ => (Err(response::BAD_TARGET), None),
            },
            Address::Nowhere => (Err(response::BAD_TARGET), None),
        }
    }

    /// Begins an operation that takes several steps, or has to wait.
    fn operate(
        &mut self,
        id: u16,
        request: &Request,
        asked: Asked,
        buffers: &Buffers<'_>,
        place: Place,
        io: &mut Io<'_>,
    ) -> Step {
        let Some(seat) = self.seat(request).cloned() else {
            return answer(&place, Reply::Refused(response::BAD_TARGET), buffers, None, io);
        };
        let size = seat.lun.disk().block_size;
        let (out, into) = (asked.data_out(size), asked.data_in(size));
        if out > buffers.data_out || into > buffers.data_in {
            return answer(&place, Reply::Refused(response::OVERRUN), buffers, Some(&seat.lun), io);
        }
        let (from, length) = if into > 0 { (buffers.writable, into) } else { (buffers.readable, out) };
        let mut data = std::mem::take(&mut self.segments);
        data.clear();
        data.extend(part(from, 0, length as usize));
        let plan = Plan::new(&asked, &data, &seat.lun);
        let logged = (into > 0 && io.logs()).then(|| data.as_slice().into());
        self.segments = data;
        let plan = match plan {
            Ok(plan) => Some((Box::new(plan), seat.channel)),
            // No memory for a private buffer.
            Err(_) => {
                return answer(&place, Reply::Check(Sense::INTERNAL_FAILURE), buffers, Some(&seat.lun), io);
            }
        };
        // A parameter list, or the block of a WRITE SAME of zeroes, counts as transferred, too.
        let list = parameter_length(seat.lun.disk(), &request.cdb) as u64;
        let transferred = length.max(list.min(buffers.data_out));
        let (target, tag, offered) = (target_of(request), request.tag, buffers.both());
        let task =
            Task { target, tag, place, lun: seat.lun, offered, transferred, write: into == 0, logged, plan };
        self.tasks[usize::from(id)] = Some(task);
        self.advance(id, io)
    }

    fn advance(&mut self, id: u16, io: &mut Io<'_>) -> Step {
        let Some(task) = &mut self.tasks[usize::from(id)] else { return Step::Done { written: 0 } };
        let Some((plan, channel)) = &mut task.plan else { return Step::Pending };
        match plan.advance(id, *channel, &task.lun, io) {
            Progress::Pending => Step::Pending,
            Progress::Again => Step::Again,
            Progress::Ended(result) => self.finish(id, result, io),
        }
    }

    /// The last operation of a command has ended.
    #[inline]
    fn finish(&mut self, id: u16, result: Result<(), Sense>, io: &mut Io<'_>) -> Step {
        let Some(task) = self.tasks[usize::from(id)].take() else { return Step::Done { written: 0 } };
        if let Some(logged) = &task.logged {
            io.guest_wrote(logged);
        }
        let mut reply = match result {
            Ok(()) => {
                let written = if task.write { 0 } else { task.transferred };
                Reply::Good { transferred: task.transferred, written }
            }
            Err(sense) => Reply::Check(sense),
        };
        if !self.marked.is_empty() {
            if let Some(action) = self.unmark(id) {
                reply = Reply::Refused(action.response());
            }
        }
        write_answer(&task.place, reply, task.offered, Some(&task.lun), io)
    }

    /// Tells whoever waits for the chain, and what they wanted of it.
    #[cold]
    fn unmark(&mut self, id: u16) -> Option<Action> {
        let mut action = None;
        self.marked.retain(|(marked, wanted)| {
            if *marked != id {
                return true;
            }
            action = Some(wanted.action);
            wanted.end();
            false
        });
        action
    }
}

/// A command to a unit that is there.
fn run(lun: &Lun, cdb: &Cdb, buffers: &Buffers<'_>, data: &mut Vec<u8>) -> Result<Outcome, u8> {
    let length = parameter_length(lun.disk(), cdb);
    if length as u64 > buffers.data_out {
        return Err(response::OVERRUN);
    }
    let mut parameters = vec![0; length];
    copy::copy_in(buffers.readable, 0, &mut parameters);
    Ok(lun.execute(cdb, &parameters, data))
}

fn target_of(request: &Request) -> u8 {
    match request.address {
        Address::Unit { target, .. } => target,
        _ => u8::MAX,
    }
}

#[inline]
fn answer(place: &Place, reply: Reply, buffers: &Buffers<'_>, lun: Option<&Lun>, io: &mut Io<'_>) -> Step {
    write_answer(place, reply, buffers.both(), lun, io)
}

#[inline]
fn write_answer(place: &Place, reply: Reply, offered: u64, lun: Option<&Lun>, io: &mut Io<'_>) -> Step {
    let residual = |transferred| u32::try_from(offered.saturating_sub(transferred)).unwrap_or(u32::MAX);
    let mut answer =
        Response { response: response::OK, status: Status::Good, residual: residual(0), sense: None };
    let mut data = 0;
    match reply {
        Reply::Good { transferred, written } => {
            answer.residual = residual(transferred);
            data = written;
        }
        Reply::Check(sense) => {
            answer.status = Status::CheckCondition;
            answer.sense = Some((sense, lun.is_some_and(Lun::senses_in_descriptors)));
        }
        Reply::Refused(refused) => answer.response = refused,
    }
    place.answer(&answer, data, io)
}

impl Device for RequestQueue {
    #[inline]
    fn request(&mut self, chain: &Chain, segments: &mut Segments, io: &mut Io<'_>) -> Step {
        // Without room for a response there is no way to say anything: the guest gets its chain back.
        let Some(place) = Place::take(segments) else { return Step::Done { written: 0 } };
        let mut header = [0; REQUEST_HEADER];
        let whole = segments.take_header(&mut header);
        let buffers = Buffers {
            readable: segments.readable(),
            writable: segments.writable(),
            data_out: segments.readable_bytes() as u64,
            data_in: segments.writable_bytes() as u64,
        };
        if !whole {
            return answer(&place, Reply::Refused(response::FAILURE), &buffers, None, io);
        }
        let request = Request::parse(&header);
        if let Some(Ok(transfer)) = Transfer::decode(&request.cdb) {
            let plain = self.seat(&request).is_some_and(|seat| {
                seat.lun.is_plain(transfer.write) && !(transfer.through && seat.lun.disk().write_cache)
            });
            if plain {
                return self.transfer(chain.id, &request, transfer, &buffers, place, io);
            }
        }
        self.command(chain.id, &request, &buffers, place, io)
    }

    fn ended(&mut self, id: u16, _part: u16, status: Ended, io: &mut Io<'_>) -> Step {
        let Some(task) = &mut self.tasks[usize::from(id)] else { return Step::Pending };
        match &mut task.plan {
            Some((plan, _)) => {
                plan.ended(status);
                self.advance(id, io)
            }
            None => {
                let result = match status {
                    Ended::Ok => Ok(()),
                    status => Err(sense_of(status, task.write)),
                };
                self.finish(id, result, io)
            }
        }
    }

    fn resume(&mut self, id: u16, io: &mut Io<'_>) -> Step {
        self.advance(id, io)
    }

    fn keeps_order(&self) -> bool {
        false
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}
