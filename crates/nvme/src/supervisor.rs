//! The thread that looks after one controller: its admin queue, its events, its resets and its end.
//!
//! ```text
//!   enabled ── late twice, garbage, CSTS.CFS, asked ──> resetting ── CC.EN 0/1, else FLR ──> enabled
//!      │                                                    └── neither, or too often ──> failed
//!      └── all ones, SIGBUS, the system wants it ──> gone
//! ```

mod events;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use crate::admin::Admin;
use crate::bringup::{Identity, bring_up, find_namespaces};
use crate::controller::{Shared, State};
use crate::inbox::Message;
use crate::link::{Link, Stage};
use crate::queue::{Outcome, Rings};
use crate::quiesce::{Quiet, quiesce, shut_down};
use crate::spec::{Command, ControllerStatus, admin as opcode, register};
use crate::{Device, Event, NvmeError, Options};

/// A queue pair, as the supervisor knows it.
struct Queue {
    link: Arc<Link>,
    /// The device has the queues.
    exists: bool,
}

/// A controller that answers.
struct Live {
    device: Arc<dyn Device>,
    admin: Admin,
    identity: Identity,
    /// Memory of queues that the device would not delete: kept until it is quiet.
    kept: Vec<Box<dyn Send>>,
}

pub(crate) struct Supervisor {
    live: Option<Live>,
    queues: BTreeMap<u16, Queue>,
    shared: Arc<Shared>,
    options: Options,
    listener: Box<dyn Fn(Event) + Send>,
    tick: u32,
    /// Resets that followed each other closely, and when the last one was.
    resets: (u32, Option<Instant>),
}

impl Supervisor {
    pub fn new(
        device: Arc<dyn Device>,
        admin: Admin,
        identity: Identity,
        shared: Arc<Shared>,
        options: Options,
        listener: Box<dyn Fn(Event) + Send>,
    ) -> Self {
        let live = Some(Live { device, admin, identity, kept: Vec::new() });
        Self { live, queues: BTreeMap::new(), shared, options, listener, tick: 0, resets: (0, None) }
    }

    pub fn run(mut self) {
        let mut next_tick = Instant::now() + self.options.tick;
        loop {
            let wanted_back = self.wait(next_tick.saturating_duration_since(Instant::now()));
            if wanted_back {
                self.die(Outcome::Gone, None);
            }
            for message in self.shared.inbox.take() {
                if matches!(message, Message::Detach) {
                    return self.detach();
                }
                self.take(message);
            }
            self.look_for_events();
            if Instant::now() >= next_tick {
                next_tick = Instant::now() + self.options.tick;
                self.on_tick();
            }
        }
    }

    /// Waits for something to happen; true when the system wants the device back.
    fn wait(&self, limit: Duration) -> bool {
        let inbox = self.shared.inbox.event();
        let timeout =
            rustix::event::Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
        let mut fds = vec![PollFd::from_borrowed_fd(inbox, PollFlags::IN)];
        let mut removal = false;
        if let Some(live) = &self.live {
            fds.push(PollFd::from_borrowed_fd(live.admin.interrupt(), PollFlags::IN));
            if let Some(event) = live.device.removal() {
                fds.push(PollFd::from_borrowed_fd(event, PollFlags::IN));
                removal = true;
            }
        }
        // However it ends, everything is looked at.
        let _ = poll(&mut fds, Some(&timeout));
        removal && fds.last().is_some_and(|fd| fd.revents().contains(PollFlags::IN))
    }

    fn on_tick(&mut self) {
        self.tick = self.tick.wrapping_add(1);
        for queue in self.queues.values() {
            queue.link.set_tick(self.tick);
        }
        let Some(live) = &self.live else { return };
        let status = ControllerStatus(live.device.read32(register::CSTS));
        if status.is_absent() {
            self.die(Outcome::Gone, None);
        } else if status.is_fatal() {
            self.try_reset("the controller reports a fatal status (CSTS.CFS)");
        } else if !status.is_ready() {
            self.try_reset("the controller is not enabled any more: something has reset it");
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::TimedOut { queue, identifier } => self.abort(queue, identifier),
            Message::Stuck { queue } => {
                self.try_reset(&format!(
                    "a command on queue {queue} was not answered, nor was its abort of use"
                ));
            }
            Message::Garbage { queue, what } => self.garbage(queue, &what),
            Message::LetGo { queue, epoch } => self.revive(queue, epoch),
            Message::Open { link, reply } => self.open(link, &reply),
            Message::Close { queue, memory } => self.close(queue, memory),
            Message::Reset { reply } => {
                let result = self.reset("it was asked for");
                let _ = reply.send(result); // whoever asked may have given up
            }
            Message::Detach => {}
        }
    }

