//! Unit attention conditions: SAM-6 5.14.

use crate::sense::{Sense, SenseKey};

/// What an initiator has to be told before its next command is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Attention {
    // In the order of SAM-6 table 52: the first that is pending is reported first.
    PowerOn,
    UnitReset,
    NexusLost,
    ModeChanged,
    CapacityChanged,
    LunsChanged,
}

impl Attention {
    const ALL: [Attention; 6] = [
        Attention::PowerOn,
        Attention::UnitReset,
        Attention::NexusLost,
        Attention::ModeChanged,
        Attention::CapacityChanged,
        Attention::LunsChanged,
    ];

    pub const fn sense(self) -> Sense {
        let (code, qualifier) = match self {
            // "Power on, reset, or bus device reset occurred": the one that every initiator knows.
            Attention::PowerOn => (0x29, 0x00),
            Attention::UnitReset => (0x29, 0x03),
            Attention::NexusLost => (0x29, 0x07),
            Attention::ModeChanged => (0x2A, 0x01),
            Attention::CapacityChanged => (0x2A, 0x09),
            Attention::LunsChanged => (0x3F, 0x0E),
        };
        Sense::new(SenseKey::UnitAttention, code, qualifier)
    }
}

/// The conditions pending for one initiator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pending(u8);

impl Pending {
    pub fn raise(&mut self, attention: Attention) {
        match attention {
            // These say that everything was forgotten, which includes what else there was to say
            // (SAM-6 5.14: conditions may be cleared by a condition of higher precedence).
            Attention::PowerOn => self.0 = 0,
            Attention::UnitReset if self.has(Attention::PowerOn) => return,
            _ => {}
        }
        self.0 |= 1 << attention as u8;
    }

    pub fn clear(&mut self, attention: Attention) {
        self.0 &= !(1 << attention as u8);
    }

    pub fn has(self, attention: Attention) -> bool {
        self.0 & (1 << attention as u8) != 0
    }

    pub fn any(self) -> bool {
        self.0 != 0
    }

    /// The most important condition, which is thereby reported.
    pub fn take(&mut self) -> Option<Attention> {
        let first = Attention::ALL.into_iter().find(|attention| self.has(*attention))?;
        self.clear(first);
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reported_in_order_of_importance_and_once() {
        let mut pending = Pending::default();
        pending.raise(Attention::LunsChanged);
        pending.raise(Attention::CapacityChanged);
        pending.raise(Attention::UnitReset);
        let order: Vec<_> = std::iter::from_fn(|| pending.take()).collect();
        assert_eq!(order, [Attention::UnitReset, Attention::CapacityChanged, Attention::LunsChanged]);
        assert!(!pending.any());
    }

    #[test]
    fn power_on_says_it_all() {
        let mut pending = Pending::default();
        pending.raise(Attention::CapacityChanged);
        pending.raise(Attention::PowerOn);
        pending.raise(Attention::UnitReset);
        assert_eq!(pending.take(), Some(Attention::PowerOn));
        assert_eq!(pending.take(), None);
    }
}
