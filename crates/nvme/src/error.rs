use std::io;

/// What went wrong with a controller: a sentence that names it, and the errno that a caller passes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NvmeError {
    pub errno: i32,
    pub message: String,
}

impl NvmeError {
    pub fn new(errno: i32, message: impl Into<String>) -> Self {
        Self { errno, message: message.into() }
    }

    /// The system refused something.
    pub fn system(what: impl std::fmt::Display, error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(match error.kind() {
            io::ErrorKind::OutOfMemory => libc::ENOMEM,
            io::ErrorKind::InvalidInput => libc::EINVAL,
            _ => libc::EIO,
        });
        Self::new(errno, format!("{what}: {error}"))
    }

    /// The device is not there any more.
    pub fn gone(address: &str) -> Self {
        Self::new(
            libc::ENODEV,
            format!("the NVMe controller at {address} is gone: its registers do not answer"),
        )
    }

    pub fn is_gone(&self) -> bool {
        self.errno == libc::ENODEV
    }
}

impl std::fmt::Display for NvmeError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for NvmeError {}
