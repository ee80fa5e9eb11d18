//! Memory that vanishes: it costs its session, nothing else; any other SIGBUS still ends the process.

use std::os::unix::process::ExitStatusExt;

use nvlane_memory::{GuestMemory, RegionSpec, memfd, sigbus};

fn session(file: &std::fs::File) -> GuestMemory {
    let file = file.try_clone().unwrap().into();
    GuestMemory::map(vec![RegionSpec {
        guest_address: 0,
        size: 0x4000,
        user_address: 0,
        mmap_offset: 0,
        file,
    }])
    .unwrap()
}

fn memory() -> std::fs::File {
    let file = memfd(c"sigbus-test", 0).unwrap();
    file.set_len(0x4000).unwrap();
    file
}

#[test]
fn a_truncated_file_poisons_its_session_only() {
    let (bad, good) = (memory(), memory());
    let (victim, other) = (session(&bad), session(&good));
    bad.set_len(0).unwrap();
    let before = sigbus::faults();
    let pointer = victim.translate(0x2000, 4).unwrap().0;
    // SAFETY: inside the mapping; the fault is the handler's to mend.
    unsafe {
        pointer.write_volatile(1);
        assert_eq!(pointer.read_volatile(), 1);
    }
    assert!(victim.poisoned() && !other.poisoned());
    assert_eq!(sigbus::faults(), before + 1);
    // SAFETY: inside the mapping.
    unsafe { other.translate(0, 4).unwrap().0.write_volatile(2) };
    // A poisoned region is never taken over into a new table.
    bad.set_len(0x4000).unwrap();
    let file = bad.try_clone().unwrap().into();
    let spec = RegionSpec { guest_address: 0, size: 0x4000, user_address: 0, mmap_offset: 0, file };
    assert!(!victim.remap(vec![spec]).unwrap().poisoned());
}

#[test]
fn registers_that_vanish_read_as_ones() {
    use std::os::fd::AsRawFd;
    let file = memory();
    // SAFETY: a fresh mapping that is watched until the end of the test.
    unsafe {
        let (read_write, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        let base =
            libc::mmap(std::ptr::null_mut(), 0x2000, read_write, shared, file.as_raw_fd(), 0).cast::<u8>();
        let watch = sigbus::Registers::watch(base, 0x2000).unwrap();
        assert!(!watch.gone());
        file.set_len(0).unwrap();
        assert_eq!(base.cast::<u32>().add(7).read_volatile(), u32::MAX);
        assert!(watch.gone());
    }
}

/// Runs itself as a child that takes a SIGBUS which is nobody's.
#[test]
fn any_other_fault_ends_the_process() {
    const CHILD: &str = "NVLANE_SIGBUS_CHILD";
    if let Ok(kind) = std::env::var(CHILD) {
        let _installed = session(&memory());
        // SAFETY: the fault is the point; the signal is this process's own.
        unsafe {
            if kind == "sent" {
                libc::raise(libc::SIGBUS);
            } else {
                use std::os::fd::AsRawFd;
                let file = memory();
                let (read, shared) = (libc::PROT_READ, libc::MAP_SHARED);
                let base =
                    libc::mmap(std::ptr::null_mut(), 0x1000, read, shared, file.as_raw_fd(), 0).cast::<u8>();
                file.set_len(0).unwrap();
                base.read_volatile();
            }
        }
        std::process::exit(0); // not reached
    }
    for kind in ["sent", "fault"] {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "any_other_fault_ends_the_process", "--nocapture"])
            .env(CHILD, kind)
            .stderr(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.signal(), Some(libc::SIGBUS), "{kind}");
    }
}
