//! Serving requests: on a stream, or on a port whose other end comes and goes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};
use rustix::termios::{OptionalActions, isatty, tcgetattr, tcsetattr};
use serde_json::json;

use crate::methods::{self, After};
use crate::protocol::{LONGEST_LINE, answer};
use crate::sysfs::Tree;
use crate::uevent::Uevents;

/// Answer line by line until the input ends.
pub fn lines(mut input: impl BufRead, mut output: impl Write) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.by_ref().take(LONGEST_LINE as u64).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let mut after = After::Serve;
        if let Some(reply) = answer(&line, |method, given| methods::handle(method, given, &mut after)) {
            // One write: a peer that reads in between must not see half a line for long.
            output.write_all(format!("{reply}\n").as_bytes())?;
            output.flush()?;
        }
        reap();
        if after == After::PowerOff {
            return Err(methods::power_off());
        }
    }
}

/// Serve on a port until it is gone for good. The host's side may close and open it any number of times.
pub fn port(path: &Path) -> Result<(), String> {
    loop {
        let failed = |error: io::Error| format!("{}: {error}", path.display());
        let port = File::options().read(true).write(true).open(path).map_err(failed)?;
        make_raw(&port).map_err(failed)?;
        match session(&port) {
            Ok(()) => {}
            // The host's side went away in the middle; EPIPE and EIO are how the console driver says so.
            Err(error)
                if matches!(Errno::from_io_error(&error), Some(Errno::PIPE | Errno::IO | Errno::NODEV)) => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

/// One visit of the host. The first write waits in the kernel until the host's side is open, which is the only event
/// there is for it (drivers/char/virtio_console.c, wait_port_writable): reading or polling would return at once.
fn session(mut port: &File) -> io::Result<()> {
    port.write_all(
        format!("{}\n", json!({"event": "ready", "probe": env!("CARGO_PKG_VERSION")})).as_bytes(),
    )?;
    lines(BufReader::new(port), port)
}

/// On a serial line: no echo, no translation, one byte at a time.
fn make_raw(port: &File) -> io::Result<()> {
    if isatty(port.as_fd()) {
        let mut settings = tcgetattr(port)?;
        settings.make_raw();
        tcsetattr(port, OptionalActions::Now, &settings)?;
    }
    Ok(())
}

/// Orphans become children of process 1. Between requests no child of ours is awaited by anybody else.
fn reap() {
    if std::process::id() == 1 {
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    }
}

/// The device of the virtio-serial port of that name, waiting for it until the deadline (`None`: for ever).
pub fn find_port(name: &str, deadline: Option<Instant>) -> Result<PathBuf, String> {
    let events = Uevents::listen().map_err(|error| format!("listen for uevents: {error}"))?;
    let tree = Tree::system();
    loop {
        if let Some(path) = port_named(&tree, name) {
            return Ok(path);
        }
        match events.next(deadline) {
            Ok(Some(_)) => {}
            Ok(None) => return Err(format!("no virtio-serial port is called {name}")),
            Err(error) => return Err(format!("wait for uevents: {error}")),
        }
    }
}

/// Without udev there is no /dev/virtio-ports: sysfs has the names.
fn port_named(tree: &Tree, name: &str) -> Option<PathBuf> {
    let ports = tree.names("sys/class/virtio-ports");
    let port = ports
        .iter()
        .find(|port| tree.text(format!("sys/class/virtio-ports/{port}/name")).as_deref() == Some(name))?;
    Some(Path::new("/dev").join(port)).filter(|path| path.exists())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sysfs::tests::Fake;

    #[test]
    fn every_line_has_one_answer() {
        let mut output = Vec::new();
        let input = b"{\"id\":1,\"method\":\"hello\"}\n\nrubbish\n{\"id\":2,\"method\":\"nothing\"}\n";
        lines(&input[..], &mut output).expect("no error");
        let text = String::from_utf8(output).expect("UTF-8");
        let ids: Vec<String> = text.lines().map(|line| line[..line.len().min(40)].to_owned()).collect();
        assert_eq!(ids.len(), 3, "{ids:?}");
        assert!(text.contains("unknown-method") && text.contains("boot_id"));
    }

    #[test]
    fn a_line_without_an_end_is_answered_at_the_end() {
        let mut output = Vec::new();
        lines(&b"{\"id\":1,\"method\":\"hello\"}"[..], &mut output).expect("no error");
        assert!(output.ends_with(b"\n"));
    }

    #[test]
    fn a_port_is_found_by_its_name_in_sysfs() {
        let fake = Fake::new();
        fake.file("sys/class/virtio-ports/null/name", "org.nvlane.probe.0\n");
        assert_eq!(port_named(&fake.tree(), "org.nvlane.probe.0"), Some(PathBuf::from("/dev/null")));
        assert_eq!(port_named(&fake.tree(), "org.qemu.guest_agent.0"), None);
    }
}
