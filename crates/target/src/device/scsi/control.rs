//! The control queue (virtio 1.3, 5.6.6.2): task management, and asynchronous notifications, of which a disk has none.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use nvlane_bdev::{Status, ticks};
use nvlane_memory::{Segment, copy};
use nvlane_ring::{Chain, Segments};
use nvlane_scsi::Attention;

use super::super::{Device, Io, Step};
use super::TARGETS;
use super::lun::Lun;
use super::request::RequestQueue;
use super::tasks::{Action, Tasks, Ticket};
use super::wire::{Address, CONTROL, Control, Function, response};
use crate::reactor::{QueueId, WeakReactors, tick_rate};

/// How long a function waits for tasks that do not end. Linux waits for the answer for ever, and meanwhile no unit of
/// the host is served; when it hears that the function failed, it gives up the one unit and goes on with the others.
const SECONDS: u64 = 30;

/// A function that waits.
struct Waiting {
    id: u16,
    place: Box<[Segment]>,
    function: Function,
    target: Option<u8>,
    tasks: Arc<Tasks>,
    /// The tasks have ended; whether each queue has published them is being asked.
    settling: bool,
    deadline: u64,
}

pub(super) struct ControlQueue {
    targets: [Option<Arc<Lun>>; TARGETS],
    reactors: WeakReactors,
    /// The session's request queues.
    queues: Vec<QueueId>,
    waiting: VecDeque<Waiting>,
}

impl ControlQueue {
    pub fn new(targets: [Option<Arc<Lun>>; TARGETS], reactors: WeakReactors) -> ControlQueue {
        ControlQueue { targets, reactors, queues: Vec::new(), waiting: VecDeque::new() }
    }

    pub fn set_target(&mut self, number: u8, lun: Option<Arc<Lun>>) {
        self.targets[usize::from(number)] = lun;
    }

    pub fn set_queues(&mut self, queues: Vec<QueueId>) {
        self.queues = queues;
    }

    fn manage(
        &mut self,
        id: u16,
        function: Function,
        address: Address,
        tag: u64,
        place: &[Segment],
        io: &mut Io<'_>,
    ) -> Step {
        let target = match address {
            Address::Unit { target, lun } => match self.targets.get(usize::from(target)) {
                Some(Some(_)) if lun == 0 => target,
                Some(Some(_)) => return reply(place, response::INCORRECT_LUN, io),
                _ => return reply(place, response::BAD_TARGET, io),
            },
            _ => return reply(place, response::BAD_TARGET, io),
        };
        let (action, tag) = match function {
            // No unit ever has an auto contingent allegiance (NORMACA is zero).
            Function::ClearAca => return reply(place, response::FUNCTION_REJECTED, io),
            Function::AbortTask => (Action::Abort, Some(tag)),
            Function::QueryTask => (Action::Query, Some(tag)),
            // There is one task set a nexus, and the session is the nexus.
            Function::AbortTaskSet | Function::ClearTaskSet => (Action::Abort, None),
            Function::QueryTaskSet => (Action::Query, None),
            Function::UnitReset | Function::NexusReset => (Action::Reset, None),
        };
        let tasks = Tasks::new(action, Some(target), tag);
        self.ask(&tasks, true);
        let deadline = ticks::now().wrapping_add(SECONDS * tick_rate());
        let (place, target) = (place.into(), Some(target));
        self.waiting.push_back(Waiting { id, place, function, target, tasks, settling: false, deadline });
        Step::Again
    }

    /// Visits every request queue: to mark the tasks, or only to have been there after all that came before.
    fn ask(&self, tasks: &Arc<Tasks>, mark: bool) {
        let Some(reactors) = self.reactors.upgrade() else { return };
        for &queue in &self.queues {
            let ticket = Ticket::new(tasks);
            let visit = move |device: &mut dyn Any, _: &mut Io<'_>| {
                if let (true, Some(queue)) = (mark, device.downcast_mut::<RequestQueue>()) {
                    queue.mark(ticket.tasks());
                }
                drop(ticket);
            };
            reactors.with_device(queue, Box::new(visit));
        }
    }

    /// Tasks and queues have answered.
    fn settled(&self, waiting: &Waiting) -> u8 {
        let lun = waiting.target.and_then(|target| self.targets[usize::from(target)].as_ref());
        match waiting.function {
            Function::UnitReset | Function::NexusReset => {
                let why = match waiting.function {
                    Function::UnitReset => Attention::UnitReset,
                    _ => Attention::NexusLost,
                };
                if let Some(lun) = lun {
                    lun.reset(why);
                }
                response::OK
            }
            Function::QueryTask | Function::QueryTaskSet if waiting.tasks.found.load(Relaxed) => {
                response::FUNCTION_SUCCEEDED
            }
            _ => response::OK,
        }
    }
}

impl Device for ControlQueue {
    fn request(&mut self, chain: &Chain, segments: &mut Segments, io: &mut Io<'_>) -> Step {
        let mut bytes = [0; CONTROL];
        let length = copy::copy_in(segments.readable(), 0, &mut bytes);
        let place = segments.writable();
        match Control::parse(&bytes[..length]) {
            Some(Control::Task { function, address, tag }) => {
                self.manage(chain.id, function, address, tag, place, io)
            }
            Some(Control::UnknownTask) => reply(place, response::FUNCTION_REJECTED, io),
            Some(Control::Notification { address }) => {
                let there = match address {
                    Address::Unit { target, lun: 0 } => {
                        self.targets.get(usize::from(target)).is_some_and(Option::is_some)
                    }
                    _ => false,
                };
                // No event of the requested ones is supported.
                let mut bytes = [0; 5];
                bytes[4] = if there { response::OK } else { response::BAD_TARGET };
                write(place, &bytes, io)
            }
            // The response of an unknown type is its last byte, if it is anywhere.
            None => reply(place, response::FAILURE, io),
        }
    }

    fn ended(&mut self, _id: u16, _part: u16, _status: Status, _io: &mut Io<'_>) -> Step {
        Step::Pending
    }

    fn resume(&mut self, id: u16, io: &mut Io<'_>) -> Step {
        let Some(index) = self.waiting.iter().position(|waiting| waiting.id == id) else {
            return Step::Done { written: 0 };
        };
        let waiting = &mut self.waiting[index];
        let late = ticks::now().wrapping_sub(waiting.deadline) < u64::MAX / 2;
        if !waiting.tasks.is_over() && !late {
            return Step::Again;
        }
        if !late && !waiting.settling && waiting.tasks.action != Action::Query {
            waiting.settling = true;
            let tasks = waiting.tasks.clone();
            self.ask(&tasks, false);
            return Step::Again;
        }
        let Some(waiting) = self.waiting.remove(index) else { return Step::Done { written: 0 } };
        let code = if waiting.tasks.is_over() { self.settled(&waiting) } else { response::FAILURE };
        reply(&waiting.place, code, io)
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

fn reply(place: &[Segment], code: u8, io: &mut Io<'_>) -> Step {
    write(place, &[code], io)
}

fn write(place: &[Segment], bytes: &[u8], io: &mut Io<'_>) -> Step {
    let written = copy::copy_out(bytes, place, 0);
    if io.logs() {
        io.guest_wrote(place);
    }
    Step::Done { written: written as u32 }
}
