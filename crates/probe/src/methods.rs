//! The requests, one line each. Their parameters and answers stand with their code.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::system::{RebootCommand, reboot, uname};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::protocol::{Answer, Code, Fault, params, value};
use crate::sysfs::Tree;
use crate::{device, exec, init, inventory, mounts, nvdimm, pmem, resolve};

/// What to do when the answer is out.
#[derive(Debug, PartialEq, Eq)]
pub enum After {
    Serve,
    PowerOff,
}

pub fn handle(method: &str, given: Map<String, Value>, after: &mut After) -> Answer {
    match method {
        "hello" => hello(),
        "inventory" => inventory(),
        "resolve" => resolve::resolve(given),
        "digest" => device::digest(given),
        "write_pattern" => device::write_pattern(given),
        "zone_report" => device::zone_report(given),
        "nvdimm_create" => nvdimm::create(given),
        "nvdimm_label" => nvdimm::label(given),
        "dax_mount" => mounts::dax_mount(given),
        "umount" => mounts::umount(given),
        "map_sync" => mounts::map_sync(given),
        "pmem_check" => pmem::check(given),
        "exec" => exec::exec(given),
        "read_file" => read_file(given),
        "poweroff" => poweroff(after),
        other => Err(Fault::new(Code::UnknownMethod, format!("no method is called {other:?}"))),
    }
}

fn hello() -> Answer {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).ok();
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "kernel": uname().release().to_string_lossy(),
        "boot_id": read("/proc/sys/kernel/random/boot_id"),
        "pid1": std::process::id() == 1,
        "uptime_seconds": init::uptime(),
    }))
}

fn inventory() -> Answer {
    init::wait_for_devices();
    value(inventory::read(&Tree::system()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadFile {
    path: String,
    #[serde(default = "default_most")]
    max: u64,
}

fn default_most() -> u64 {
    1 << 20
}

/// `read_file {path, max}`: a text file's first `max` bytes.
fn read_file(given: Map<String, Value>) -> Answer {
    use io::Read;
    let wanted: ReadFile = params(given)?;
    let most = wanted.max.min(default_most());
    let failed = |error| Fault::io(format!("read {}", wanted.path), error);
    let file = fs::File::open(Path::new(&wanted.path)).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    let truncated = bytes.len() as u64 > most;
    bytes.truncate(most as usize);
    Ok(json!({"text": String::from_utf8_lossy(&bytes), "truncated": truncated}))
}

fn poweroff(after: &mut After) -> Answer {
    if std::process::id() != 1 {
        return Err(Fault::new(
            Code::Refused,
            "this guest is not the probe's own: ask its own system to shut down",
        ));
    }
    *after = After::PowerOff;
    Ok(json!({}))
}

/// Switch off. It returns only if that failed.
pub fn power_off() -> io::Error {
    rustix::fs::sync();
    match reboot(RebootCommand::PowerOff) {
        Ok(()) => io::Error::other("the guest is still on after poweroff"),
        Err(error) => error.into(),
    }
}

/// A deadline as requests give it.
pub fn milliseconds(given: u64) -> Duration {
    Duration::from_millis(given.min(3_600_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &str, given: Value) -> Answer {
        handle(method, given.as_object().expect("an object").clone(), &mut After::Serve)
    }

    #[test]
    fn hello_says_what_runs_here() {
        let answer = call("hello", json!({})).expect("an answer");
        assert_eq!(answer["pid1"], false);
        assert!(answer["uptime_seconds"].as_f64().expect("a number") > 0.0);
    }

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let answer = call("read_file", json!({"path": "/proc/self/status", "max": 5})).expect("an answer");
        assert_eq!(answer, json!({"text": "Name:", "truncated": true}));
        let fault = call("read_file", json!({"path": "/none"})).expect_err("no such file");
        assert_eq!(fault.errno, Some(2));
    }

    #[test]
    fn parameters_are_checked() {
        let fault = call("read_file", json!({"path": "/x", "maximum": 5})).expect_err("an unknown parameter");
        assert_eq!(fault.code, Code::BadRequest);
        assert!(fault.message.contains("maximum"), "{}", fault.message);
    }

    #[test]
    fn a_foreign_guest_is_not_switched_off() {
        let mut after = After::Serve;
        assert_eq!(handle("poweroff", Map::new(), &mut after).expect_err("refused").code, Code::Refused);
        assert_eq!(after, After::Serve);
    }
}
