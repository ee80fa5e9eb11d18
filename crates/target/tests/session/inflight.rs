//! A target that dies and comes back: what was in flight is done again, once.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};

use nvlane_vhost_user::frontend::Client;
use nvlane_vhost_user::{Inflight, Message};
use proptest::prelude::*;

use super::guest::{Driver, Guest, SIZE, negotiate};
use super::server::{QUEUES, Server};

/// What outlives the target: the guest, its ring and the record.
struct Outliving {
    guest: Guest,
    driver: Driver,
    record: Option<(Inflight, OwnedFd)>,
}

impl Outliving {
    fn new(packed: bool) -> Outliving {
        Outliving { guest: Guest::new(), driver: Driver::new(0, packed), record: None }
    }

    /// A new target, connected as QEMU reconnects. It is told the base that QEMU knows: the used index of a split ring,
    /// and of a packed ring whatever it last heard.
    fn connect(&mut self, hold: bool) -> (Server, Client) {
        let (server, mut client) = Server::start();
        server.visit(move |_, null| null.hold = hold);
        negotiate(&mut client, self.driver.packed);
        client.call(&self.guest.table()).unwrap();
        let record = self.record.get_or_insert_with(|| client.get_inflight(QUEUES, SIZE).unwrap());
        client.set_inflight(record.0, record.1.as_fd()).unwrap();
        let base = match self.driver.packed {
            true => self.driver.base(),
            false => u32::from(u16::from_le_bytes(self.guest.read(0x8000 + 2))),
        };
        self.driver.start(&mut client, base);
        server.wait("the ring", |_, null| null.queues.len() == 1);
        (server, client)
    }
}

#[test]
fn what_was_in_flight_is_done_again_in_order() {
    for packed in [false, true] {
        let mut world = Outliving::new(packed);
        let (server, client) = world.connect(true);
        let ids: Vec<u16> = (0..8).map(|_| world.driver.submit(&world.guest)).collect();
        server.wait("all", |_, null| null.held.len() == 8);
        // Three are completed and seen, two completed and not shown when the target dies.
        server.visit(|_, null| null.complete(0, 3, true));
        assert_eq!(world.driver.collect(&world.guest), ids[..3]);
        server.die(|_, null| null.complete(0, 2, false));
        drop(client);

        let more = world.driver.submit(&world.guest);
        let (server, client) = world.connect(true);
        server.wait("the rest", |_, null| null.held.len() == 6);
        let taken: Vec<u16> = server.visit(|_, null| null.taken.iter().map(|(_, id)| *id).collect());
        // What was not shown is done again, oldest first; what was shown is not.
        assert_eq!(taken, [&ids[3..], &[more]].concat());
        server.visit(|_, null| null.hold = false);
        let mut back = world.driver.wait(&world.guest, 6);
        back.sort_unstable();
        let mut expected = ids[3..].to_vec();
        expected.push(more);
        expected.sort_unstable();
        assert_eq!(back, expected);
        drop(client);
    }
}

#[test]
fn a_record_of_nonsense_breaks_the_ring_only() {
    for packed in [false, true] {
        let mut world = Outliving::new(packed);
        let (server, client) = world.connect(true);
        for _ in 0..8 {
            world.driver.submit(&world.guest);
        }
        server.wait("all", |_, null| null.held.len() == 8);
        server.crash();
        drop(client);
        let (inflight, file) = world.record.take().unwrap();
        let scribble = std::fs::File::from(file.try_clone().unwrap());
        std::os::unix::fs::FileExt::write_all_at(&scribble, &[0xa5; 1024], 0).unwrap();
        let (_server, mut client) = Server::start();
        negotiate(&mut client, packed);
        client.call(&world.guest.table()).unwrap();
        client.set_inflight(inflight, file.as_fd()).unwrap();
        let driver = &world.driver;
        let (kick, call) = (Some(driver.kick.as_fd()), Some(driver.call.as_fd()));
        let started = client.start_vring(u32::from(SIZE), driver.base(), driver.address(), kick, call);
        assert!(started.is_err(), "a ring was started from a record of nonsense");
        assert_eq!(client.get_queue_num().unwrap(), u64::from(QUEUES));
    }
}

