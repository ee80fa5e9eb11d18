//! What no decent front end does: it may cost the front end its own session, and nothing else.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nvlane_vhost_user::features::protocol;
use nvlane_vhost_user::frontend::{Client, ClientError, SharedMemory, notifier};
use nvlane_vhost_user::{
    Inflight, LogArea, MemoryRegion, Message, Region, Request, VringAddress, VringState,
};

use super::guest::{Driver, GUEST_ADDRESS, Guest, MEMORY, SIZE, USER_ADDRESS, negotiate};
use super::server::{QUEUES, Server, duplicate};

fn agreed() -> (Server, Client) {
    let (server, mut client) = Server::start();
    negotiate(&mut client, false);
    (server, client)
}

fn null() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

fn refused(result: Result<(), ClientError>) -> bool {
    matches!(result, Err(ClientError::Refused { .. }))
}

/// The other side has hung up.
fn is_closed(client: &mut Client) -> bool {
    matches!(client.receive(), Err(ClientError::Closed))
}

#[test]
fn messages_before_any_other_do_no_harm() {
    let region = Region { guest_address: 0, size: MEMORY, user_address: 0, mmap_offset: 0 };
    let inflight = Inflight { mmap_size: 4096, mmap_offset: 0, num_queues: 1, queue_size: 64 };
    let address = VringAddress { index: 0, flags: 0, descriptor: 0, used: 0, available: 0, log: 0 };
    let messages: Vec<fn(Region, Inflight, VringAddress) -> Message> = vec![
        |_, _, _| Message::GetVringBase(0),
        |_, _, _| Message::GetVringBase(99),
        |_, _, _| Message::SetVringEnable(0, true),
        |_, _, _| Message::SetVringEnable(0, false),
        |_, _, _| Message::SetVringKick(0, Some(notifier().unwrap())),
        |_, _, _| Message::SetVringKick(0, None),
        |_, _, _| Message::SetVringCall(0, None),
        |_, _, _| Message::SetVringErr(1, Some(null())),
        |_, _, _| Message::SetVringNum(VringState { index: 0, num: 64 }),
        |_, _, _| Message::SetVringBase(VringState { index: 0, num: u32::MAX }),
        |_, _, address| Message::SetVringAddr(address),
        |region, _, _| Message::RemMemReg(region),
        |_, _, _| Message::SetLogFd(null()),
        |_, _, _| Message::SetLogBase(LogArea { size: 0, offset: 0 }, Some(null())),
        |_, inflight, _| Message::GetInflightFd(inflight),
        |_, inflight, _| Message::SetInflightFd(inflight, null()),
        |_, _, _| Message::SetBackendReqFd(null()),
        |_, _, _| Message::ResetDevice,
        |_, _, _| Message::ResetOwner,
        |_, _, _| Message::SetOwner,
        |_, _, _| Message::SetStatus(0xff),
        |_, _, _| Message::GetStatus,
        |_, _, _| Message::SetFeatures(u64::MAX),
        |_, _, _| Message::SetProtocolFeatures(u64::MAX),
        |_, _, _| Message::GetMaxMemSlots,
    ];
    // Each first of all, and each after each other.
    for first in &messages {
        for second in &messages {
            let (server, mut client) = Server::start();
            client.deadline = Duration::from_millis(500);
            for message in [first(region, inflight, address), second(region, inflight, address)] {
                // Refused, obeyed or hung up on: never silence where a reply is owed, and never a dead session.
                if client.send(&message, true).is_ok() {
                    match client.receive() {
                        Ok(Some(_)) | Err(ClientError::Closed) => {}
                        other => panic!("{message:?}: {other:?}"),
                    }
                }
            }
            drop(client);
            server.wait("the end", |session, _| session.is_finished());
        }
    }
}

#[test]
fn unknown_requests_are_refused_or_ignored_and_the_connection_goes_on() {
    let (_server, mut client) = agreed();
    let frame = |number: u32, flags: u32, body: &[u8]| {
        let mut bytes: Vec<u8> =
            [number, flags, body.len() as u32].iter().flat_map(|n| n.to_ne_bytes()).collect();
        bytes.extend(body);
        bytes
    };
    for number in [0u32, 44, 1000, u32::MAX] {
        client.send_raw(&frame(number, 0x1, &[1; 100]), &[]).unwrap();
        client.send_raw(&frame(number, 0x9, &[1; 100]), &[]).unwrap();
        let reply = client.receive().unwrap().unwrap();
        assert_eq!((reply.header.number, reply.header.reply), (number, true));
        assert_eq!(reply.body, 1u64.to_ne_bytes());
    }
    // Known, but not offered: those whose sender waits are answered in any case.
    for (number, answered) in [(19u32, false), (20, false), (22, true), (29, false), (30, true), (42, true)] {
        client.send_raw(&frame(number, 0x1, &[0; 8]), &[]).unwrap();
        if answered {
            let reply = client.receive().unwrap().unwrap();
            assert_eq!(reply.header.number, number);
            assert_ne!(reply.body, 0u64.to_ne_bytes());
        }
    }
    assert_eq!(client.get_queue_num().unwrap(), u64::from(QUEUES));
}

