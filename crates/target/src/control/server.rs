//! The JSON-RPC server: clients, their calls, and the calls that answer later.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, epoll};
use rustix::net::SocketFlags;

use super::client::{Call, Client, Ticket};
use super::core::Core;
use super::inbox::Broken;
use super::message::{Incoming, Reply, Request, RpcError, code, parse};
use super::method::{Finish, Outcome, Wait, Work};
use super::parameters::Parameters;
use super::saver::Saver;

/// More clients than this are turned away; SPDK takes 64.
const MAX_CLIENTS: usize = 256;
/// A batch holds so many requests at most: a reply to one waits for all.
const MAX_BATCH: usize = 1024;
/// As many slow calls run at once; more of them wait their turn.
const MAX_WORKERS: usize = 8;
/// How often something that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Numbers of the server's descriptors in the epoll set of the control thread.
pub const TOKENS: std::ops::Range<u64> = 1 << 62..1 << 63;
const LISTENER: u64 = TOKENS.start;
const WORKERS: u64 = LISTENER + 1;
const SAVER: u64 = LISTENER + 2;
const FIRST_CLIENT: u64 = LISTENER + 16;

/// Where worker threads put what they have done.
type Done = (mpsc::Sender<(u64, Finish)>, mpsc::Receiver<(u64, Finish)>);

pub struct Server {
    epoll: OwnedFd,
    listener: OwnedFd,
    clients: BTreeMap<u64, Client>,
    next_client: u64,
    works: HashMap<u64, (Ticket, bool)>,
    queue: VecDeque<(Ticket, bool, Work)>,
    next_work: u64,
    done: Done,
    raised: OwnedFd,
    waits: Vec<(Ticket, bool, Wait)>,
    saver: Option<Saver>,
    /// Replies that wait until the configuration they speak of is on stable storage.
    unsaved: Vec<(u64, Ticket, Reply)>,
    /// Clients that something has happened to since they were last settled.
    touched: BTreeSet<u64>,
}

impl Server {
    /// `epoll` is a duplicate of the control thread's.
    pub fn new(epoll: OwnedFd, listener: OwnedFd, saver: Option<Saver>) -> io::Result<Server> {
        let raised = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
        epoll::add(&epoll, &raised, epoll::EventData::new_u64(WORKERS), epoll::EventFlags::IN)?;
        if let Some(saver) = &saver {
            epoll::add(&epoll, saver, epoll::EventData::new_u64(SAVER), epoll::EventFlags::IN)?;
        }
        Ok(Server {
            epoll,
            listener,
            clients: BTreeMap::new(),
            next_client: FIRST_CLIENT,
            works: HashMap::new(),
            queue: VecDeque::new(),
            next_work: 0,
            done: mpsc::channel(),
            raised,
            waits: Vec::new(),
            saver,
            unsaved: Vec::new(),
            touched: BTreeSet::new(),
        })
    }

