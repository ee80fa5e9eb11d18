//! What the process gives up, so that a guest that breaks into it gains little: files (Landlock), system calls (seccomp).
//!
//! Landlock binds a thread and those that it starts, so the rules come before the reactors and are made of what the
//! configuration names. The seccomp filter comes last and binds all threads at once.

pub mod files;
pub mod syscalls;
