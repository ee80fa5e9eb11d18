//! `nvlane-probe`, nvlane's witness inside a guest.
//!
//! It has three lives, and answers the same requests (see [`methods`]) in each:
//!
//! - `nvlane-probe serve [--port PATH]` on a virtio-serial port (or a serial line), until it is killed;
//! - `nvlane-probe once` on stdin and stdout, until the end of the input: how the QEMU guest agent runs it;
//! - as `/init`, process 1 of the probe guest: it brings the guest up, then serves.
//!
//! A fourth, `/sbin/modprobe`, is how the kernel of the probe guest asks for a module by its alias.

mod device;
mod exec;
mod init;
mod inventory;
mod methods;
mod modules;
mod mounts;
mod nvdimm;
mod pattern;
mod pmem;
mod protocol;
mod resolve;
mod serve;
mod sys;
mod sysfs;
mod uevent;

use std::io::{BufReader, stdin, stdout};
use std::path::Path;
use std::process::ExitCode;

/// The virtio-serial port that nvlane gives every machine it starts.
const PORT_NAME: &str = "org.nvlane.probe.0";

const USAGE: &str = "usage: nvlane-probe serve [--port PATH] | nvlane-probe once";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let program = arguments.first().map_or("", |path| path.rsplit('/').next().unwrap_or(path));
    let words: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    if program == "modprobe" {
        return modules::modprobe(&words);
    }
    if std::process::id() == 1 {
        init::run();
    }
    let outcome = match words.as_slice() {
        ["once"] => {
            serve::lines(BufReader::new(stdin().lock()), stdout().lock()).map_err(|error| error.to_string())
        }
        ["serve"] => serve::find_port(PORT_NAME, None).and_then(|port| serve::port(&port)),
        ["serve", "--port", path] => serve::port(Path::new(path)),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("nvlane-probe: {message}");
            ExitCode::from(if message == USAGE { 2 } else { 1 })
        }
    }
}
