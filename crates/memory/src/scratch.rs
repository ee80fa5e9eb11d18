//! Buffers that a request borrows when the guest's own will not do: a pattern to be written again and again, blocks
//! that are read only to be compared.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{HostMemory, Segment};

/// Bytes in each; the largest block of a disk fits.
const LENGTH: usize = 64 << 10;

/// Those that nobody has borrowed. None is ever unmapped, so that a segment outlives whoever borrowed it; there are as
/// many as were needed at once.
static FREE: Mutex<Vec<Segment>> = Mutex::new(Vec::new());

/// A buffer that every drive reaches. What it holds at first is whatever the last borrower left there, which was on a
/// disk of ours or came from a guest: write it before anybody sees it.
#[derive(Debug)]
pub struct Scratch(Segment);

impl Scratch {
    /// # Errors
    /// ENOMEM, also when the limit of locked memory is too low (`ulimit -l`).
    pub fn new() -> io::Result<Scratch> {
        let free = free().pop();
        match free {
            Some(segment) => Ok(Scratch(segment)),
            None => Ok(Scratch(HostMemory::for_dma(LENGTH)?.leak())),
        }
    }

    pub fn segment(&self) -> Segment {
        self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        free().push(self.0);
    }
}

fn free() -> MutexGuard<'static, Vec<Segment>> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_used_again_and_never_twice_at_once() {
        let first = Scratch::new().unwrap();
        let second = Scratch::new().unwrap();
        assert_eq!(first.segment().len(), LENGTH);
        assert_ne!(first.segment(), second.segment());
        crate::copy::copy_out(&[1, 2, 3], &[first.segment()], LENGTH - 3);
    }
}
