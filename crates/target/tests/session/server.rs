//! A session with a device that does nothing, on a thread of its own, and the guest memory to talk to it.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use nvlane_ring::{Chain, Ring, Segments};
use nvlane_target::session::{Interest, Owner, QueueParts, Session};
use nvlane_vhost_user::features;
use nvlane_vhost_user::frontend::{Client, notify};

pub const QUEUES: u16 = 4;
/// Of 60 bytes, as virtio-blk's configuration space has.
pub const CONFIG: [u8; 60] = [7; 60];

/// The device: every request is completed with one byte written, or held back while `hold` is set.
pub struct Null {
    pub queues: HashMap<u16, QueueParts>,
    pub hold: bool,
    pub held: Vec<(u16, Chain)>,
    returning: HashSet<u16>,
    /// Requests taken off the rings, ever: queue and id.
    pub taken: Vec<(u16, u16)>,
    pub config_written: Vec<(u32, Vec<u8>, bool)>,
    pub quiet: bool,
    pub dead: bool,
    /// What the last ring said when it broke.
    pub broken: Option<String>,
    segments: Segments,
}

impl Default for Null {
    fn default() -> Null {
        Null {
            queues: HashMap::new(),
            hold: false,
            held: Vec::new(),
            returning: HashSet::new(),
            taken: Vec::new(),
            config_written: Vec::new(),
            quiet: true,
            dead: false,
            broken: None,
            segments: Segments::new(),
        }
    }
}

impl Null {
    /// One look at each ring, as a reactor does it.
    pub fn serve(&mut self) {
        let Null { queues, returning, held, segments, taken, .. } = self;
        for (&number, parts) in queues.iter_mut() {
            while !returning.contains(&number) {
                match parts.ring.pop(segments) {
                    Ok(Some(chain)) => {
                        taken.push((number, chain.id));
                        if self.hold {
                            held.push((number, chain));
                        } else {
                            nvlane_memory::copy::zero(segments.writable(), 0, 1);
                            parts.ring.complete(chain, 1);
                        }
                    }
                    Ok(None) => break,
                    Err(error) => {
                        self.broken = Some(error.to_string());
                        break;
                    }
                }
            }
            if !self.hold {
                for (_, chain) in held.extract_if_queue(number) {
                    parts.ring.complete(chain, 1);
                }
            }
            if parts.ring.publish() {
                if let Some(call) = &parts.call {
                    notify(call).unwrap();
                }
            }
        }
    }

    /// Completes the oldest requests of a queue that are held, shown to the guest or not.
    pub fn complete(&mut self, queue: u16, count: usize, publish: bool) {
        let parts = self.queues.get_mut(&queue).unwrap();
        let all = self.held.extract_if_queue(queue);
        for (index, (_, chain)) in all.into_iter().enumerate() {
            match index < count {
                true => parts.ring.complete(chain, 1),
                false => self.held.push((queue, chain)),
            }
        }
        if publish {
            parts.ring.publish();
        }
    }

    /// Hands back what is drained.
    pub fn give_back(&mut self, session: &mut Session) {
        let drained = |queue: &u16| !self.held.iter().any(|(held, _)| held == queue);
        let ready: Vec<u16> = self.returning.iter().copied().filter(drained).collect();
        for queue in ready {
            self.returning.remove(&queue);
            if let Some(parts) = self.queues.remove(&queue) {
                session.detached(queue, parts.ring.base().0, self);
            }
        }
    }
}

trait ExtractQueue {
    fn extract_if_queue(&mut self, queue: u16) -> Vec<(u16, Chain)>;
}

impl ExtractQueue for Vec<(u16, Chain)> {
    fn extract_if_queue(&mut self, queue: u16) -> Vec<(u16, Chain)> {
        let (taken, left) = self.drain(..).partition(|(held, _)| *held == queue);
        *self = left;
        taken
    }
}

