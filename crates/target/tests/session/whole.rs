//! The whole target in this process, with reactors: what one front end does to itself is not felt by another.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nvlane_bdev::{Info, Null, Uuid};
use nvlane_target::reactor::PollPolicy;
use nvlane_target::target::{BlkOptions, Options, Socket, Target};
use nvlane_vhost_user::Message;
use nvlane_vhost_user::frontend::{Client, ClientError};

use super::guest::{Driver, Guest, negotiate};

/// A target with one controller, and a thread that is its control thread.
struct Whole {
    directory: tempfile::TempDir,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

fn control(path: &Path, stop: &AtomicBool, listener: UnixListener) {
    let mut target = Target::new(&Options { cpus: vec![0], poll: PollPolicy::Adaptive }).unwrap();
    let null = Null::new(Info::new("null", Uuid::random().unwrap(), 512), 8192).unwrap();
    target.add_bdev(Arc::new(null), Vec::new()).unwrap();
    let options = BlkOptions {
        name: "disk".into(),
        bdev: "null".into(),
        cpus: None,
        read_only: false,
        packed_ring: true,
    };
    let socket = Socket { listener, path: path.to_owned(), ours: true };
    target.create_blk_controller(options, socket).unwrap();
    while !stop.load(Ordering::Relaxed) {
        for source in target.events().wait(Some(Duration::from_millis(5))).unwrap() {
            target.handle(source);
        }
        target.check();
    }
}

impl Whole {
    fn start() -> Whole {
        let directory = tempfile::tempdir().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let path = directory.path().join("disk");
        let listener = UnixListener::bind(&path).unwrap();
        let flag = stop.clone();
        let thread = std::thread::spawn(move || control(&path, &flag, listener));
        Whole { directory, stop, thread: Some(thread) }
    }

    /// A guest with one ring that runs.
    fn connect(&self, packed: bool) -> (Client, Guest, Driver) {
        let mut client =
            Client::new(UnixStream::connect(self.directory.path().join("disk")).unwrap()).unwrap();
        client.deadline = Duration::from_secs(20);
        negotiate(&mut client, packed);
        let guest = Guest::new();
        client.call(&guest.table()).unwrap();
        let driver = Driver::new(0, packed);
        driver.start(&mut client, driver.base());
        (client, guest, driver)
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.take().unwrap().join().is_err() && !std::thread::panicking() {
            panic!("the control thread has died");
        }
    }
}

fn works(guest: &Guest, driver: &mut Driver) {
    for _ in 0..20 {
        driver.submit(guest);
    }
    driver.kick();
    assert_eq!(driver.wait(guest, 20).len(), 20);
}

fn ends(client: &mut Client) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        match client.receive() {
            Err(ClientError::Closed) => return,
            other => assert!(Instant::now() < end, "it is still connected: {other:?}"),
        }
    }
}

#[test]
fn memory_that_vanishes_under_a_reactor_costs_that_session_alone() {
    let whole = Whole::start();
    for packed in [false, true] {
        let (_decent, memory, mut driver) = whole.connect(packed);
        let (mut client, guest, mut other) = whole.connect(packed);
        works(&guest, &mut other);
        works(&memory, &mut driver);
        guest.memory.truncate(0).unwrap();
        other.kick();
        ends(&mut client);
        works(&memory, &mut driver);
    }
}

#[test]
fn many_front_ends_come_and_go_while_one_works() {
    let whole = Whole::start();
    let (_decent, memory, mut driver) = whole.connect(false);
    for round in 0..40 {
        let (mut client, guest, mut other) = whole.connect(round % 2 == 0);
        other.submit(&guest);
        other.kick();
        match round % 4 {
            0 => drop(client),
            1 => drop(client.stop_vring(0).unwrap()),
            2 => client.send_raw(&[1, 2, 3], &[]).unwrap(),
            _ => client.send(&Message::GetVringBase(0), false).unwrap(),
        }
        works(&memory, &mut driver);
    }
}
