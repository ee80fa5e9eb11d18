//! What the path of a request costs besides its work: no allocation, and for memory no system call.

mod disk;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use disk::{DEADLINE, Disk, Guest, TestFile, info, malloc};
use nvlane_bdev::{Bdev, Null, Operation, Request, Status, Submitted};

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

const OPERATIONS: [Operation; 5] = [
    Operation::Read,
    Operation::Write,
    Operation::Flush,
    Operation::Unmap,
    Operation::WriteZeroes { unmap: true },
];

fn allocations(bdev: &dyn Bdev) -> usize {
    let mut disk = Disk::open(bdev);
    let guest = Guest::new(16384, &[4096, 512, 4096], 1);
    let segments = guest.segments();
    let turn = |disk: &mut Disk| {
        for operation in OPERATIONS {
            let moves = matches!(operation, Operation::Read | Operation::Write);
            let segments = if moves { &segments[..] } else { &[] };
            assert_eq!(disk.run(operation, 8192, 16384, segments), Status::Ok);
        }
    };
    for _ in 0..300 {
        turn(&mut disk); // every slot has been used once, and keeps its memory
    }
    let before = ALLOCATIONS.get();
    for _ in 0..100 {
        turn(&mut disk);
    }
    ALLOCATIONS.get() - before
}

#[test]
fn nothing_is_allocated() {
    let (on_disk, in_memory) = (TestFile::on_disk(1 << 20), TestFile::in_memory(1 << 20));
    assert_eq!(allocations(&Null::new(info("Null0", 512), 2048).unwrap()), 0, "null");
    assert_eq!(allocations(&malloc(512, 2048)), 0, "malloc");
    assert_eq!(allocations(&on_disk.open(512, false)), 0, "a file by io_uring");
    assert_eq!(allocations(&in_memory.open(512, false)), 0, "a file in memory");
}

/// Strict seccomp would do, but it also forbids to read the time stamp counter (kernel/seccomp.c).
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

/// Runs in a thread that the kernel ends at its first system call other than exit.
#[test]
fn memory_needs_no_system_call() {
    let null: Arc<dyn Bdev> = Arc::new(Null::new(info("Null0", 512), 2048).unwrap());
    let malloc: Arc<dyn Bdev> = Arc::new(malloc(512, 2048));
    for bdev in [null, malloc] {
        let done = Arc::new(AtomicU32::new(0));
        let (inside, name) = (done.clone(), bdev.info().name.clone());
        std::thread::spawn(move || {
            let guest = Guest::new(16384, &[4096, 512, 4096], 1);
            let (segments, mut channel, mut completions) =
                (guest.segments(), bdev.open(0).unwrap(), Vec::new());
            let mut right = forbid_system_calls();
            for (token, operation) in OPERATIONS.iter().cycle().copied().enumerate().take(1000) {
                let request = Request {
                    operation,
                    offset: 8192,
                    length: 16384,
                    segments: &segments,
                    token: token as u64,
                };
                right &= channel.submit(&request) == Submitted::Done(Status::Ok);
                channel.kick();
                right &= channel.poll(&mut completions) == 0;
            }
            inside.store(if right { 1 } else { 2 }, SeqCst);
            // SAFETY: ends this thread as it stands; what it owned is left behind, since dropping it needs the kernel.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
        });
        let start = Instant::now();
        while done.load(SeqCst) == 0 {
            assert!(start.elapsed() < DEADLINE, "{name}: the thread was ended: it made a system call");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(done.load(SeqCst), 1, "{name}");
    }
}
