//! What does not end at once: sleeping on a channel, a full one, delays, injected faults, limits.

mod disk;

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use disk::{DEADLINE, Disk, Guest, TestFile, malloc};
use nvlane_bdev::delay::{Latencies, LatencyKind};
use nvlane_bdev::error::{Fault, Injection};
use nvlane_bdev::{
    Bdev, Channel, Completion, Delay, ErrorBdev, Kind, Limits, Operation, Request, Status, Submitted, Uuid,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Submits `count` reads of a block each and waits for them as a sleeping reactor does; how often it slept.
fn read_asleep(channel: &mut Channel, count: u64) -> usize {
    let guest = Guest::new(4096 * count as usize, &vec![4096; count as usize - 1], 0);
    let segments = guest.segments();
    let mut completions = Vec::<Completion>::new();
    for token in 0..count {
        let request = Request {
            operation: Operation::Read,
            offset: token * 4096,
            length: 4096,
            segments: &segments[token as usize..][..1],
            token,
        };
        assert_eq!(channel.submit(&request), Submitted::Pending);
    }
    channel.kick();
    let (start, mut slept) = (Instant::now(), 0);
    while completions.len() < count as usize {
        assert!(start.elapsed() < DEADLINE, "{} of {count}", completions.len());
        if channel.poll(&mut completions) == 0 && channel.arm() {
            slept += 1;
            assert!(readable(channel, DEADLINE), "the descriptor slept through a completion");
        }
    }
    let mut tokens: Vec<u64> = completions.iter().map(|completion| completion.token).collect();
    tokens.sort_unstable();
    assert!(tokens.iter().copied().eq(0..count));
    assert!(completions.iter().all(|completion| completion.status == Status::Ok));
    assert_eq!(channel.in_flight(), 0);
    slept
}

fn readable(channel: &Channel, timeout: Duration) -> bool {
    let descriptor = channel.wait_descriptor().unwrap();
    // SAFETY: the channel lives through this function.
    let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) };
    let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
    poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&timeout)).unwrap() == 1
}

#[test]
fn no_completion_is_slept_through() {
    let file = TestFile::on_disk(1 << 20);
    // Holes are read without asking the drive: there has to be something to wait for.
    std::fs::write(&file.0, vec![1; 1 << 20]).unwrap();
    std::fs::File::open(&file.0).unwrap().sync_all().unwrap();
    for no_uring in [false, true] {
        let bdev = file.open(4096, no_uring);
        let mut channel = (&bdev as &dyn Bdev).open(0).unwrap();
        let slept: usize = (1..100).map(|turn| read_asleep(&mut channel, 1 + turn % 32)).sum();
        assert!(slept > 0, "no_uring {no_uring}: it never slept, so nothing was shown");
        assert!(channel.arm());
        assert!(
            !readable(&channel, Duration::from_millis(20)),
            "nothing is under way, but the descriptor is readable"
        );
    }
}

#[test]
fn a_full_channel_is_busy_and_loses_nothing() {
    let file = TestFile::on_disk(1 << 20);
    for no_uring in [false, true] {
        let bdev = file.open(4096, no_uring);
        let mut channel = (&bdev as &dyn Bdev).open(0).unwrap();
        let guest = Guest::new(4096, &[], 0);
        let (segments, mut completions) = (guest.segments(), Vec::new());
        let request = |token| Request {
            operation: Operation::Read,
            offset: 0,
            length: 4096,
            segments: &segments,
            token,
        };
        let mut taken = 0;
        while channel.submit(&request(taken)) == Submitted::Pending {
            taken += 1;
            assert!(taken < 100_000);
        }
        assert_eq!(channel.in_flight() as u64, taken);
        channel.kick();
        let start = Instant::now();
        while completions.len() < taken as usize && start.elapsed() < DEADLINE {
            channel.poll(&mut completions);
        }
        assert_eq!(completions.len() as u64, taken);
        assert_eq!(channel.submit(&request(7)), Submitted::Pending);
        drop(channel); // which waits for it: the memory goes after the channel
    }
}

#[test]
fn delays_are_kept_and_slept() {
    let latencies = Latencies { avg_read: 3000, p99_read: 3000, ..Latencies::default() };
    let file = TestFile::on_disk(1 << 20);
    for below in [Arc::new(malloc(4096, 256)) as Arc<dyn Bdev>, Arc::new(file.open(4096, false))] {
        let bdev = Delay::new(below.clone(), "Delay0", Uuid::random().unwrap(), latencies).unwrap();
        assert!(below.claimed());
        let mut channel = (&bdev as &dyn Bdev).open(0).unwrap();
        let start = Instant::now();
        assert!(read_asleep(&mut channel, 8) > 0);
        assert!(start.elapsed() >= Duration::from_micros(3000), "{:?}", start.elapsed());
        bdev.update(LatencyKind::AvgRead, 0);
        let start = Instant::now();
        read_asleep(&mut channel, 1);
        assert!(start.elapsed() < Duration::from_millis(1000));
        assert!(channel.arm());
        assert!(
            !readable(&channel, Duration::from_millis(20)),
            "nothing is under way, but the descriptor is readable"
        );
        let statistics = (&bdev as &dyn Bdev).statistics();
        assert_eq!(statistics.kind(Kind::Read).operations, 9);
        assert!(statistics.kind(Kind::Read).longest >= nvlane_bdev::ticks::of(Duration::from_micros(3000)));
        drop((channel, bdev));
        assert!(!below.claimed());
    }
}