#[test]
fn streams_that_cannot_be_followed_are_closed() {
    for head in [[1u32, 0x2, 0], [1, 0x1, 4097], [5, 0x1, u32::MAX]] {
        let (_server, mut client) = agreed();
        let bytes: Vec<u8> = head.iter().flat_map(|n| n.to_ne_bytes()).collect();
        client.send_raw(&bytes, &[]).unwrap();
        assert!(is_closed(&mut client), "{head:?}");
    }
}

#[test]
fn a_broken_message_without_acknowledgement_ends_the_connection() {
    let (_server, mut client) = agreed();
    client.send(&Message::SetVringNum(VringState { index: 0, num: 3 }), false).unwrap();
    assert!(is_closed(&mut client));
}

#[test]
fn memory_that_is_none_is_refused() {
    let (_server, mut client) = agreed();
    let memory = SharedMemory::new(MEMORY).unwrap();
    let add = |client: &mut Client,
               guest_address: u64,
               size: u64,
               user_address: u64,
               mmap_offset: u64,
               file: OwnedFd| {
        let region = Region { guest_address, size, user_address, mmap_offset };
        client.call(&Message::AddMemReg(MemoryRegion { region, file }))
    };
    let file = || duplicate(memory.file());
    let (at, user) = (GUEST_ADDRESS, USER_ADDRESS);
    assert!(refused(add(&mut client, at, 0, user, 0, file())));
    assert!(refused(add(&mut client, at, MEMORY + 4096, user, 0, file())));
    assert!(refused(add(&mut client, at, MEMORY, user, 4096, file())));
    assert!(refused(add(&mut client, u64::MAX - 4095, MEMORY, user, 0, file())));
    assert!(refused(add(&mut client, at, MEMORY, u64::MAX - 4095, 0, file())));
    assert!(refused(add(&mut client, at, !4095, user, 0, file())));
    assert!(refused(add(&mut client, at, 4096, user, u64::MAX - 4095, file())));
    assert!(refused(add(&mut client, at, MEMORY, user, 0, notifier().unwrap())));
    assert!(refused(add(&mut client, at, MEMORY, user, 0, null())));
    assert!(refused(add(&mut client, at, MEMORY, user, 0, File::open("/").unwrap().into())));
    assert!(refused(add(&mut client, at, MEMORY, user, 0, File::open("/proc/self/mem").unwrap().into())));
    add(&mut client, at, MEMORY, user, 0, file()).unwrap();
    assert!(refused(add(&mut client, at + 4096, 4096, user + MEMORY, 0, file())), "it overlaps");
    let region = Region { guest_address: at, size: MEMORY - 1, user_address: user, mmap_offset: 0 };
    assert!(refused(client.call(&Message::RemMemReg(region))));
}

#[test]
fn a_thousand_regions_are_too_many_and_the_session_goes_on() {
    let (server, mut client) = agreed();
    let slots = client.get_max_mem_slots().unwrap();
    let page = SharedMemory::new(4096).unwrap();
    let taken = (0..1000u64)
        .filter(|n| {
            let region = page.region(n << 20, USER_ADDRESS + (n << 20)).unwrap();
            client.call(&Message::AddMemReg(region)).is_ok()
        })
        .count() as u64;
    assert_eq!(taken, slots);
    // A table takes the place of all of them.
    let guest = Guest::new();
    client.call(&guest.table()).unwrap();
    let mut driver = Driver::new(0, false);
    driver.start(&mut client, 0);
    driver.submit(&guest);
    assert_eq!(driver.wait(&guest, 1).len(), 1);
    drop(client);
    server.wait("the end", |session, _| session.is_finished());
}

#[test]
fn memory_that_vanishes_ends_that_session_alone() {
    let (server, mut client) = agreed();
    let (other, mut decent) = agreed();
    let guest = Guest::new();
    client.call(&guest.table()).unwrap();
    let driver = Driver::new(0, false);
    driver.start(&mut client, 0);
    server.wait("the ring", |_, null| null.queues.len() == 1);
    guest.memory.truncate(0).unwrap();
    // The next look at the ring is one at memory that is gone.
    server.wait("the end", |session, null| {
        session.check(null);
        session.is_finished()
    });
    assert!(is_closed(&mut client));
    let guest = Guest::new();
    decent.call(&guest.table()).unwrap();
    let mut driver = Driver::new(0, false);
    driver.start(&mut decent, 0);
    driver.submit(&guest);
    assert_eq!(driver.wait(&guest, 1).len(), 1);
    drop(other);
}

