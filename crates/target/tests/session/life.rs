//! What a decent front end does.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nvlane_vhost_user::features::{self, protocol};
use nvlane_vhost_user::frontend::{Client, ClientError, SharedMemory, wait_notified};
use nvlane_vhost_user::{Connection, Message, Received, Region, Request, VringState};

use super::guest::{Driver, GUEST_ADDRESS, Guest, MEMORY, SIZE, USER_ADDRESS, negotiate};
use super::server::{CONFIG, QUEUES, Server, duplicate, open_descriptors};

/// A guest with one ring that runs.
fn running(packed: bool) -> (Server, Client, Guest, Driver) {
    let (server, mut client) = Server::start();
    negotiate(&mut client, packed);
    let guest = Guest::new();
    client.call(&guest.table()).unwrap();
    let driver = Driver::new(0, packed);
    driver.start(&mut client, driver.base());
    (server, client, guest, driver)
}

#[test]
fn requests_go_through_both_kinds_of_ring() {
    for packed in [false, true] {
        let (_server, _client, guest, mut driver) = running(packed);
        for round in 1..200 {
            let count = round % usize::from(SIZE) + 1;
            for _ in 0..count {
                driver.submit(&guest);
            }
            driver.kick();
            for id in driver.wait(&guest, count) {
                assert_eq!(guest.read::<2>(driver.buffer(id)), [0, 0xff], "one byte was to be written");
            }
        }
    }
}

#[test]
fn a_ring_stops_where_it_stands_and_goes_on_from_there() {
    for packed in [false, true] {
        let (server, mut client, guest, mut driver) = running(packed);
        for _ in 0..10 {
            driver.submit(&guest);
        }
        driver.wait(&guest, 10);
        let base = client.stop_vring(0).unwrap();
        assert_eq!(base, if packed { 10 << 16 | 10 | 0x8000_8000 } else { 10 });
        driver.submit(&guest);
        driver.kick();
        assert!(server.visit(|_, null| null.queues.is_empty()));
        std::thread::sleep(Duration::from_millis(5));
        assert!(driver.collect(&guest).is_empty(), "a stopped ring was served");
        driver.start(&mut client, base);
        assert_eq!(driver.wait(&guest, 1).len(), 1);
    }
}

#[test]
fn the_base_is_said_only_when_nothing_is_in_flight() {
    let (server, mut client, guest, mut driver) = running(false);
    server.visit(|_, null| null.hold = true);
    for _ in 0..5 {
        driver.submit(&guest);
    }
    server.wait("five requests", |_, null| null.held.len() == 5);
    client.deadline = Duration::from_millis(50);
    client.send(&Message::GetVringBase(0), false).unwrap();
    assert!(client.receive().unwrap().is_none(), "the base was said with five requests in flight");
    // Whatever is sent meanwhile waits its turn.
    client.send(&Message::GetQueueNum, false).unwrap();
    assert!(client.receive().unwrap().is_none());
    server.visit(|_, null| null.hold = false);
    client.deadline = Duration::from_secs(20);
    let first = client.receive().unwrap().unwrap();
    assert_eq!(first.header.number, Request::GetVringBase as u32);
    assert_eq!(driver.collect(&guest).len(), 5, "all had ended before the base was said");
    assert_eq!(client.receive().unwrap().unwrap().header.number, Request::GetQueueNum as u32);
}

#[test]
fn a_session_that_we_end_is_closed_when_nothing_is_in_flight() {
    for packed in [false, true] {
        let (server, mut client, guest, mut driver) = running(packed);
        server.visit(|_, null| null.hold = true);
        for _ in 0..5 {
            driver.submit(&guest);
        }
        server.wait("five requests", |_, null| null.held.len() == 5);
        server.visit(|session, null| session.part(null));
        assert!(server.visit(|session, _| session.is_draining()));
        client.deadline = Duration::from_millis(50);
        assert!(client.receive().unwrap().is_none(), "closed with five requests in flight");
        assert!(driver.collect(&guest).is_empty());
        server.visit(|_, null| null.hold = false);
        client.deadline = Duration::from_secs(20);
        assert!(matches!(client.receive(), Err(ClientError::Closed)));
        assert_eq!(driver.collect(&guest).len(), 5, "all had ended before the socket was closed");
        assert!(server.visit(|session, _| session.is_finished()));
    }
}

#[test]
fn a_ring_that_never_ran_stands_at_the_beginning() {
    for packed in [false, true] {
        let (_server, mut client) = Server::start();
        negotiate(&mut client, packed);
        assert_eq!(client.stop_vring(2).unwrap(), Driver::new(2, packed).base());
    }
}

