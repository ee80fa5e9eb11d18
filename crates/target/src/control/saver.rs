//! Keeps the configuration in a file: whole or not at all, whatever moment the program or the machine dies at.
//!
//! Each save writes a new file beside the old one, brings it to stable storage, and renames it over the old one. That
//! may take as long as the disk likes, so a thread of its own does it; when changes come faster than the disk takes
//! them, only the newest is written.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::event::EventfdFlags;

/// An errno and a sentence.
pub type Failure = (i32, String);

#[derive(Default)]
struct Shared {
    /// What is to be written next, with its generation.
    wanted: Option<(u64, String)>,
    saved: u64,
    failure: Option<Failure>,
    stop: bool,
}

pub struct Saver {
    shared: Arc<(Mutex<Shared>, Condvar)>,
    generation: u64,
    raised: OwnedFd,
    thread: Option<std::thread::JoinHandle<()>>,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // Nothing panics while it is held; were it so, the values would still be whole.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Saver {
    pub fn start(path: PathBuf) -> io::Result<Saver> {
        let shared = Arc::new((Mutex::new(Shared::default()), Condvar::new()));
        let raised = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (theirs, event) = (shared.clone(), raised.try_clone()?);
        let thread =
            std::thread::Builder::new().name("state".into()).spawn(move || run(&path, &theirs, &event))?;
        Ok(Saver { shared, generation: 0, raised, thread: Some(thread) })
    }

    /// Hands over a configuration; it is on stable storage once [`Saver::saved`] has reached the number returned.
    pub fn save(&mut self, text: String) -> u64 {
        self.generation += 1;
        lock(&self.shared.0).wanted = Some((self.generation, text));
        self.shared.1.notify_one();
        self.generation
    }

    /// How far it is, and what went wrong with the last attempt.
    pub fn saved(&self) -> (u64, Option<Failure>) {
        let _ = rustix::io::read(&self.raised, &mut [0u8; 8]);
        let shared = lock(&self.shared.0);
        (shared.saved, shared.failure.clone())
    }
}

impl AsFd for Saver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.raised.as_fd()
    }
}

impl Drop for Saver {
    /// Waits for what was handed over.
    fn drop(&mut self) {
        lock(&self.shared.0).stop = true;
        self.shared.1.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(path: &Path, (mutex, changed): &(Mutex<Shared>, Condvar), raised: &OwnedFd) {
    let mut shared = lock(mutex);
    loop {
        match shared.wanted.take() {
            Some((generation, text)) => {
                drop(shared);
                let written = replace(path, text.as_bytes());
                if let Err(error) = &written {
                    log::error!("the configuration could not be saved: {}: {error}", path.display());
                }
                shared = lock(mutex);
                shared.saved = generation;
                shared.failure = written.err().map(|error| {
                    (error.raw_os_error().unwrap_or(libc::EIO), format!("{}: {error}", path.display()))
                });
                // A counter that is full is raised already.
                let _ = rustix::io::write(raised, &1u64.to_ne_bytes());
            }
            None if shared.stop => return,
            None => shared = changed.wait(shared).unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// The file that a save is made in before it takes the other's place.
fn draft(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

/// Puts a file with this content in the place of the old one, if any. Only its owner may read it.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let draft = draft(path);
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&draft, path)
    };
    write().inspect_err(|_| {
        // It may not be there, or not be ours to remove; the error that is reported is the first one.
        let _ = std::fs::remove_file(&draft);
    })?;
    // The new name is durable when its directory is.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};
    use std::os::unix::fs::PermissionsExt;

    fn wait(saver: &Saver, generation: u64) -> Option<Failure> {
        loop {
            let (saved, failure) = saver.saved();
            if saved >= generation {
                return failure;
            }
            let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
            assert_eq!(
                poll(&mut [PollFd::new(saver, PollFlags::IN)], Some(&limit)).unwrap(),
                1,
                "no save in 10 s"
            );
        }
    }

    #[test]
    fn the_newest_is_what_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let mut saver = Saver::start(path.clone()).unwrap();
        let last = (0..200).map(|n| saver.save(format!("number {n}"))).last().unwrap();
        assert_eq!(wait(&saver, last), None);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "number 199");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        saver.save("the end".into());
        drop(saver);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "the end");
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1, "no draft stays behind");
    }

    #[test]
    fn a_failure_is_told_and_the_next_save_may_succeed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub").join("state.json");
        let mut saver = Saver::start(path.clone()).unwrap();
        let generation = saver.save("x".into());
        assert_eq!(wait(&saver, generation).unwrap().0, libc::ENOENT);
        std::fs::create_dir(directory.path().join("sub")).unwrap();
        let generation = saver.save("y".into());
        assert_eq!(wait(&saver, generation), None);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "y");
    }
}
