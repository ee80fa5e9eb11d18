//! Process 1 of the probe guest: bring the guest up, then serve until the power is off.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};

use crate::PORT_NAME;
use crate::modules::Modules;
use crate::serve;
use crate::sysfs::Tree;
use crate::uevent::Uevents;

/// What to mount: type, place, options.
const MOUNTS: [(&str, &str, &str); 5] = [
    ("devtmpfs", "/dev", "mode=0755"),
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("tmpfs", "/run", "mode=0755"),
    ("tmpfs", "/tmp", "mode=1777"),
];

/// The serial line that is served when there is no virtio-serial port.
const SERIAL_LINE: &str = "/dev/ttyS1";

/// How long to wait for the port before the serial line is taken.
const PORT_PATIENCE: Duration = Duration::from_secs(20);

/// A door that is opened once.
struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
}

/// Whether the devices that were here at the start have their drivers.
static DEVICES: Gate = Gate { is_open: Mutex::new(false), opened: Condvar::new() };

impl Gate {
    fn open(&self) {
        if let Ok(mut is_open) = self.is_open.lock() {
            *is_open = true;
            self.opened.notify_all();
        }
    }

    fn wait(&self, patience: Duration) {
        if let Ok(is_open) = self.is_open.lock() {
            drop(self.opened.wait_timeout_while(is_open, patience, |is_open| !*is_open));
        }
    }
}

/// In the probe guest, wait until the devices that were here at the start have been offered to their drivers.
/// Elsewhere that is long past.
pub fn wait_for_devices() {
    if std::process::id() == 1 {
        DEVICES.wait(PORT_PATIENCE);
    }
}

/// Never returns: when process 1 ends, the kernel panics.
pub fn run() -> ! {
    std::panic::set_hook(Box::new(|panic| {
        say(&format!("a bug: {panic}"));
        stop(RebootCommand::Restart);
    }));
    if let Err(message) = bring_up() {
        say(&message);
    }
    stop(RebootCommand::PowerOff)
}

fn bring_up() -> Result<(), String> {
    for (kind, place, options) in MOUNTS {
        mount_one(kind, place, options)?;
    }
    // Listen before the walk: what appears between would be nobody's.
    let events = Uevents::listen().map_err(|error| format!("listen for uevents: {error}"))?;
    // Beside the serving: a driver's start can take its time (ahci waits for every link), and the port's own driver
    // is built into many kernels.
    thread::spawn(move || {
        let modules = Modules::of_this_kernel();
        report(modules.load_for_devices(&Tree::system()));
        DEVICES.open();
        load_for_events(&modules, &events);
    });
    let port = match serve::find_port(PORT_NAME, Some(Instant::now() + PORT_PATIENCE)) {
        Ok(port) => port,
        Err(message) if Path::new(SERIAL_LINE).exists() => {
            say(&format!("{message}; serving on {SERIAL_LINE}"));
            SERIAL_LINE.into()
        }
        Err(message) => return Err(message),
    };
    say(&format!("serving on {} {:.2} s after the kernel's start", port.display(), uptime()));
    serve::port(&port)
}

fn mount_one(kind: &str, place: &str, options: &str) -> Result<(), String> {
    let failed = |error: io::Error| format!("mount {kind} on {place}: {error}");
    fs::create_dir_all(place).map_err(failed)?;
    let options = std::ffi::CString::new(options).map_err(|error| failed(error.into()))?;
    let flags = MountFlags::NOSUID | if place == "/dev" { MountFlags::empty() } else { MountFlags::NODEV };
    match mount(kind, place, kind, flags, options.as_c_str()) {
        // CONFIG_DEVTMPFS_MOUNT does not cover an initramfs, but a kernel may have mounted it all the same.
        Ok(()) | Err(rustix::io::Errno::BUSY) => Ok(()),
        Err(error) => Err(failed(error.into())),
    }
}

/// Devices that come later (disks behind a host adapter, hot-plugged ones) get their modules as they come.
fn load_for_events(modules: &Modules, events: &Uevents) {
    loop {
        match events.next(None) {
            Ok(Some(event)) => match event.modalias {
                Some(alias) if event.action == "add" => report(modules.load_for(&alias)),
                Some(_) => {}
                None if event.action.is_empty() => report(modules.load_for_devices(&Tree::system())),
                None => {}
            },
            Ok(None) => {}
            Err(error) => return say(&format!("no more modules are loaded: uevents: {error}")),
        }
    }
}

fn report(loaded: Vec<Result<String, crate::protocol::Fault>>) {
    for fault in loaded.into_iter().filter_map(Result::err) {
        say(&fault.message);
    }
}

pub fn uptime() -> f64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split(' ').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0.0)
}

/// A line on the console, which is standard error of process 1.
fn say(message: &str) {
    eprintln!("nvlane-probe: {message}");
}

fn stop(how: RebootCommand) -> ! {
    rustix::fs::sync();
    if let Err(error) = reboot(how) {
        say(&format!("reboot: {error}"));
    }
    loop {
        thread::park();
    }
}
