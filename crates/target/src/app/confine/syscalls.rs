//! seccomp: the system calls that are left (seccomp(2)). Any other ends with EPERM.
//!
//! EPERM and not a signal: what the C library tries first and does otherwise when refused (rseq, a newer variant of a
//! call) must not end a program that guests rely on; what an intruder wants is refused all the same.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// No execve, no ptrace, no mount, no module, no new name space, no change of user, no outgoing network.
const ALLOWED: &[i64] = &[
    // Memory
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_munlock,
    libc::SYS_memfd_create,
    libc::SYS_mincore,
    libc::SYS_mbind,
    libc::SYS_get_mempolicy,
    libc::SYS_membarrier,
    // Threads, time, signals
    libc::SYS_futex,
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_getcpu,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_tgkill,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_uname,
    // Waiting
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_ppoll,
    // Files and devices
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_fallocate,
    libc::SYS_ftruncate,
    libc::SYS_utimensat, // a file that was only looked at keeps its date
    libc::SYS_fadvise64,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_statfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_ioctl,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Sockets that are there, and new ones of the UNIX family (below)
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_socketpair,
];

/// Calls that only older architectures have; the C library still uses them there.
#[cfg(target_arch = "x86_64")]
const OLD: &[i64] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_unlink,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_poll,
    libc::SYS_epoll_wait,
    libc::SYS_dup2,
    libc::SYS_accept,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[i64] = &[];

/// Threads, and no name spaces.
const CLONE_THREAD: u64 = libc::CLONE_THREAD as u64;

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, String> {
    let architecture = std::env::consts::ARCH.try_into().map_err(|error| format!("{error}"))?;
    let filter =
        SeccompFilter::new(rules, otherwise, matched, architecture).map_err(|error| error.to_string())?;
    filter.try_into().map_err(|error| format!("{error}"))
}

/// The flags of clone3 lie in memory, which a filter cannot see. Told that there is no such call (ENOSYS), the C library
/// makes its threads with clone, whose flags can be checked. Of two filters the stricter answer counts.
fn no_clone3() -> Result<BpfProgram, String> {
    let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    compile(rules, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))
}

fn program() -> Result<BpfProgram, String> {
    let compare = |index, length, operator, value| {
        let condition =
            SeccompCondition::new(index, length, operator, value).map_err(|error| error.to_string())?;
        SeccompRule::new(vec![condition]).map_err(|error| error.to_string())
    };
    let when = |index, operator, value| compare(index, SeccompCmpArgLen::Dword, operator, value);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().chain(OLD).map(|number| (*number, Vec::new())).collect();
    rules.insert(libc::SYS_clone, vec![when(0, SeccompCmpOp::MaskedEq(CLONE_THREAD), CLONE_THREAD)?]);
    rules.insert(libc::SYS_socket, vec![when(0, SeccompCmpOp::Eq, libc::AF_UNIX as u64)?]);
    // Memory that can be written shall never be run.
    let executable = SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64);
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![when(2, executable.clone(), 0)?]);
    }
    // prctl for the names of threads and of mappings, nothing else.
    const PR_SET_VMA: u64 = 0x53564d41;
    let names = [libc::PR_SET_NAME as u64, libc::PR_GET_NAME as u64, PR_SET_VMA];
    let names = names.into_iter().map(|option| when(0, SeccompCmpOp::Eq, option));
    rules.insert(libc::SYS_prctl, names.collect::<Result<_, _>>()?);
    // Itself: `spdk_kill_instance` with SIGKILL.
    let this = u64::from(std::process::id());
    rules.insert(libc::SYS_kill, vec![when(0, SeccompCmpOp::Eq, this)?]);
    // Limits are read, never raised: the third argument is the new limit.
    rules.insert(libc::SYS_prlimit64, vec![compare(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?]);
    compile(rules, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow)
}

/// Binds all threads of the process, for good.
pub fn confine() -> Result<(), String> {
    for filter in [no_clone3()?, program()?] {
        seccompiler::apply_filter_all_threads(&filter).map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_is_short_enough_for_the_kernel() {
        // BPF_MAXINSNS
        assert!(program().unwrap().len() < 4096);
    }

    #[test]
    fn what_is_left_works_and_the_rest_is_refused() {
        // A thread of its own, without touching the others of the test program.
        let outcome = std::thread::spawn(|| {
            seccompiler::apply_filter(&no_clone3().unwrap()).unwrap();
            seccompiler::apply_filter(&program().unwrap()).unwrap();
            let other =
                std::net::UdpSocket::bind("127.0.0.1:0").map(drop).map_err(|error| error.raw_os_error());
            let started = std::process::Command::new("/bin/true")
                .spawn()
                .map(drop)
                .map_err(|error| error.raw_os_error());
            let unix = std::os::unix::net::UnixStream::pair().is_ok();
            let thread = std::thread::spawn(|| 7).join().ok();
            let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).is_ok();
            let read = std::fs::read("/proc/self/stat").is_ok();
            (other, started, unix, thread, event, read)
        });
        let (other, started, unix, thread, event, read) = outcome.join().unwrap();
        assert_eq!(other, Err(Some(libc::EPERM)));
        assert_eq!(started, Err(Some(libc::EPERM)));
        assert!(unix && event && read);
        assert_eq!(thread, Some(7));
    }
}