    /// Runs something on the admin queue. Silence or nonsense there means a reset.
    fn admin<T>(&mut self, run: impl FnOnce(&mut Live) -> Result<T, NvmeError>) -> Result<T, NvmeError> {
        let Some(live) = &mut self.live else { return Err(self.dead_error()) };
        let result = run(live);
        if let Err(error) = &result {
            match error.errno {
                libc::ENODEV => self.die(Outcome::Gone, None),
                libc::ETIMEDOUT | libc::EPROTO => {
                    self.try_reset(&error.message);
                }
                _ => {}
            }
        }
        result
    }

    fn dead_error(&self) -> NvmeError {
        let address = &self.shared.info.address;
        match self.shared.state() {
            State::Gone => NvmeError::gone(address),
            _ => NvmeError::new(libc::EIO, format!("the NVMe controller at {address} has failed; detach it")),
        }
    }

    fn abort(&mut self, queue: u16, identifier: u16) {
        if self.queues.get(&queue).is_none_or(|queue| !queue.exists) {
            return; // a reset came first
        }
        self.note(format!("command {identifier:#06x} on queue {queue} is late: it is aborted"));
        // Whether it was of use is seen by whether the command is answered now.
        let _ = self.admin(|live| live.admin.run("Abort", &Command::abort(queue, identifier)));
    }

    fn garbage(&mut self, queue: u16, what: &str) {
        if self.queues.get(&queue).is_some_and(|queue| queue.exists) {
            self.try_reset(what);
        }
    }

    fn open(&mut self, link: Arc<Link>, reply: &SyncSender<Result<(), NvmeError>>) {
        let number = link.queue;
        let result = self.admin(|live| create(live, &link)).map(|rings| {
            link.set_tick(self.tick);
            link.set(Stage::Up(rings));
            self.queues.insert(number, Queue { link, exists: true });
        });
        // Nobody waits any more: the queue pair was dropped, and its Close is in the inbox.
        let _ = reply.send(result);
    }

    /// A queue pair has let go of its old queues: it gets new ones.
    fn revive(&mut self, number: u16, epoch: u32) {
        let Some(queue) = self.queues.get(&number) else { return };
        // An answer to an older 'down' says nothing about what the queue pair has in its hands now.
        if queue.exists || self.live.is_none() || queue.link.epoch() != epoch {
            return;
        }
        let link = queue.link.clone();
        match self.admin(|live| create(live, &link)) {
            Ok(rings) => {
                link.set_tick(self.tick);
                link.set(Stage::Up(rings));
                if let Some(queue) = self.queues.get_mut(&number) {
                    queue.exists = true;
                }
            }
            Err(error) if self.live.is_some() && error.errno == libc::EIO => {
                self.die(Outcome::Aborted, Some(error));
            }
            Err(_) => {} // it was reset again, or is dead
        }
    }

    fn close(&mut self, number: u16, memory: Box<dyn Send>) {
        let Some(queue) = self.queues.remove(&number) else {
            self.shared.give_queue(number);
            return;
        };
        if queue.exists {
            let deleted = self.admin(|live| delete(live, number));
            if let (Some(vector), Some(live)) = (queue.link.vector, &self.live) {
                let _ = live.device.connect_vector(vector, None); // an interrupt that nobody hears does no harm
            }
            if let (Err(_), Some(live)) = (deleted, &mut self.live) {
                live.kept.push(Box::new((memory, queue.link)));
            }
        }
        self.shared.give_queue(number);
    }

    /// How it went is told to the listener.
    fn try_reset(&mut self, reason: &str) {
        let _ = self.reset(reason);
    }

    /// Resets the controller, by CC.EN and, where that does not help, by a function level reset.
    fn reset(&mut self, reason: &str) -> Result<(), NvmeError> {
        if self.live.is_none() {
            return Err(self.dead_error());
        }
        self.shared.set_state(State::Resetting);
        if let Some(live) = &mut self.live {
            for queue in self.queues.values_mut() {
                queue.exists = false;
                // Rings that were not picked up are still the device's.
                live.kept.push(Box::new(queue.link.set(Stage::Down)));
            }
        }
        if self.too_often() {
            let why = format!(
                "the NVMe controller at {} was reset {} times in a row and is given up; the last reason: {reason}",
                self.shared.info.address, self.options.resets
            );
            let error = NvmeError::new(libc::EIO, why);
            self.die(Outcome::Aborted, Some(error.clone()));
            return Err(error);
        }
        match self.restart() {
            Ok(()) => {
                self.shared.set_state(State::Enabled);
                (self.listener)(Event::Reset { reason: reason.to_owned() });
                Ok(())
            }
            Err(error) => {
                let outcome = if error.is_gone() { Outcome::Gone } else { Outcome::Aborted };
                self.die(outcome, Some(error.clone()));
                Err(error)
            }
        }
    }

    fn too_often(&mut self) -> bool {
        let now = Instant::now();
        let close = self.resets.1.is_some_and(|last| now.duration_since(last) < self.options.io_timeout);
        self.resets = (if close { self.resets.0 + 1 } else { 1 }, Some(now));
        self.resets.0 > self.options.resets
    }