#[test]
fn a_ring_is_served_only_while_enabled() {
    let (server, mut client, guest, mut driver) = running(true);
    client.call(&Message::SetVringEnable(0, false)).unwrap();
    driver.submit(&guest);
    std::thread::sleep(Duration::from_millis(5));
    assert!(driver.collect(&guest).is_empty());
    assert!(server.visit(|_, null| null.queues.is_empty()));
    client.call(&Message::SetVringEnable(0, true)).unwrap();
    assert_eq!(driver.wait(&guest, 1).len(), 1);
}

#[test]
fn without_protocol_features_rings_start_enabled() {
    let (_server, mut client) = Server::start();
    client.negotiate(features::VERSION_1, 0).unwrap();
    let guest = Guest::new();
    client.call(&guest.table()).unwrap();
    let mut driver = Driver::new(1, false);
    let (kick, call) = (Some(driver.kick.as_fd()), Some(driver.call.as_fd()));
    client.start_vring(u32::from(SIZE), 0, driver.address(), kick, call).unwrap();
    driver.submit(&guest);
    assert_eq!(driver.wait(&guest, 1).len(), 1);
}

#[test]
fn a_ring_without_kick_is_polled() {
    let (server, mut client) = Server::start();
    negotiate(&mut client, false);
    let guest = Guest::new();
    client.call(&guest.table()).unwrap();
    let mut driver = Driver::new(0, false);
    let call = Some(driver.call.as_fd());
    client.start_vring(u32::from(SIZE), 0, driver.address(), None, call).unwrap();
    assert!(server.visit(|_, null| null.queues[&0].kick.is_none()));
    driver.submit(&guest);
    assert_eq!(driver.wait(&guest, 1).len(), 1);
}

#[test]
fn each_queue_is_called_once_when_it_starts() {
    let (_server, _client, _guest, driver) = running(false);
    assert!(wait_notified(&driver.call, Duration::from_secs(20)).unwrap());
}

#[test]
fn notifiers_change_while_the_ring_runs() {
    let (server, mut client, guest, mut driver) = running(false);
    driver.submit(&guest);
    driver.wait(&guest, 1);
    driver.call = nvlane_vhost_user::frontend::notifier().unwrap();
    client.call(&Message::SetVringCall(0, Some(duplicate(&driver.call)))).unwrap();
    client.call(&Message::SetVringErr(0, None)).unwrap();
    assert!(server.visit(|_, null| null.queues[&0].err.is_none()));
    driver.submit(&guest);
    driver.wait(&guest, 1);
}

#[test]
fn memory_is_swapped_under_running_rings() {
    for packed in [false, true] {
        let (server, mut client, guest, mut driver) = running(packed);
        assert!(client.get_max_mem_slots().unwrap() >= 32);
        let more = SharedMemory::new(MEMORY).unwrap();
        let at = GUEST_ADDRESS + MEMORY;
        for round in 0..20 {
            for _ in 0..8 {
                driver.submit(&guest);
            }
            driver.kick();
            match round % 3 {
                0 => client.call(&guest.table()).unwrap(),
                1 => {
                    let region = more.region(at, USER_ADDRESS + MEMORY).unwrap();
                    client.call(&Message::AddMemReg(region)).unwrap();
                }
                _ => {
                    let (user_address, size) = (USER_ADDRESS + MEMORY, MEMORY);
                    let region = Region { guest_address: at, size, user_address, mmap_offset: 0 };
                    client.call(&Message::RemMemReg(region)).unwrap();
                }
            }
            assert_eq!(driver.wait(&guest, 8).len(), 8);
        }
        server.wait("the ring", |_, null| null.queues.len() == 1);
    }
}

#[test]
fn configuration_space_of_any_size_up_to_256_is_answered() {
    let (server, mut client) = Server::start();
    negotiate(&mut client, false);
    for (offset, size) in
        [(0u32, 60u32), (0, 1), (0, 256), (8, 60), (59, 2), (60, 10), (200, 256), (u32::MAX, 4)]
    {
        let bytes = client.get_config(offset, size).unwrap().unwrap();
        let expected: Vec<u8> = (0..size as usize)
            .map(|at| (offset as usize).checked_add(at).and_then(|at| CONFIG.get(at)).copied().unwrap_or(0))
            .collect();
        assert_eq!(bytes, expected, "{size} bytes at {offset}");
    }
    assert_eq!(client.get_config(0, 0).unwrap(), None);
    assert_eq!(client.get_config(0, 257).unwrap(), None);
    client.call(&Message::SetConfig { offset: 32, flags: 0, bytes: vec![1] }).unwrap();
    let refused = client.call(&Message::SetConfig { offset: 0, flags: 0, bytes: vec![1; 8] });
    assert!(matches!(refused, Err(ClientError::Refused { request: Request::SetConfig, .. })));
    server.visit(|_, null| assert_eq!(null.config_written[0], (32, vec![1], false)));
}