#[test]
fn rings_that_lie_nowhere_are_not_started() {
    for packed in [false, true] {
        let (server, mut client) = Server::start();
        negotiate(&mut client, packed);
        let guest = Guest::new();
        client.call(&guest.table()).unwrap();
        let mut driver = Driver::new(0, packed);
        let good = driver.address();
        let end = USER_ADDRESS + MEMORY;
        let bad = [
            VringAddress { descriptor: 0, ..good },
            VringAddress { descriptor: end - 16, ..good },
            VringAddress { descriptor: good.descriptor + 8, ..good },
            VringAddress { used: end - 1, ..good },
            VringAddress { available: u64::MAX, ..good },
            VringAddress { available: good.available + 1, ..good },
        ];
        for address in bad {
            let (kick, call) = (duplicate(&driver.kick), duplicate(&driver.call));
            client.call(&Message::SetVringErr(0, Some(duplicate(&driver.err)))).unwrap();
            client.call(&Message::SetVringNum(VringState { index: 0, num: u32::from(SIZE) })).unwrap();
            client.call(&Message::SetVringBase(VringState { index: 0, num: driver.base() })).unwrap();
            client.call(&Message::SetVringAddr(address)).unwrap();
            client.call(&Message::SetVringCall(0, Some(call))).unwrap();
            client.call(&Message::SetVringKick(0, Some(kick))).unwrap();
            assert!(refused(client.call(&Message::SetVringEnable(0, true))), "{address:?}");
            let told =
                nvlane_vhost_user::frontend::wait_notified(&driver.err, Duration::from_secs(20)).unwrap();
            assert!(told, "the error descriptor is silent");
            assert!(server.visit(|_, null| null.queues.is_empty()));
            client.stop_vring(0).unwrap();
            client.call(&Message::SetVringEnable(0, false)).unwrap();
        }
        driver.start(&mut client, driver.base());
        driver.submit(&guest);
        assert_eq!(driver.wait(&guest, 1).len(), 1);
    }
}

#[test]
fn two_rings_in_the_same_memory_and_a_base_from_nowhere_break_rings_only() {
    let (server, mut client) = agreed();
    let guest = Guest::new();
    client.call(&guest.table()).unwrap();
    let first = Driver::new(0, false);
    first.start(&mut client, 0xffff_ffff);
    let (kick, call) = (Some(std::os::fd::AsFd::as_fd(&first.kick)), None);
    let address = VringAddress { index: 1, ..first.address() };
    client.start_vring(u32::from(SIZE), 12345, address, kick, call).unwrap();
    // The index of the available ring is further away than the ring is long.
    server.wait("a broken ring", |_, null| null.broken.is_some());
    assert_eq!(client.get_queue_num().unwrap(), u64::from(QUEUES));
    client.stop_vring(0).unwrap();
    client.stop_vring(1).unwrap();
}

#[test]
fn a_guest_that_scribbles_over_its_rings_breaks_rings_only() {
    for packed in [false, true] {
        let (server, mut client) = Server::start();
        negotiate(&mut client, packed);
        let guest = Guest::new();
        client.call(&guest.table()).unwrap();
        let driver = Driver::new(0, packed);
        driver.start(&mut client, driver.base());
        let file = File::from(duplicate(guest.memory.file()));
        let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..200 {
            let mut bytes = [0; 0xc000];
            for byte in &mut bytes {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                *byte = noise as u8;
            }
            file.write_all_at(&bytes, 0).unwrap();
            driver.kick();
        }
        server.wait("a broken ring", |_, null| null.broken.is_some());
        client.stop_vring(0).unwrap();
        assert_eq!(client.get_queue_num().unwrap(), u64::from(QUEUES));
    }
}

#[test]
fn a_front_end_that_does_not_read_its_replies_is_not_read_from() {
    let (server, mut client) = agreed();
    client.deadline = Duration::from_millis(300);
    let mut sent = 0u32;
    while client.send(&Message::GetConfig { offset: 0, size: 256, flags: 0 }, false).is_ok() {
        sent += 1;
        assert!(sent < 1_000_000, "its messages are taken without end");
    }
    // The session's thread answers: it does not stand still.
    server.visit(|_, _| ());
    client.deadline = Duration::from_secs(20);
    for _ in 0..sent {
        assert_eq!(client.receive().unwrap().unwrap().header.number, Request::GetConfig as u32);
    }
}

#[test]
fn protocol_features_that_were_not_offered_are_refused() {
    let (_server, mut client) = agreed();
    assert!(refused(client.call(&Message::SetProtocolFeatures(protocol::SETTLED))));
    assert!(refused(client.call(&Message::SetProtocolFeatures(1 << 20))));
    assert!(refused(client.call(&Message::SetFeatures(1 << 33))));
    assert_eq!(client.get_protocol_features().unwrap() & !protocol::SETTLED, 0);
}