    fn restart(&mut self) -> Result<(), NvmeError> {
        let Some(live) = &mut self.live else { return Err(self.dead_error()) };
        let address = live.device.address().to_owned();
        match quiesce(&*live.device, &self.options)? {
            Quiet::Gone => return Err(NvmeError::gone(&address)),
            Quiet::Isolated => {
                let why =
                    format!("{address}: neither CC.EN nor a function level reset stops it; it is cut off");
                return Err(NvmeError::new(libc::EIO, why));
            }
            Quiet::Disabled | Quiet::Reset => live.kept.clear(),
        }
        let identity = match bring_up(&live.device, &mut live.admin, &self.options) {
            Err(error) if !error.is_gone() => {
                // Once more, from further back.
                live.device.reset()?;
                bring_up(&live.device, &mut live.admin, &self.options)?
            }
            other => other?,
        };
        if identity.controller.serial != self.shared.info.identify.serial {
            let why = format!(
                "{address}: serial number {:?} has become {:?}: another drive",
                self.shared.info.identify.serial, identity.controller.serial
            );
            return Err(NvmeError::new(libc::ENODEV, why));
        }
        let found = find_namespaces(&mut live.admin, &identity)?;
        live.identity = identity;
        self.compare(found);
        Ok(())
    }

    /// The end of a device, by itself. Everything fails from now on, and the device is let go as soon as the queue
    /// pairs have heard.
    fn die(&mut self, outcome: Outcome, error: Option<NvmeError>) {
        let Some(live) = self.live.take() else { return };
        self.shared.set_state(if outcome == Outcome::Gone { State::Gone } else { State::Failed });
        if quiesce(&*live.device, &self.options).is_err() {
            // It may still write. So nothing is completed and no memory let go: the requests hang, until the process
            // ends and the kernel takes the device from it.
            self.note(format!("{}: it cannot be stopped, so its requests stay open", live.device.address()));
            std::mem::forget((live.admin, live.kept));
        } else {
            for queue in self.queues.values_mut() {
                queue.exists = false;
                queue.link.set(Stage::Dead(outcome));
            }
        }
        for namespace in self.shared.namespaces.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            namespace.set_gone();
        }
        (self.listener)(match error {
            Some(error) if outcome != Outcome::Gone => Event::Failed(error),
            _ => Event::Gone,
        });
    }

    fn detach(mut self) {
        let queues: Vec<u16> =
            self.queues.iter().filter(|(_, queue)| queue.exists).map(|(&number, _)| number).collect();
        for number in queues {
            // A queue that is not deleted ends with the controller.
            let _ = self.admin(|live| delete(live, number));
        }
        if let Some(live) = &self.live {
            let limit = self.options.shutdown.max(live.identity.controller.shutdown_time);
            if let Err(error) = shut_down(&*live.device, limit) {
                self.note(error.message);
            }
        }
        let Some(live) = self.live.take() else { return };
        if quiesce(&*live.device, &self.options).is_err() {
            std::mem::forget(live.admin);
        }
        let _ = live.device.set_bus_master(false); // closing the device does it too
        self.shared.set_state(State::Detached);
        for queue in self.queues.values() {
            queue.link.set(Stage::Dead(Outcome::Gone));
        }
    }

    fn note(&self, text: String) {
        (self.listener)(Event::Note(text));
    }
}

/// Makes a completion queue and its submission queue, in this order (3.1.3.1 of the PCIe transport).
fn create(live: &mut Live, link: &Link) -> Result<Rings, NvmeError> {
    let entries = link.entries;
    let shadows = live.identity.shadows.as_ref();
    let rings = Rings::new(live.device.clone(), link.queue, entries, live.identity.stride(), shadows)?;
    let command =
        Command::create_completion_queue(link.queue, entries, rings.completions_iova(), link.vector);
    if let Err(error) = live.admin.run("Create I/O Completion Queue", &command) {
        if error.errno != libc::EIO {
            live.kept.push(Box::new(rings)); // no answer is no refusal
        }
        return Err(error);
    }
    let command = Command::create_submission_queue(link.queue, entries, rings.submissions_iova());
    if let Err(error) = live.admin.run("Create I/O Submission Queue", &command) {
        let undo = Command::delete_queue(opcode::DELETE_CQ, link.queue);
        if error.errno != libc::EIO || live.admin.run("Delete I/O Completion Queue", &undo).is_err() {
            live.kept.push(Box::new(rings));
        }
        return Err(error);
    }
    Ok(rings)
}

fn delete(live: &mut Live, queue: u16) -> Result<(), NvmeError> {
    live.admin.run("Delete I/O Submission Queue", &Command::delete_queue(opcode::DELETE_SQ, queue))?;
    live.admin.run("Delete I/O Completion Queue", &Command::delete_queue(opcode::DELETE_CQ, queue))?;
    Ok(())
}
