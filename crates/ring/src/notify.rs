//! When the driver has to be called.
//!
//! A driver that goes to sleep writes where it wants to be called, has a barrier, and looks at the ring once more. The
//! device writes the ring, needs a barrier too, and then looks where the driver wants to be called; without the barrier
//! both may see the old value, and the driver sleeps for ever. That barrier waits until everything written to the
//! guest's memory has left the store buffer, some hundred nanoseconds when the other side is polling.
//!
//! So under load it is left out, and what it would have decided stays open: the number of completions whose decision is
//! not final. It becomes final in the next call of `publish` with nothing to show, behind a barrier, when there is time.

use crate::sync::{Ordering, fence};

/// The window of completions may not grow to where 16-bit indices wrap.
const LARGEST: u32 = 0x4000;

#[derive(Debug, Default)]
pub(crate) struct Call {
    /// Completions shown whose call is not decided for good.
    open: u32,
}

impl Call {
    pub fn settled(&self) -> bool {
        self.open == 0
    }

    /// After `count` more were shown; `wanted(open)`: whether the driver wants to be called for the last `open` ones.
    #[inline(always)]
    pub fn shown(&mut self, count: u32, wanted: impl Fn(u32) -> bool) -> bool {
        self.open += count;
        if self.open > LARGEST {
            return self.settle(wanted);
        }
        // A yes is a yes whatever came later: the call's system call is a barrier by itself.
        let call = wanted(self.open);
        if call {
            self.open = 0;
        }
        call
    }

    /// Whether as many more may be shown before something is decided.
    #[inline(always)]
    pub fn room_for(&self, count: u32) -> bool {
        self.open + count <= LARGEST
    }

    /// `count` more were shown, and nothing is decided about them yet.
    #[inline(always)]
    pub fn later(&mut self, count: u32) {
        self.open += count;
    }

    /// Decides what is open.
    #[inline(always)]
    pub fn settle(&mut self, wanted: impl Fn(u32) -> bool) -> bool {
        if self.open == 0 {
            return false;
        }
        fence(Ordering::SeqCst);
        wanted(std::mem::take(&mut self.open))
    }
}

/// Whether an event index lies among the last `count` indices before `new` (2.7.10, `vring_need_event`).
#[inline(always)]
pub(crate) fn crossed(event: u16, new: u16, count: u32) -> bool {
    u32::from(new.wrapping_sub(event).wrapping_sub(1)) < count
}
