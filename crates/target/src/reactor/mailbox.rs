//! How the control thread talks to a reactor: a queue, and a wake-up only if the reactor sleeps.
//!
//! The poster stores the letter, then looks whether the reader sleeps; the reader says that it sleeps, then looks for
//! letters. Both with a sequentially consistent fence between, so at least one of them sees the other: no letter waits
//! for a reader that nobody wakes. The tests below let loom try every order.

#[cfg(loom)]
use loom::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering, fence},
};
#[cfg(not(loom))]
use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering, fence},
};

pub struct Mailbox<T> {
    letters: Mutex<Vec<T>>,
    /// There is a letter; a reader that is busy looks at nothing else.
    waiting: AtomicBool,
    asleep: AtomicBool,
}

impl<T> Mailbox<T> {
    pub fn new() -> Self {
        Self {
            letters: Mutex::new(Vec::new()),
            waiting: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
        }
    }

    /// Leaves a letter. True: the reader sleeps and the caller has to wake it.
    #[must_use]
    pub fn post(&self, letter: T) -> bool {
        let mut letters = self.letters.lock().expect("no holder of this lock can panic");
        letters.push(letter);
        self.waiting.store(true, Ordering::Release);
        drop(letters);
        fence(Ordering::SeqCst);
        // Of several posters one wakes. Exchanges on both sides, so that of two one sees the other's whatever the
        // fences do: loom finds a lost wake-up with a plain store in doze().
        self.asleep.swap(false, Ordering::AcqRel)
    }

    /// The reader's half of every turn of its loop: one load when there is nothing.
    #[inline]
    pub fn has_letters(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    /// Moves all letters, oldest first, to the end of `to`.
    pub fn collect(&self, to: &mut Vec<T>) {
        let mut letters = self.letters.lock().expect("no holder of this lock can panic");
        self.waiting.store(false, Ordering::Relaxed);
        to.append(&mut letters);
    }

    /// The reader is about to sleep. False: a letter came, do not.
    #[must_use]
    pub fn doze(&self) -> bool {
        self.asleep.swap(true, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) {
            self.asleep.store(false, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// The reader is awake, whatever woke it.
    pub fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    pub fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn letters_come_in_order_and_a_busy_reader_is_not_woken() {
        let mailbox = Mailbox::new();
        assert!(!mailbox.post(1));
        assert!(!mailbox.post(2));
        assert!(mailbox.has_letters());
        let mut letters = vec![0];
        mailbox.collect(&mut letters);
        assert_eq!(letters, [0, 1, 2]);
        assert!(!mailbox.has_letters());
    }

    #[test]
    fn a_reader_with_letters_does_not_sleep_and_a_sleeper_is_woken_once() {
        let mailbox = Mailbox::new();
        assert!(!mailbox.post(1));
        assert!(!mailbox.doze());
        mailbox.collect(&mut Vec::new());
        assert!(mailbox.doze());
        assert!(mailbox.is_asleep());
        assert!(mailbox.post(2));
        assert!(!mailbox.post(3));
        mailbox.awake();
        assert!(!mailbox.is_asleep());
    }
}

#[cfg(all(test, loom))]
mod loom_model {
    use super::*;
    use loom::sync::{Arc, Condvar};
    use loom::thread;

    /// An eventfd: raised once is raised.
    struct Event {
        raised: Mutex<bool>,
        changed: Condvar,
    }

    impl Event {
        fn raise(&self) {
            *self.raised.lock().unwrap() = true;
            self.changed.notify_one();
        }

        fn wait(&self) {
            let mut raised = self.raised.lock().unwrap();
            while !*raised {
                raised = self.changed.wait(raised).unwrap();
            }
            *raised = false;
        }
    }

    /// loom reports a deadlock if a wake-up can be lost.
    #[test]
    fn no_letter_waits_for_a_sleeper() {
        loom::model(|| {
            let mailbox = Arc::new(Mailbox::new());
            let event = Arc::new(Event { raised: Mutex::new(false), changed: Condvar::new() });
            let poster = {
                let (mailbox, event) = (mailbox.clone(), event.clone());
                thread::spawn(move || {
                    for letter in 0..2 {
                        if mailbox.post(letter) {
                            event.raise();
                        }
                    }
                })
            };
            let mut letters = Vec::new();
            while letters.len() < 2 {
                if mailbox.has_letters() {
                    mailbox.collect(&mut letters);
                } else if mailbox.doze() {
                    event.wait();
                    mailbox.awake();
                }
            }
            assert_eq!(letters, [0, 1]);
            poster.join().unwrap();
        });
    }
}
