//! Log pages and asynchronous events (5.2, 5.16.1).

/// SMART / Health Information.
pub const LOG_HEALTH: u8 = 0x02;
/// Changed Namespace List.
pub const LOG_CHANGED_NAMESPACES: u8 = 0x04;

/// What an asynchronous event says, from double word 0 of its completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsyncEvent {
    pub kind: EventKind,
    /// The page that has to be read before the controller reports this kind again.
    pub log_page: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Type 0: errors; the code.
    Error(u8),
    /// Type 1: health; the code.
    Health(u8),
    /// Type 2, code 0.
    NamespaceAttributeChanged,
    /// Type 2, others.
    Notice(u8),
    /// Types 6 and 7, and what is reserved.
    Other(u8),
}

impl AsyncEvent {
    pub fn parse(result: u32) -> Self {
        let code = (result >> 8) as u8;
        let kind = match result & 7 {
            0 => EventKind::Error(code),
            1 => EventKind::Health(code),
            2 if code == 0 => EventKind::NamespaceAttributeChanged,
            2 => EventKind::Notice(code),
            other => EventKind::Other(other as u8),
        };
        Self { kind, log_page: (result >> 16) as u8 }
    }
}

/// The fields of SMART / Health Information (5.16.1.3) that people ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthLog {
    /// Bits: spare low, temperature, reliability degraded, read only, volatile backup failed, persistent memory.
    pub critical_warning: u8,
    /// Kelvin.
    pub temperature: u16,
    pub available_spare: u8,
    pub percentage_used: u8,
}

impl HealthLog {
    pub fn parse(page: &[u8; 512]) -> Self {
        Self {
            critical_warning: page[0],
            temperature: u16::from_le_bytes([page[1], page[2]]),
            available_spare: page[3],
            percentage_used: page[5],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_apart() {
        let changed = AsyncEvent::parse(0x0004_0002);
        assert_eq!(
            (changed.kind, changed.log_page),
            (EventKind::NamespaceAttributeChanged, LOG_CHANGED_NAMESPACES)
        );
        assert_eq!(AsyncEvent::parse(0x0002_0101).kind, EventKind::Health(1));
        assert_eq!(AsyncEvent::parse(0x0003_0102).kind, EventKind::Notice(1));
    }
}
