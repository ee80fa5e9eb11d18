//! A drive under the driver, from a shell: `drive 0000:05:00.0 identify fill:1:0:2048:7 check:1:0:2048:7`.
//!
//! Words after the address are done in order, each says one line of text on stdout:
//!
//! ```text
//! identify                       what the controller and its namespaces are
//! fill:NSID:BYTES:COUNT:SEED     writes COUNT bytes from BYTES on; each 16 bytes are the seed and their number
//! check:NSID:BYTES:COUNT:SEED    reads them and compares
//! odd:NSID:BYTES:COUNT:SEED      fill, from memory that no PRP list can name, so that it bounces
//! zero:NSID:BYTES:COUNT  trim:NSID:BYTES:COUNT  flush:NSID
//! reset                          a controller reset, with requests in flight
//! flr                            a function level reset behind the driver's back, with requests in flight
//! sleep:NSID                     reads that are waited for with interrupts
//! removal                        I/O until the system wants the drive back, or takes it
//! ```

#[path = "drive/pattern.rs"]
mod pattern;
#[path = "drive/work.rs"]
mod work;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use nvlane_nvme::{Controller, Device, Event, Options, vfio};
use work::{Failure, Work};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some((address, words)) = words.split_first() else {
        eprintln!("usage: drive ADDRESS WORD...");
        return ExitCode::from(2);
    };
    match run(address, words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("drive: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(address: &str, words: &[String]) -> Result<(), Failure> {
    let device = vfio::open(address)?;
    let (sender, events) = channel();
    // Short time-outs: the lab has no slow media, and a test should not take half a minute.
    let options = Options {
        io_timeout: Duration::from_secs(3),
        abort_grace: Duration::from_secs(1),
        admin_timeout: Duration::from_secs(5),
        tick: Duration::from_millis(200),
        ..Options::default()
    };
    let listener = move |event: Event| {
        println!("event {event:?}");
        let _ = sender.send(event);
    };
    let controller = Controller::attach(device.clone(), options, Box::new(listener))?;
    let device: Arc<dyn Device> = device;
    let mut work = Work { controller: &controller, device: Some(device), events };
    for word in words {
        work.perform(word)?;
    }
    work.device = None;
    controller.detach();
    println!("detached");
    Ok(())
}