    /// When [`Server::tick`] wants to be called.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        (!self.waits.is_empty()).then(|| now + LOOK)
    }

    /// A descriptor of the server is ready.
    pub fn ready(&mut self, token: u64, core: &mut Core) {
        match token {
            LISTENER => self.accept(),
            WORKERS => self.works_done(core),
            SAVER => self.saved(),
            client => self.serve(client, core),
        }
        self.settle(core);
    }

    /// Looks at what is waited for.
    pub fn tick(&mut self, core: &mut Core) {
        let now = Instant::now();
        let mut index = 0;
        while index < self.waits.len() {
            let (_, _, wait) = &mut self.waits[index];
            let expired = wait.deadline.is_some_and(|deadline| deadline <= now);
            match (wait.poll)(core, expired) {
                Some(reply) => {
                    let (ticket, saves, _) = self.waits.swap_remove(index);
                    self.finish(ticket, saves, reply, core);
                }
                None => index += 1,
            }
        }
        self.settle(core);
    }

    fn accept(&mut self) {
        loop {
            let stream = match rustix::net::accept_with(
                &self.listener,
                SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            ) {
                Ok(stream) => stream,
                Err(rustix::io::Errno::AGAIN) => return,
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => continue,
                Err(errno) => {
                    log::warn!("a client of the RPC socket could not be accepted: {errno}");
                    return;
                }
            };
            if self.clients.len() >= MAX_CLIENTS {
                log::warn!("the RPC socket has {MAX_CLIENTS} clients already: another was turned away");
                continue;
            }
            let number = self.next_client;
            self.next_client += 1;
            let mut client = Client::new(stream);
            let added = epoll::add(
                &self.epoll,
                client.as_fd(),
                epoll::EventData::new_u64(number),
                epoll::EventFlags::IN,
            );
            client.interest = Some((true, false));
            match added {
                Ok(()) => drop(self.clients.insert(number, client)),
                Err(errno) => log::warn!("a client of the RPC socket cannot be watched: {errno}"),
            }
        }
    }

    fn serve(&mut self, number: u64, core: &mut Core) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        // One piece at a time: a client that never stops sending does not keep the others waiting.
        let broken = if client.served() { client.receive().is_err() } else { client.gone() };
        if broken {
            self.drop_client(number);
            return;
        }
        self.take_requests(number, core);
        self.touched.insert(number);
    }

    fn take_requests(&mut self, number: u64, core: &mut Core) {
        while let Some(client) = self.clients.get_mut(&number).filter(|client| client.room()) {
            match client.inbox.next_text() {
                Ok(None) => {
                    client.drained = true;
                    return;
                }
                Ok(Some(text)) => self.take(number, &text, core),
                Err(broken) => {
                    let why = match broken {
                        Broken::Syntax => "this is no JSON, or nested too deep; the connection is closed",
                        Broken::TooLong => "a request is longer than 1 MiB; the connection is closed",
                    };
                    client.refuse(code::PARSE_ERROR, "Parse error", why, None);
                    client.end();
                    return;
                }
            }
        }
    }

    fn take(&mut self, number: u64, text: &[u8], core: &mut Core) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        match parse(text) {
            Err(why) => {
                client.refuse(code::PARSE_ERROR, "Parse error", &why, None);
                client.end();
            }
            Ok(Incoming::Invalid(why)) => client.refuse(code::INVALID_REQUEST, "Invalid request", &why, None),
            Ok(Incoming::Call(request)) => self.call(number, request, None, core),
            Ok(Incoming::Batch(requests)) if requests.len() > MAX_BATCH => {
                let why = format!("a batch holds {MAX_BATCH} requests at most");
                client.refuse(code::INVALID_REQUEST, "Invalid request", &why, None);
            }
            Ok(Incoming::Batch(requests)) => {
                let batch = client.open_batch();
                for request in requests {
                    match (request, self.clients.get_mut(&number)) {
                        (_, None) => return,
                        (Ok(request), Some(_)) => self.call(number, request, Some(batch), core),
                        (Err(why), Some(client)) => {
                            client.refuse(code::INVALID_REQUEST, "Invalid request", &why, Some(batch));
                        }
                    }
                }
                if let Some(client) = self.clients.get_mut(&number) {
                    client.close_batch(batch);
                }
            }
        }
    }

    /// Requests of one client are carried out in their order: one that follows slow work waits for it.
    fn call(&mut self, number: u64, request: Request, batch: Option<u64>, core: &mut Core) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let ticket = client.ticket(number, request.id, batch);
        let call = (ticket, request.method, Parameters::new(request.params));
        if client.working {
            client.waiting.push_back(call);
        } else {
            self.dispatch(call, core);
        }
    }

    fn dispatch(&mut self, (ticket, method, parameters): Call, core: &mut Core) {
        let (outcome, saves) = core.call(&method, parameters);
        match outcome {
            Err(error) => {
                log::debug!("{method}: {error}");
                self.reply(&ticket, &Err(error));
            }
            Ok(Outcome::Now(value)) => self.finish(ticket, saves, Ok(value), core),
            Ok(Outcome::Work(work)) => {
                if let Some(client) = self.clients.get_mut(&ticket.client) {
                    client.working = true;
                }
                self.queue.push_back((ticket, saves, work));
                self.start_works();
            }
            Ok(Outcome::Wait(wait)) => self.waits.push((ticket, saves, wait)),
        }
    }

    /// Slow work for a client is done: what it asked for meanwhile comes next.
    fn resume(&mut self, number: u64, core: &mut Core) {
        if let Some(client) = self.clients.get_mut(&number) {
            client.working = false;
        }
        loop {
            let next = self.clients.get_mut(&number).filter(|client| !client.working);
            let Some(call) = next.and_then(|client| client.waiting.pop_front()) else { return };
            self.dispatch(call, core);
        }
    }

    fn start_works(&mut self) {
        while self.works.len() < MAX_WORKERS {
            let Some((ticket, saves, work)) = self.queue.pop_front() else { return };
            self.next_work += 1;
            let number = self.next_work;
            let sender = self.done.0.clone();
            let spawned = self.raised.try_clone().and_then(|raised| {
                std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                    // Without the receiver the program is about to end and nobody waits for the answer.
                    let _ = sender.send((number, work()));
                    let _ = rustix::io::write(&raised, &1u64.to_ne_bytes());
                })
            });
            match spawned {
                Ok(_) => drop(self.works.insert(number, (ticket, saves))),
                Err(error) => {
                    let errno = error.raw_os_error().unwrap_or(libc::EAGAIN);
                    let error = RpcError::errno(errno).with(format!("no thread for slow work: {error}"));
                    log::error!("{error}");
                    let _ = self.done.0.send((number, Box::new(|_| Err(error))));
                    self.works.insert(number, (ticket, saves));
                    let _ = rustix::io::write(&self.raised, &1u64.to_ne_bytes());
                }
            }
        }
    }

    fn works_done(&mut self, core: &mut Core) {
        let _ = rustix::io::read(&self.raised, &mut [0u8; 8]);
        while let Ok((number, finish)) = self.done.1.try_recv() {
            let reply = finish(core);
            if let Some((ticket, saves)) = self.works.remove(&number) {
                let client = ticket.client;
                self.finish(ticket, saves, reply, core);
                self.resume(client, core);
            }
        }
        self.start_works();
    }

    /// A call is done; if it changed the configuration, that goes to stable storage before the client hears of it.
    fn finish(&mut self, ticket: Ticket, saves: bool, reply: Reply, core: &mut Core) {
        match &mut self.saver {
            Some(saver) if saves && reply.is_ok() => {
                let generation = saver.save(core.configuration_text());
                self.unsaved.push((generation, ticket, reply));
            }
            _ => self.reply(&ticket, &reply),
        }
    }

    fn saved(&mut self) {
        let Some(saver) = &self.saver else { return };
        let (generation, failure) = saver.saved();
        let (ready, rest) =
            std::mem::take(&mut self.unsaved).into_iter().partition(|(needed, _, _)| *needed <= generation);
        self.unsaved = rest;
        for (_, ticket, reply) in ready as Vec<(u64, Ticket, Reply)> {
            let reply = match &failure {
                None => reply,
                Some((errno, why)) => Err(RpcError::errno(*errno)
                    .with(format!("the change is in force, but would not survive a restart: {why}"))),
            };
            self.reply(&ticket, &reply);
        }
    }

    fn reply(&mut self, ticket: &Ticket, reply: &Reply) {
        if let Some(client) = self.clients.get_mut(&ticket.client) {
            client.answer(ticket, reply);
            self.touched.insert(ticket.client);
        }
    }

    /// Sends what there is to send, goes on with requests that had to wait for room, and closes what is finished.
    fn settle(&mut self, core: &mut Core) {
        while let Some(number) = self.touched.pop_first() {
            let Some(client) = self.clients.get_mut(&number) else { continue };
            if client.send().is_err() {
                self.drop_client(number);
                continue;
            }
            if !client.drained && client.room() {
                self.take_requests(number, core);
                self.touched.insert(number);
                continue;
            }
            self.watch(number);
        }
    }

    fn watch(&mut self, number: u64) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        if client.finished() {
            self.drop_client(number);
            return;
        }
        let interest = (client.served(), client.unsent() > 0);
        if client.interest == Some(interest) {
            return;
        }
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN, interest.0);
        flags.set(epoll::EventFlags::OUT, interest.1);
        let changed = epoll::modify(&self.epoll, client.as_fd(), epoll::EventData::new_u64(number), flags);
        client.interest = Some(interest);
        if changed.is_err() {
            self.drop_client(number);
        }
    }

    fn drop_client(&mut self, number: u64) {
        // Closing takes it out of the epoll set: nobody holds a duplicate. Calls under way go on and answer nobody.
        self.clients.remove(&number);
    }
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
