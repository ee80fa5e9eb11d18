use crate::NvmeError;

/// What happened to a controller by itself. It is told by the supervisor's thread: hand it on, and return soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A namespace has another size: blocks.
    Resized { namespace: u32, blocks: u64 },
    /// A namespace came.
    Added { namespace: u32 },
    /// A namespace went, or became one that cannot be served.
    Removed { namespace: u32 },
    /// The controller was reset, and works again.
    Reset { reason: String },
    /// It does not work any more, and requests fail.
    Failed(NvmeError),
    /// It was unplugged, or the system wants it back; requests fail, and it should be detached soon.
    Gone,
    /// The drive warns (SMART: critical warning bits, 5.16.1.3).
    Warning { critical_warning: u8 },
    /// Something worth a line in the log.
    Note(String),
}