impl Owner for Null {
    fn features(&self) -> u64 {
        features::RING_PACKED | 1 << 6
    }
    fn queues(&self) -> u16 {
        QUEUES
    }
    fn config(&self) -> Vec<u8> {
        CONFIG.to_vec()
    }
    fn set_config(&mut self, offset: u32, bytes: &[u8], migration: bool) -> bool {
        self.config_written.push((offset, bytes.to_vec(), migration));
        offset == 32 && bytes.len() == 1
    }
    fn attach(&mut self, queue: u16, parts: QueueParts) -> Result<(), String> {
        if let Some(call) = &parts.call {
            notify(call).map_err(|error| error.to_string())?;
        }
        assert!(self.queues.insert(queue, parts).is_none(), "queue {queue} is attached twice");
        Ok(())
    }
    fn detach(&mut self, queue: u16) {
        assert!(self.queues.contains_key(&queue), "queue {queue} is not attached");
        assert!(self.returning.insert(queue), "queue {queue} is asked back twice");
    }
    fn set_call(&mut self, queue: u16, call: Option<OwnedFd>) {
        self.queues.get_mut(&queue).unwrap().call = call;
    }
    fn set_err(&mut self, queue: u16, err: Option<OwnedFd>) {
        self.queues.get_mut(&queue).unwrap().err = err;
    }
    fn is_quiet(&self) -> bool {
        self.quiet
    }
}

type Visit = Box<dyn FnOnce(&mut Session, &mut Null) + Send>;

/// A session that runs until it is dropped.
pub struct Server {
    visits: Option<Sender<Visit>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// A server and a client that is connected to it.
    pub fn start() -> (Server, Client) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (visits, visit) = channel::<Visit>();
        let mut session = Session::new(ours, QUEUES).unwrap();
        let thread = std::thread::spawn(move || {
            let mut null = Null::default();
            loop {
                match visit.recv_timeout(Duration::from_micros(200)) {
                    Ok(visit) => visit(&mut session, &mut null),
                    Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
                    Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return,
                }
                if null.dead {
                    return;
                }
                if session.interest() != Interest::Nothing {
                    session.ready(&mut null);
                }
                null.serve();
                null.give_back(&mut session);
            }
        });
        let mut client = Client::new(theirs).unwrap();
        client.deadline = Duration::from_secs(20);
        (Server { visits: Some(visits), thread: Some(thread) }, client)
    }

    /// Runs something on the session's thread.
    pub fn visit<T: Send + 'static>(
        &self,
        visit: impl FnOnce(&mut Session, &mut Null) -> T + Send + 'static,
    ) -> T {
        let (answer, answered) = channel();
        let visit = Box::new(move |session: &mut Session, null: &mut Null| {
            let _ = answer.send(visit(session, null));
        });
        self.visits.as_ref().unwrap().send(visit).unwrap();
        answered.recv().expect("the session's thread has died")
    }

    /// The target dies: nothing that it had in flight ends.
    pub fn crash(self) {
        self.die(|_, _| ());
    }

    /// It does one thing more, and dies before it does any other.
    pub fn die(mut self, last: impl FnOnce(&mut Session, &mut Null) + Send + 'static) {
        let visit: Visit = Box::new(move |session, null| {
            last(session, null);
            null.dead = true;
        });
        self.visits.as_ref().unwrap().send(visit).unwrap();
        self.thread.take().unwrap().join().expect("the session's thread has died");
    }

    /// Waits until something is true.
    pub fn wait(&self, what: &str, until: impl Fn(&mut Session, &mut Null) -> bool + Send + Clone + 'static) {
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while !self.visit(until.clone()) {
            assert!(std::time::Instant::now() < end, "{what} did not come about");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.visits = None;
        let Some(thread) = self.thread.take() else { return };
        if thread.join().is_err() && !std::thread::panicking() {
            panic!("the session's thread has died");
        }
    }
}

/// Descriptors of this process: what must not grow.
pub fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[allow(dead_code)]
pub fn duplicate(fd: impl AsFd) -> OwnedFd {
    fd.as_fd().try_clone_to_owned().unwrap()
}
