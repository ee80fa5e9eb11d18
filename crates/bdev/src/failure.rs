//! Why something about a bdev could not be done.

use std::fmt;
use std::io;

/// A sentence for people and the errno that the RPC answers with (SPDK answers bdev errors with the negative errno).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BdevError {
    pub errno: i32,
    pub message: String,
}

impl BdevError {
    pub fn new(errno: i32, message: impl Into<String>) -> Self {
        Self { errno, message: message.into() }
    }

    /// What the kernel said, and about what.
    pub fn io(what: impl fmt::Display, error: &io::Error) -> Self {
        Self { errno: error.raw_os_error().unwrap_or(libc::EIO), message: format!("{what}: {error}") }
    }
}

impl fmt::Display for BdevError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for BdevError {}
