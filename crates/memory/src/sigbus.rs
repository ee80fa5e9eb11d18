//! What happens when memory vanishes under an access.
//!
//! A front end keeps the file behind its guest's memory and can truncate it; a huge page may not be there when it is
//! first touched (MAP_NORESERVE); memory can break. Each gives SIGBUS in whoever touches the page. That must cost the
//! session that brought the memory and nobody else: the handler maps anonymous memory over the whole mapping, sets its
//! flag and returns, the access goes through, and the owner of the mapping finds it poisoned and ends the session.
//!
//! An unplugged drive's registers fault too (SPDK remaps them in the same way): they read as all ones afterwards, which
//! is what a drive that is gone reads as on PCI.
//!
//! Everything else that raises SIGBUS ends the process as before.
//!
//! The handler calls nothing but mmap by its system call (libc's wrapper may take locks), reads and writes a static
//! table of atomics, and keeps errno.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};

/// Mappings that can vanish: sessions times regions. 16 384 are 32 full sessions.
const ENTRIES: usize = 16384;

struct Entry {
    /// 0: nobody's.
    start: AtomicUsize,
    end: AtomicUsize,
    poisoned: AtomicBool,
    /// The anonymous memory is filled with ones.
    ones: AtomicBool,
}

static TABLE: [Entry; ENTRIES] = [const {
    Entry {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        poisoned: AtomicBool::new(false),
        ones: AtomicBool::new(false),
    }
}; ENTRIES];
/// One more than the highest entry that was ever used.
static USED: AtomicUsize = AtomicUsize::new(0);
static FAULTS: AtomicU64 = AtomicU64::new(0);
static FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// How often memory has vanished since the start. A reactor compares it with what it saw last and only then asks its
/// sessions whether they are poisoned.
#[inline]
pub fn faults() -> u64 {
    FAULTS.load(Ordering::Relaxed)
}

/// A place in the handler's table, for as long as the mapping lives.
#[derive(Debug)]
pub(crate) struct Slot(usize);

impl Slot {
    pub fn take(start: usize, length: usize) -> io::Result<Slot> {
        Slot::insert(start, length, false)
    }

    fn insert(start: usize, length: usize, ones: bool) -> io::Result<Slot> {
        install()?;
        let recycled = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let index = match recycled {
            Some(index) => index,
            None => USED
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                    (used < ENTRIES).then_some(used + 1)
                })
                .map_err(|_| io::Error::from_raw_os_error(libc::ENOSPC))?,
        };
        let entry = &TABLE[index];
        entry.poisoned.store(false, Ordering::Relaxed);
        entry.ones.store(ones, Ordering::Relaxed);
        entry.end.store(start + length, Ordering::Relaxed);
        entry.start.store(start, Ordering::Release);
        Ok(Slot(index))
    }

    pub fn poisoned(&self) -> bool {
        TABLE[self.0].poisoned.load(Ordering::Acquire)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        TABLE[self.0].start.store(0, Ordering::Release);
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push(self.0);
    }
}

/// Device registers that were mapped outside the arena: when they vanish they read as ones and `gone` says so.
#[derive(Debug)]
pub struct Registers(Slot);

impl Registers {
    /// Watches `length` bytes of registers mapped at `start` until dropped, which must be before they are unmapped.
    ///
    /// # Errors
    /// ENOSPC when too many are watched; those of sigaction(2).
    ///
    /// # Safety
    /// The range is page aligned and a mapping of the caller's that stays until this value is dropped; after a fault
    /// its pages are replaced.
    pub unsafe fn watch(start: *mut u8, length: usize) -> io::Result<Registers> {
        Slot::insert(start as usize, length, true).map(Registers)
    }

    pub fn gone(&self) -> bool {
        self.0.poisoned()
    }
}

static mut PREVIOUS: std::mem::MaybeUninit<libc::sigaction> = std::mem::MaybeUninit::uninit();

fn install() -> io::Result<()> {
    static INSTALL: Once = Once::new();
    static ERROR: AtomicUsize = AtomicUsize::new(0);
    INSTALL.call_once(|| {
        // SAFETY: a zeroed sigaction is valid; the handler has the signature SA_SIGINFO asks for; PREVIOUS is written
        // here only, once, and read by the handler only, which cannot run before sigaction has returned for a mapping
        // that is registered later.
        let result = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handle as *const () as usize;
            // The alternate stack that Rust gives its threads, where there is one.
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&mut action.sa_mask);
            libc::sigaction(libc::SIGBUS, &action, (&raw mut PREVIOUS).cast())
        };
        if result != 0 {
            let errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL);
            ERROR.store(errno as usize, Ordering::Release);
        }
    });
    match ERROR.load(Ordering::Acquire) {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno as i32)),
    }
}

extern "C" fn handle(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel gave a valid siginfo (SA_SIGINFO), and SIGBUS with a positive code carries an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    // A code of zero or less: somebody sent the signal, there is no address to mend.
    if code > 0 && mend(address) {
        return;
    }
    // SAFETY: PREVIOUS was filled before the handler was active (`install`). With the old action back, returning runs
    // the access again, and the fault then ends the process as it would have. A sent signal has no access to repeat
    // (Rust's own handler, which may be the old action, would return from it): it gets the default action.
    unsafe {
        if code > 0 {
            libc::sigaction(libc::SIGBUS, (&raw const PREVIOUS).cast(), std::ptr::null_mut());
        } else {
            libc::signal(libc::SIGBUS, libc::SIG_DFL);
            libc::raise(libc::SIGBUS);
        }
    }
}

/// Puts anonymous memory over the mapping that holds this address; false when it is none of the table's.
fn mend(address: usize) -> bool {
    let used = USED.load(Ordering::Acquire);
    for entry in &TABLE[..used] {
        let start = entry.start.load(Ordering::Acquire);
        let end = entry.end.load(Ordering::Relaxed);
        if start == 0 || address < start || address >= end {
            continue;
        }
        // SAFETY: errno is this thread's; the range is a live mapping that was registered to be replaced when it
        // faults: its owner keeps it mapped for as long as it is in the table, and it is being accessed right now.
        // MAP_FIXED replaces its pages and nothing else. The kernel's answer is checked before memory is filled.
        unsafe {
            let errno = *libc::__errno_location();
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            let mapped = libc::syscall(libc::SYS_mmap, start, end - start, protection, flags, -1, 0);
            *libc::__errno_location() = errno;
            if mapped as usize != start {
                return false;
            }
            if entry.ones.load(Ordering::Relaxed) {
                for byte in start..end {
                    (byte as *mut u8).write_volatile(0xff);
                }
            }
        }
        entry.poisoned.store(true, Ordering::Release);
        FAULTS.fetch_add(1, Ordering::Release);
        return true;
    }
    false
}
