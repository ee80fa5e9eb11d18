//! The path of a request allocates nothing and asks the kernel for nothing.

use std::alloc::{GlobalAlloc, Layout as Shape, System};
use std::cell::Cell;
use std::sync::Arc;

use nvlane_bdev::{Bdev, Info, Malloc, Null, Uuid};
use nvlane_ring::driver::{Buffer, DriverRing, Guest};
use nvlane_ring::{Layout, Queue};
use nvlane_target::device::blk;
use nvlane_target::reactor::{Coalescing, QueueWork, Reactors};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

struct Counting;

thread_local! {
    /// Of this thread: the test harness has its own.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, shape: Shape) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(shape) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, shape: Shape) {
        count();
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, shape) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// From here on every system call of this thread but those of its end kills the process: the kernel itself is the
/// witness.
fn forbid_system_calls() {
    let end = [
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_futex,
        libc::SYS_madvise,
        libc::SYS_munmap,
        libc::SYS_rt_sigprocmask,
        libc::SYS_sigaltstack,
    ];
    let rules = end.into_iter().map(|call| (call, Vec::new())).collect();
    let here = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, here).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

fn run(bdev: &Arc<dyn Bdev>, layout: Layout) {
    let (reactors, mut reactor) = Reactors::by_hand().unwrap();
    let channel = reactors.open_channel(0, bdev).unwrap();
    let mut guest = Guest::new(4 << 20).unwrap();
    let config = guest.queue(layout, 256);
    let mut driver = guest.driver(&config).unwrap();
    driver.disable_calls();
    let device = Box::new(blk::Blk::new(channel, Arc::new(blk::Shape::new(&**bdev, false)), 256));
    let ring = Queue::new(config).unwrap();
    let coalescing = Coalescing::default();
    reactors.attach(0, QueueWork { ring, device, kick: None, call: None, err: None, coalescing, log: None });
    let requests: Vec<[Buffer; 3]> = (0..32_u64)
        .map(|number| {
            let header = guest.allocate(16, 16);
            let write = number % 2 == 0;
            let mut bytes = [0; 16];
            bytes[0] = u8::from(write);
            bytes[8] = number as u8;
            guest.write(header, &bytes);
            let data = guest.allocate(4096, 4096);
            [
                Buffer { address: header, length: 16, writable: false },
                Buffer { address: data, length: 4096, writable: !write },
                Buffer { address: guest.allocate(1, 1), length: 1, writable: true },
            ]
        })
        .collect();
    let mut turn = |rounds: usize| {
        for _ in 0..rounds {
            for request in &requests {
                driver.add(request).unwrap();
            }
            driver.publish();
            let mut back = 0;
            while back < requests.len() {
                reactor.turn();
                while driver.reap().is_some() {
                    back += 1;
                }
            }
        }
    };
    turn(100);
    let calls = reactors.stats()[0].calls;
    let before = ALLOCATIONS.get();
    turn(1000);
    assert_eq!(ALLOCATIONS.get() - before, 0, "allocations and deallocations on the path");
    assert_eq!(reactors.stats()[0].calls, calls, "a driver that polls is not called");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            forbid_system_calls();
            turn(1000);
        });
    });
}

#[test]
fn requests_to_memory_cost_no_allocation_and_no_system_call() {
    let info = |name: &str| Info::new(name, Uuid::random().unwrap(), 512);
    let disks: [Arc<dyn Bdev>; 2] = [
        Arc::new(Malloc::new(info("memory"), 2048).unwrap()),
        Arc::new(Null::new(info("null"), 2048).unwrap()),
    ];
    for bdev in &disks {
        for layout in [Layout::Split, Layout::Packed] {
            run(bdev, layout);
        }
    }
}
