//! Threads that make calls that would make a reactor wait.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::event::{EventfdFlags, eventfd};

use super::direct;
use super::open::Opened;
use super::slots::Slot;
use crate::{BdevError, Status};

pub const THREADS: usize = 8;

/// What a thread is to do, and where the result goes.
pub struct Task {
    pub slot: Slot,
    pub opened: Arc<Opened>,
    pub mailbox: Arc<Mailbox>,
}

#[derive(Default)]
pub struct Queue {
    tasks: Mutex<(VecDeque<Task>, bool)>,
    ready: Condvar,
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    pub fn push(&self, task: Task) {
        hold(&self.tasks).0.push_back(task);
        self.ready.notify_one();
    }

    /// `None`: the pool is gone.
    fn pop(&self) -> Option<Task> {
        let mut tasks = hold(&self.tasks);
        loop {
            if let Some(task) = tasks.0.pop_front() {
                return Some(task);
            }
            if tasks.1 {
                return None;
            }
            tasks = self.ready.wait(tasks).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The threads; they end when it is dropped and the last task is done.
pub struct Pool(Arc<Queue>);

impl Pool {
    /// Called on the control thread: a thread inherits the processors of who starts it, and a reactor has only one.
    pub fn start(threads: usize) -> Result<Self, BdevError> {
        let pool = Self(Arc::default());
        for _ in 0..threads {
            let queue = pool.0.clone();
            let run = move || {
                while let Some(mut task) = queue.pop() {
                    let status = direct::run(&task.opened, &mut task.slot.job);
                    task.mailbox.post(task.slot, status);
                }
            };
            thread::Builder::new()
                .name("nvlane-io".into())
                .spawn(run)
                .map_err(|error| BdevError::io("a thread for a file", &error))?;
        }
        Ok(pool)
    }

    pub fn queue(&self) -> Arc<Queue> {
        self.0.clone()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        hold(&self.0.tasks).1 = true;
        self.0.ready.notify_all();
    }
}

/// Where the threads leave the results of one channel.
pub struct Mailbox {
    results: Mutex<Vec<(Slot, Status)>>,
    /// The channel's reactor sleeps, or is about to.
    armed: AtomicBool,
    event: OwnedFd,
}

impl Mailbox {
    pub fn new() -> Result<Arc<Self>, BdevError> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| BdevError::io("an eventfd for a file", &errno.into()))?;
        Ok(Arc::new(Self { results: Mutex::default(), armed: AtomicBool::new(false), event }))
    }

    fn post(&self, slot: Slot, status: Status) {
        hold(&self.results).push((slot, status));
        if self.armed.swap(false, SeqCst) {
            // A full counter (EAGAIN) wakes the sleeper just as well.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }

    pub fn take(&self, into: &mut Vec<(Slot, Status)>) {
        into.append(&mut hold(&self.results));
    }

    /// From now on a result makes the descriptor readable; `false`: there is one already.
    pub fn arm(&self) -> bool {
        self.armed.store(true, SeqCst);
        hold(&self.results).is_empty()
    }

    /// After a sleep: nothing more is signalled, and what was signalled is forgotten.
    pub fn disarm(&self) {
        self.armed.store(false, SeqCst);
        let _ = rustix::io::read(&self.event, &mut [0u8; 8]); // EAGAIN: nothing was signalled
    }

    pub fn descriptor(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}
