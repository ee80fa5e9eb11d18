//! Task management across the queues of a session (SAM-6 clause 7).
//!
//! The control queue may be on another reactor than the commands that it wants to end, so it asks each request queue by
//! a visit. Nothing that a block device works at can be taken back, because the device may still write to the guest's
//! memory: a task is marked, begins nothing new, and ends as aborted when what is under way has ended. Drivers expect
//! that all of them have been given back when the function is answered (Linux looks at its queues once more and then
//! takes them for dead), so it is answered when they are not only ended but published.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::wire::response;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Abort,
    Reset,
    Query,
}

impl Action {
    /// What the driver hears of a task that was ended so.
    pub fn response(self) -> u8 {
        match self {
            Action::Reset => response::RESET,
            Action::Abort | Action::Query => response::ABORTED,
        }
    }
}

/// The tasks that a function is about, and how much is still to be waited for.
#[derive(Debug)]
pub(super) struct Tasks {
    pub action: Action,
    /// None: those of all targets.
    pub target: Option<u8>,
    /// None: all of the target's.
    pub tag: Option<u64>,
    pub found: AtomicBool,
    waiting: AtomicUsize,
}

impl Tasks {
    pub fn new(action: Action, target: Option<u8>, tag: Option<u64>) -> Arc<Tasks> {
        let (found, waiting) = (AtomicBool::new(false), AtomicUsize::new(0));
        Arc::new(Tasks { action, target, tag, found, waiting })
    }

    pub fn means(&self, target: u8, tag: u64) -> bool {
        self.target.is_none_or(|meant| meant == target) && self.tag.is_none_or(|meant| meant == tag)
    }

    pub fn begin(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// What was done before is seen by who finds [`Tasks::is_over`].
    pub fn end(&self) {
        self.waiting.fetch_sub(1, Ordering::Release);
    }

    pub fn is_over(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
    }
}

/// One thing to be waited for: also over when a visit finds no queue any more and is dropped.
pub(super) struct Ticket(Arc<Tasks>);

impl Ticket {
    pub fn new(tasks: &Arc<Tasks>) -> Ticket {
        tasks.begin();
        Ticket(tasks.clone())
    }

    pub fn tasks(&self) -> &Arc<Tasks> {
        &self.0
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_meant() {
        let one = Tasks::new(Action::Abort, Some(2), Some(7));
        assert!(one.means(2, 7) && !one.means(2, 8) && !one.means(1, 7));
        let unit = Tasks::new(Action::Reset, Some(2), None);
        assert!(unit.means(2, 1) && !unit.means(3, 1));
        assert!(Tasks::new(Action::Reset, None, None).means(5, 9));
    }

    #[test]
    fn a_visit_that_finds_nobody_is_not_waited_for() {
        let tasks = Tasks::new(Action::Abort, None, None);
        let visit = Ticket::new(&tasks);
        assert!(!tasks.is_over());
        drop(visit);
        assert!(tasks.is_over());
    }
}