#[test]
fn records_of_any_size_are_checked() {
    let (_server, mut client) = Server::start();
    negotiate(&mut client, false);
    for (queues, size) in [(0u16, 64u16), (QUEUES + 1, 64), (1, 0), (1, 40000), (u16::MAX, u16::MAX)] {
        assert!(client.get_inflight(queues, size).is_err(), "{queues} queues of {size}");
    }
    let (good, file) = client.get_inflight(QUEUES, SIZE).unwrap();
    for bad in [
        Inflight { mmap_size: good.mmap_size - 1, ..good },
        Inflight { mmap_size: 0, ..good },
        Inflight { mmap_offset: 1 << 40, ..good },
        Inflight { mmap_offset: u64::MAX, ..good },
        Inflight { num_queues: 0, ..good },
        Inflight { num_queues: u16::MAX, queue_size: 32768, mmap_size: u64::MAX, ..good },
    ] {
        assert!(client.set_inflight(bad, file.as_fd()).is_err(), "{bad:?}");
    }
    client.set_inflight(good, file.as_fd()).unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    assert!(client.call(&Message::SetInflightFd(good, null.into())).is_err());
}

#[test]
fn a_new_session_waits_until_the_old_one_has_drained() {
    let mut world = Outliving::new(false);
    let (server, client) = world.connect(false);
    drop(client);
    server.wait("the end", |session, _| session.is_finished());
    drop(server);
    let (server, mut client) = Server::start();
    server.visit(|_, null| null.quiet = false);
    negotiate(&mut client, false);
    client.call(&world.guest.table()).unwrap();
    let (inflight, file) = world.record.take().unwrap();
    client.deadline = std::time::Duration::from_millis(50);
    let refused = client.set_inflight(inflight, file.as_fd());
    assert!(matches!(refused, Err(nvlane_vhost_user::frontend::ClientError::Silent { .. })));
    server.visit(|session, null| {
        null.quiet = true;
        session.go_on(null);
    });
    client.deadline = std::time::Duration::from_secs(20);
    assert!(client.receive().unwrap().is_some());
}

#[derive(Clone, Debug)]
enum Deed {
    Submit(usize),
    Complete(usize),
    /// Completed, and the target dies before it is shown.
    CompleteAndDie(usize),
    Die,
    /// The front end stops the ring and starts it again.
    Restart,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (1usize..12).prop_map(Deed::Submit),
        4 => (1usize..12).prop_map(Deed::Complete),
        1 => (1usize..12).prop_map(Deed::CompleteAndDie),
        1 => Just(Deed::Die),
        1 => Just(Deed::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order, each buffer comes back exactly once (the driver panics over one that comes
    /// back twice).
    #[test]
    fn nothing_is_lost_and_nothing_comes_twice(packed: bool, deeds in proptest::collection::vec(deed(), 1..24)) {
        let mut world = Outliving::new(packed);
        let (mut server, mut client) = world.connect(true);
        let mut out = BTreeSet::new();
        for deed in deeds {
            match deed {
                Deed::Submit(count) => {
                    for _ in 0..count.min(usize::from(SIZE) - world.driver.out()) {
                        out.insert(world.driver.submit(&world.guest));
                    }
                }
                Deed::Complete(count) => server.visit(move |_, null| {
                    null.serve();
                    null.complete(0, count, true);
                }),
                Deed::CompleteAndDie(count) => {
                    server.die(move |_, null| {
                        null.serve();
                        null.complete(0, count, false);
                    });
                    (server, client) = world.connect(true);
                }
                Deed::Die => {
                    server.visit(|_, null| null.serve());
                    server.crash();
                    (server, client) = world.connect(true);
                }
                Deed::Restart => {
                    server.visit(|_, null| null.hold = false);
                    let base = client.stop_vring(0).unwrap();
                    server.visit(|_, null| null.hold = true);
                    world.driver.start(&mut client, base);
                }
            }
            for id in world.driver.collect(&world.guest) {
                prop_assert!(out.remove(&id));
            }
        }
        server.visit(|_, null| null.hold = false);
        for id in world.driver.wait(&world.guest, out.len()) {
            prop_assert!(out.remove(&id));
        }
        prop_assert!(out.is_empty());
        drop(client);
    }
}