#[test]
fn a_change_of_configuration_is_told_on_the_channel() {
    let (server, mut client) = Server::start();
    negotiate(&mut client, false);
    // Without a channel nothing happens.
    server.visit(|session, _| session.config_changed());
    let (ours, theirs) = UnixStream::pair().unwrap();
    client.call(&Message::SetBackendReqFd(OwnedFd::from(theirs))).unwrap();
    server.visit(|session, _| session.config_changed());
    let mut channel = Connection::new(ours).unwrap();
    server.visit(|_, _| ());
    let Received::Frame(frame) = channel.receive().unwrap() else { panic!("nothing was told") };
    assert_eq!(
        nvlane_vhost_user::BackendMessage::parse(&frame),
        Some(nvlane_vhost_user::BackendMessage::ConfigChange)
    );
    drop(channel);
    server.visit(|session, _| (0..3).for_each(|_| session.config_changed()));
    assert_eq!(client.get_queue_num().unwrap(), u64::from(QUEUES), "the session outlives its channel");
}

#[test]
fn reset_device_stops_rings_and_the_connection_goes_on() {
    let (server, mut client, guest, mut driver) = running(false);
    client.call(&Message::ResetDevice).unwrap();
    assert!(server.visit(|_, null| null.queues.is_empty()));
    driver.submit(&guest);
    let wanted = client.features;
    client.set_features(wanted).unwrap();
    assert!(server.visit(|_, null| null.queues.is_empty()));
    driver.start(&mut client, 0);
    assert_eq!(driver.wait(&guest, 1).len(), 1);
    client.call(&Message::ResetOwner).unwrap();
    assert!(server.visit(|_, null| null.queues.is_empty()));
    client.call(&Message::SetVringEnable(0, true)).unwrap();
    driver.submit(&guest);
    assert_eq!(driver.wait(&guest, 1).len(), 1);
}

#[test]
fn status_is_kept_and_zero_stops_the_device() {
    let (server, mut client, _guest, _driver) = running(false);
    client.call(&Message::SetStatus(0xf)).unwrap();
    assert_eq!(client.get_status().unwrap(), 0xf);
    assert!(server.visit(|_, null| null.queues.len() == 1));
    client.call(&Message::SetStatus(0)).unwrap();
    assert_eq!(client.get_status().unwrap(), 0);
    assert!(server.visit(|_, null| null.queues.is_empty()));
}

#[test]
fn leaving_at_any_point_leaves_nothing_behind() {
    let before = open_descriptors();
    for packed in [false, true] {
        for point in 0..4 {
            let (server, mut client, guest, mut driver) = running(packed);
            match point {
                0 => {}
                1 => {
                    server.visit(|_, null| null.hold = true);
                    for _ in 0..5 {
                        driver.submit(&guest);
                    }
                    server.wait("five requests", |_, null| null.held.len() == 5);
                }
                2 => client.send_raw(&Message::GetFeatures.bytes(false)[..7], &[]).unwrap(),
                _ => {
                    server.visit(|_, null| null.hold = true);
                    driver.submit(&guest);
                    server.wait("a request", |_, null| null.held.len() == 1);
                    client.send(&Message::GetVringBase(0), false).unwrap();
                }
            }
            drop(client);
            if point == 1 {
                server.wait("the end", |session, _| session.is_draining());
                assert!(!server.visit(|session, _| session.is_finished()), "requests are in flight");
            }
            server.visit(|_, null| null.hold = false);
            server.wait("the end of everything", |session, null| {
                session.is_finished() && null.queues.is_empty()
            });
            assert_eq!(driver.collect(&guest).len(), driver_expected(point), "what was in flight has ended");
        }
    }
    // Other tests of this program run beside this one and have descriptors of their own: a leak of each life grows.
    assert!(open_descriptors() < before + 400, "descriptors are left open");
}

fn driver_expected(point: usize) -> usize {
    [0, 5, 0, 1][point]
}

#[test]
fn queue_sizes_are_checked() {
    let (_server, mut client) = Server::start();
    negotiate(&mut client, false);
    for num in [0, 3, 65536, u32::MAX] {
        let refused = client.call(&Message::SetVringNum(VringState { index: 0, num }));
        assert!(matches!(refused, Err(ClientError::Refused { .. })), "{num}");
    }
    client.call(&Message::SetVringNum(VringState { index: 3, num: 1024 })).unwrap();
    assert!(client.call(&Message::SetVringNum(VringState { index: 4, num: 64 })).is_err());
    assert_eq!(client.protocol_features, protocol::STORAGE);
}