#[test]
fn faults_come_as_often_as_asked() {
    let file = TestFile::on_disk(1 << 20);
    for below in [Arc::new(malloc(4096, 256)) as Arc<dyn Bdev>, Arc::new(file.open(4096, false))] {
        let bdev = ErrorBdev::new(below, Uuid::random().unwrap()).unwrap();
        assert!(bdev.info().name.starts_with("EE_"));
        let mut disk = Disk::open(&bdev);
        let guest = Guest::new(4096, &[], 9);
        let segments = guest.segments();
        let inject =
            |kinds: &[Kind], fault, count| bdev.inject(kinds, Injection { fault, count, queue_depth: 0 });

        inject(&[Kind::Write, Kind::Flush], Fault::Failure, 2).unwrap();
        let statuses: Vec<Status> = (0..3).map(|_| disk.run(Operation::Write, 0, 4096, &segments)).collect();
        assert_eq!(statuses, [Status::IoError, Status::IoError, Status::Ok]);
        assert_eq!(disk.run(Operation::Flush, 0, 0, &[]), Status::IoError);
        assert_eq!((&bdev as &dyn Bdev).statistics().failed, 3);
        bdev.clear();
        assert_eq!(disk.run(Operation::Flush, 0, 0, &[]), Status::Ok);

        inject(&[Kind::Read], Fault::NoMemory, 3).unwrap();
        assert_eq!(
            disk.run(Operation::Read, 0, 4096, &segments),
            Status::Ok,
            "it is asked again until there is room"
        );

        let plain = guest.bytes();
        inject(&[Kind::Read], Fault::Corrupt { offset: 100, value: 0xff }, 1).unwrap();
        assert_eq!(disk.run(Operation::Read, 0, 4096, &segments), Status::Ok);
        let differing: Vec<usize> = (0..4096).filter(|&at| guest.bytes()[at] != plain[at]).collect();
        assert_eq!(differing, [100]);

        assert!(inject(&[Kind::Write], Fault::Corrupt { offset: 0, value: 1 }, 1).is_err());
        assert!(inject(&[Kind::Read], Fault::Failure, 0).is_err());
    }
}

#[test]
fn a_held_request_ends_when_resumed() {
    let bdev = ErrorBdev::new(Arc::new(malloc(4096, 256)), Uuid::random().unwrap()).unwrap();
    let mut channel = (&bdev as &dyn Bdev).open(0).unwrap();
    let guest = Guest::new(4096, &[], 9);
    let (segments, mut completions) = (guest.segments(), Vec::new());
    bdev.inject(&[Kind::Write], Injection { fault: Fault::Pending, count: 1, queue_depth: 0 }).unwrap();
    let request =
        Request { operation: Operation::Write, offset: 0, length: 4096, segments: &segments, token: 5 };
    assert_eq!(channel.submit(&request), Submitted::Pending);
    channel.kick();
    assert_eq!((channel.poll(&mut completions), channel.in_flight(), channel.arm()), (0, 1, false));
    bdev.resume();
    assert_eq!(channel.poll(&mut completions), 1);
    assert_eq!(completions, [Completion { token: 5, status: Status::Ok }]);
}

#[test]
fn a_limit_holds_across_channels() {
    let bdev = malloc(4096, 256);
    let bdev: &dyn Bdev = &bdev;
    bdev.set_limits(Limits { rw_ios_per_sec: 10_000, ..Limits::default() });
    assert_eq!(bdev.describe()["assigned_rate_limits"]["rw_ios_per_sec"], 10_000);
    let guest = Guest::new(4096, &[], 9);
    let (segments, mut completions) = (guest.segments(), Vec::new());
    let request =
        Request { operation: Operation::Read, offset: 0, length: 4096, segments: &segments, token: 0 };
    let mut channels = [bdev.open(0).unwrap(), bdev.open(1).unwrap()];
    let (start, mut count, mut refused) = (Instant::now(), 0u128, false);
    while start.elapsed() < Duration::from_millis(300) {
        for channel in &mut channels {
            match channel.submit(&request) {
                Submitted::Done(Status::Ok) => count += 1,
                Submitted::Busy => {
                    refused = true;
                    assert!(!channel.arm(), "only time ends this, and nothing would wake the sleeper");
                }
                other => panic!("{other:?}"),
            }
            channel.kick();
            channel.poll(&mut completions);
        }
    }
    let allowed = start.elapsed().as_millis() * 10 + 40;
    assert!(refused && count <= allowed, "{count} of {allowed}");
    assert!(count > 100, "{count}: hardly any passed");
    bdev.set_limits(Limits::default());
    assert_eq!(channels[0].submit(&request), Submitted::Done(Status::Ok));
}
