//! What the NVM Express specifications say, as values: registers, commands, completions, identify data.
//!
//! Sections are those of the NVM Express Base Specification 2.0 unless another one is named. Nothing here touches a
//! device.

mod command;
mod completion;
mod identify;
mod log;
mod registers;

pub use command::{Command, Direction, admin, feature, io};
pub use completion::{Completion, Status};
pub use identify::{Identifiers, IdentifyController, IdentifyNamespace, NvmLimits, namespace_list};
pub use log::{AsyncEvent, EventKind, HealthLog, LOG_CHANGED_NAMESPACES, LOG_HEALTH};
pub use registers::{
    Capabilities, Configuration, ControllerStatus, ShutdownStatus, Version, doorbell, register,
};

/// The page size that the driver uses: CC.MPS = 0. A controller that cannot do 4 KiB pages is refused.
pub const PAGE: usize = 4096;
/// Bytes of one submission queue entry.
pub const COMMAND_BYTES: usize = 64;
/// Bytes of one completion queue entry.
pub const COMPLETION_BYTES: usize = 16;
