//! Counts the instructions between marks in another process, by stepping through them.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use super::rounds::Failure;

/// Few are enough: the same instructions run in each.
pub fn rounds(depth: usize) -> usize {
    (256 / depth).clamp(4, 32)
}

/// Before submit, kick, the wait, poll, and after it.
const MARKS: usize = 5;
const BREAKPOINT: u8 = 0xcc;
const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// Instructions of submit, kick and poll, of all rounds, and system calls among them.
#[derive(Default)]
pub struct Counts {
    pub steps: [u64; 3],
    pub calls: u64,
}

/// Stops a process that is traced.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
pub fn mark() {
    // SAFETY: a breakpoint; only the stepper runs code that has it.
    unsafe { std::arch::asm!("int3", options(nomem, nostack, preserves_flags)) };
}

#[cfg(not(target_arch = "x86_64"))]
pub fn mark() {}

pub fn count(depth: usize, address: Option<&str>) -> Result<Counts, Failure> {
    if !cfg!(target_arch = "x86_64") {
        return Err("instructions are counted on x86-64 only".into());
    }
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--stepped", &depth.to_string()]).args(address);
    // SAFETY: between fork and exec only ptrace is called, which allocates nothing.
    unsafe {
        command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    let mut traced = Traced(command.spawn()?);
    traced.wait()?; // stopped by exec
    let mut counts = Counts::default();
    for _ in 0..rounds(depth) {
        for section in 0..MARKS {
            traced.until_mark()?;
            let place = match section {
                0 | 1 => section,
                3 => 2,
                _ => continue,
            };
            traced.step_to_mark(&mut counts.steps[place], &mut counts.calls)?;
        }
    }
    traced.go(libc::PTRACE_CONT)?;
    let status = traced.0.wait()?;
    if status.success() { Ok(counts) } else { Err(format!("the stepped process ended with {status}").into()) }
}

struct Traced(Child);

impl Traced {
    fn pid(&self) -> libc::pid_t {
        self.0.id() as libc::pid_t
    }

    fn go(&self, how: libc::c_uint) -> io::Result<()> {
        // SAFETY: these requests take no address, and signal 0: none is delivered.
        match unsafe { libc::ptrace(how, self.pid(), 0, 0) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    /// Waits for a stop by SIGTRAP; other signals are delivered on.
    fn wait(&self) -> Result<(), Failure> {
        loop {
            let mut status = 0;
            // SAFETY: `status` is ours.
            if unsafe { libc::waitpid(self.pid(), &mut status, 0) } < 0 {
                return Err(io::Error::last_os_error().into());
            }
            if !libc::WIFSTOPPED(status) {
                return Err("the stepped process ended before its marks".into());
            }
            if libc::WSTOPSIG(status) == libc::SIGTRAP {
                return Ok(());
            }
            // SAFETY: goes on with the signal.
            unsafe { libc::ptrace(libc::PTRACE_CONT, self.pid(), 0, libc::WSTOPSIG(status)) };
        }
    }

    /// Runs to the next mark and over it.
    fn until_mark(&self) -> Result<(), Failure> {
        self.go(libc::PTRACE_CONT)?;
        self.wait()
    }

    /// Steps until the next instruction is a mark.
    fn step_to_mark(&self, steps: &mut u64, calls: &mut u64) -> Result<(), Failure> {
        loop {
            let code = self.next_instruction()?;
            if code[0] == BREAKPOINT {
                return Ok(());
            }
            *calls += u64::from(code[..2] == SYSCALL);
            *steps += 1;
            self.go(libc::PTRACE_SINGLESTEP)?;
            self.wait()?;
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn next_instruction(&self) -> Result<[u8; 8], Failure> {
        // SAFETY: PTRACE_GETREGS fills the structure; PTRACE_PEEKTEXT reads a word of the traced process.
        let word = unsafe {
            let mut registers: libc::user_regs_struct = std::mem::zeroed();
            if libc::ptrace(libc::PTRACE_GETREGS, self.pid(), 0, &mut registers) < 0 {
                return Err(io::Error::last_os_error().into());
            }
            libc::ptrace(libc::PTRACE_PEEKTEXT, self.pid(), registers.rip, 0)
        };
        Ok(word.to_ne_bytes())
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn next_instruction(&self) -> Result<[u8; 8], Failure> {
        Err("not on this processor".into())
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = self.0.kill(); // it was stopped in the middle, after an error
            let _ = self.0.wait();
        }
    }
}
