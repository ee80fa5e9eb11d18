//! What the path of a request costs besides its work: no allocation and no system call, from `submit` to `poll`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use nvlane_memory::{HostMemory, Segment};
use nvlane_nvme::emulated::{Emulated, EmulatedOptions};
use nvlane_nvme::{Controller, Io, IoKind, Options, Outcome, Qpair, Submission};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, counting per thread.
struct Counting;

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn controller() -> (Arc<Emulated>, Controller) {
    let options = EmulatedOptions { queue_entries: 128, ..EmulatedOptions::default() };
    let device = Emulated::new(options).unwrap();
    let controller = Controller::attach(device.clone(), Options::default(), Box::new(|_| ())).unwrap();
    device.inject(|faults| faults.hold = true);
    (device, controller)
}

fn part(memory: &HostMemory, offset: usize, length: usize) -> Segment {
    assert!(offset + length <= memory.len());
    // SAFETY: inside the memory, which lives as long as each test.
    unsafe { Segment::new(memory.pointer().add(offset), length) }
}

/// Plain requests, requests with PRP lists, and requests of several commands through bounce buffers.
fn requests(memory: &HostMemory) -> Vec<(IoKind, u64, Vec<Segment>)> {
    vec![
        (IoKind::Read, 8, vec![part(memory, 0, 4096)]),
        (IoKind::Write, 128, vec![part(memory, 65536, 65536)]),
        (IoKind::Write, 48, vec![part(memory, 512, 4096), part(memory, 8194, 20480)]),
        (IoKind::Read, 1024, vec![part(memory, 131_072, 524_288)]),
        (IoKind::Flush, 0, vec![]),
        (IoKind::WriteZeroes { deallocate: true }, 2000, vec![]),
        (IoKind::Deallocate, 100, vec![]),
    ]
}

/// One turn of a reactor; `device` answers in between. True when all went well.
fn turn(queue: &mut Qpair, wanted: &[(IoKind, u64, Vec<Segment>)], mut device: impl FnMut()) -> bool {
    let mut right = true;
    for (token, (kind, blocks, segments)) in (0..).zip(wanted) {
        let io = Io { kind: *kind, lba: 64, blocks: *blocks, segments, token };
        right &= queue.submit(&io) == Submission::Pending;
    }
    let mut ended = 0;
    while ended < wanted.len() {
        queue.kick();
        device();
        ended += queue.poll(|_, outcome| right &= outcome == Outcome::Ok);
    }
    right
}

#[test]
fn nothing_is_allocated() {
    let (device, controller) = controller();
    let mut queue = controller.open(1).unwrap();
    let memory = HostMemory::for_dma(1 << 20).unwrap();
    let wanted = requests(&memory);
    let mut of_the_model = 0;
    let before = ALLOCATIONS.get();
    for _ in 0..300 {
        let right = turn(&mut queue, &wanted, || {
            // The model allocates as it likes.
            let before = ALLOCATIONS.get();
            device.run();
            of_the_model += ALLOCATIONS.get() - before;
        });
        assert!(right);
    }
    assert_eq!(ALLOCATIONS.get() - before, of_the_model);
}

/// As in the tests of bdevs: the kernel ends the thread at its first system call other than exit.
fn forbid_system_calls() -> bool {
    let step = |code: u32, jump_true, jump_false, value| libc::sock_filter {
        code: code as u16,
        jt: jump_true,
        jf: jump_false,
        k: value,
    };
    let program = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0), // the number of the call
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_exit as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_KILL_THREAD),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel reads the program, which lives through the calls.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    }
}

#[test]
fn no_system_call_is_made() {
    const TURNS: u32 = 200;
    let (device, controller) = controller();
    let mut queue = controller.open(1).unwrap();
    let memory = HostMemory::for_dma(1 << 20).unwrap();
    // Odd: the device's turn. Even: the queue pair's. The end: u32::MAX, or u32::MAX - 1 when something went wrong.
    let baton = Arc::new(AtomicU32::new(0));
    let inside = baton.clone();
    std::thread::spawn(move || {
        let wanted = requests(&memory);
        let mut right = forbid_system_calls();
        for _ in 0..TURNS {
            right &= turn(&mut queue, &wanted, || {
                inside.fetch_add(1, SeqCst);
                while inside.load(SeqCst) % 2 == 1 {
                    std::hint::spin_loop();
                }
            });
        }
        inside.store(if right { u32::MAX } else { u32::MAX - 1 }, SeqCst);
        // SAFETY: ends this thread as it stands; what it owned is left behind, since dropping it needs the kernel.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    });
    let start = Instant::now();
    loop {
        match baton.load(SeqCst) {
            u32::MAX => break,
            end if end == u32::MAX - 1 => panic!("a request went wrong"),
            odd if odd % 2 == 1 => {
                device.run();
                baton.fetch_add(1, SeqCst);
            }
            _ => std::hint::spin_loop(),
        }
        assert!(start.elapsed() < Duration::from_secs(60), "the thread was ended: it made a system call");
    }
    assert_eq!(device.complaints(), Vec::<String>::new());
}
