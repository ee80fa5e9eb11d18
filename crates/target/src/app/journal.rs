//! The log: lines on stderr with a level, at most so many from one place in the code.
//!
//! SPDK's five levels are those of the `log` crate: ERROR, WARNING, NOTICE (info), INFO (debug) and DEBUG (trace). A
//! hostile guest can make the program complain as often as it likes, so each place may write ten lines in five seconds;
//! then it falls silent and says afterwards how many lines it has kept back.

use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use log::{Level, LevelFilter, Log, Metadata, Record};

const BURST: u32 = 10;
const PERIOD: Duration = Duration::from_secs(5);

/// SPDK's names, least first; the number of each is that of [`Level`].
pub const LEVELS: [&str; 5] = ["ERROR", "WARNING", "NOTICE", "INFO", "DEBUG"];

/// Which part of the code each of SPDK's log flags stands for.
pub const FLAGS: &[(&str, &str)] = &[
    ("app_config", "nvlane_target::app"),
    ("bdev", "nvlane_bdev"),
    ("bdev_malloc", "nvlane_bdev::malloc"),
    ("bdev_null", "nvlane_bdev::null"),
    ("bdev_nvme", "nvlane_bdev::nvme"),
    ("memory", "nvlane_memory"),
    ("nvme", "nvlane_nvme"),
    ("reactor", "nvlane_target::reactor"),
    ("rpc", "nvlane_target::control"),
    ("scsi", "nvlane_scsi"),
    ("uring", "nvlane_bdev::file"),
    ("vhost", "nvlane_target"),
    ("vhost_blk", "nvlane_target::device::blk"),
    ("vhost_ring", "nvlane_ring"),
    ("vhost_rpc", "nvlane_target::control::methods"),
    ("vhost_scsi", "nvlane_target::device::scsi"),
    ("vhost_user", "nvlane_target::session"),
];

/// What is printed, and what SPDK sends to syslog; here both go to stderr, which the service manager keeps.
static PRINTED: AtomicU8 = AtomicU8::new(Level::Info as u8);
static LOGGED: AtomicU8 = AtomicU8::new(Level::Info as u8);
/// A bit for each of [`FLAGS`].
static RAISED: AtomicU64 = AtomicU64::new(0);

struct Journal {
    /// By file and line.
    places: Mutex<HashMap<(&'static str, u32), Place>>,
    /// Under systemd a line starts with its priority (sd-daemon(3)).
    service: bool,
}

struct Place {
    since: Instant,
    written: u32,
    kept_back: u64,
}

pub fn level(name: &str) -> Option<u8> {
    LEVELS.iter().position(|level| level.eq_ignore_ascii_case(name)).map(|index| index as u8 + 1)
}

pub fn level_name(level: u8) -> &'static str {
    LEVELS[usize::from(level.clamp(1, 5)) - 1]
}

pub fn printed() -> u8 {
    PRINTED.load(Relaxed)
}

pub fn logged() -> u8 {
    LOGGED.load(Relaxed)
}

pub fn set_printed(level: u8) {
    PRINTED.store(level, Relaxed);
    set_maximum();
}

pub fn set_logged(level: u8) {
    LOGGED.store(level, Relaxed);
}

pub fn flag(index: usize) -> bool {
    RAISED.load(Relaxed) >> index & 1 == 1
}

pub fn set_flag(index: usize, raised: bool) {
    if raised {
        RAISED.fetch_or(1 << index, Relaxed);
    } else {
        RAISED.fetch_and(!(1 << index), Relaxed);
    }
    set_maximum();
}

/// So that what nobody wants to read costs one comparison.
fn set_maximum() {
    let levels =
        [LevelFilter::Error, LevelFilter::Warn, LevelFilter::Info, LevelFilter::Debug, LevelFilter::Trace];
    log::set_max_level(match RAISED.load(Relaxed) {
        0 => levels[usize::from(printed().clamp(1, 5)) - 1],
        _ => LevelFilter::Trace,
    });
}

/// Starts the log; the level is a number of [`LEVELS`].
pub fn start(level: u8) -> Result<(), log::SetLoggerError> {
    let service = std::env::var_os("JOURNAL_STREAM").is_some();
    log::set_boxed_logger(Box::new(Journal { places: Mutex::new(HashMap::new()), service }))?;
    set_printed(level);
    Ok(())
}

/// A flag covers the code below its path.
fn flagged(target: &str) -> bool {
    let raised = RAISED.load(Relaxed);
    raised != 0
        && FLAGS.iter().enumerate().any(|(index, (_, path))| {
            raised >> index & 1 == 1
                && target.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        })
}

impl Log for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() as u8 <= printed() || flagged(metadata.target())
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let place = (record.file_static().unwrap_or("?"), record.line().unwrap_or(0));
        // What somebody has asked to see in detail is not held back.
        let detail = matches!(record.level(), Level::Debug | Level::Trace);
        let Some(kept_back) = (if detail { Some(0) } else { self.admit(place, Instant::now()) }) else {
            return;
        };
        let prefix = match (self.service, record.level()) {
            (false, _) => String::new(),
            (true, Level::Error) => "<3>".into(),
            (true, Level::Warn) => "<4>".into(),
            (true, Level::Info) => "<5>".into(),
            (true, Level::Debug) => "<6>".into(),
            (true, Level::Trace) => "<7>".into(),
        };
        let level = level_name(record.level() as u8);
        let module = record.target().strip_prefix("nvlane_").unwrap_or(record.target());
        let more = match kept_back {
            0 => String::new(),
            count => format!(" ({count} more of these were kept back)"),
        };
        let line = format!("{prefix}{level} {module}: {}{more}\n", record.args());
        // When stderr is gone there is nowhere left to say so.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

impl Journal {
    /// Whether a line from this place is written now, and how many were kept back before it.
    fn admit(&self, place: (&'static str, u32), now: Instant) -> Option<u64> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = places.entry(place).or_insert(Place { since: now, written: 0, kept_back: 0 });
        if now.saturating_duration_since(entry.since) >= PERIOD {
            (entry.since, entry.written) = (now, 0);
        }
        if entry.written == BURST {
            entry.kept_back += 1;
            return None;
        }
        entry.written += 1;
        Some(std::mem::take(&mut entry.kept_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_repeats_itself_falls_silent_and_counts() {
        let journal = Journal { places: Mutex::new(HashMap::new()), service: false };
        let start = Instant::now();
        let here = ("a.rs", 1);
        assert!((0..BURST).all(|_| journal.admit(here, start) == Some(0)));
        assert_eq!(journal.admit(here, start), None);
        assert_eq!(journal.admit(here, start), None);
        assert_eq!(journal.admit(("a.rs", 2), start), Some(0), "another place is another matter");
        assert_eq!(journal.admit(here, start + PERIOD), Some(2));
        assert_eq!(journal.admit(here, start + PERIOD), Some(0));
    }

    #[test]
    fn levels_have_spdks_names() {
        assert_eq!(level("notice"), Some(3));
        assert_eq!(level("LOUD"), None);
        assert_eq!(level_name(Level::Trace as u8), "DEBUG");
        assert_eq!(level_name(Level::Error as u8), "ERROR");
    }
}
