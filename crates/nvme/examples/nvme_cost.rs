//! What a 4 KiB read costs the driver: `nvme_cost` against a modelled drive, `nvme_cost 0000:05:00.0` against one on vfio-pci.
//!
//! Instructions are counted one by one, by stepping through the driver (ptrace), so no performance counters are needed
//! and the figure is the same on every machine; system calls are seen on the way, allocations by the allocator. Cycles
//! are those of the time stamp counter, median of many rounds, without stepping. The sections are what a reactor does:
//! submit, kick (one doorbell), poll. The wait for the drive is in none of them. A modelled drive's doorbell is a
//! function with a lock, a real one's is a store.
//!
//! It ends with status 1 when the path allocated or called the system.

#[path = "nvme_cost/rounds.rs"]
mod rounds;
#[path = "nvme_cost/stepper.rs"]
mod stepper;

use std::process::ExitCode;

const DEPTHS: [usize; 3] = [1, 8, 32];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        [] => report(None),
        ["--stepped", depth] => rounds::stepped(None, depth),
        ["--stepped", depth, address] => rounds::stepped(Some(address), depth),
        [address] => report(Some(address)),
        _ => Err("usage: nvme_cost [ADDRESS]".into()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("cost: {why}");
            ExitCode::FAILURE
        }
    }
}

fn report(address: Option<&str>) -> Result<bool, rounds::Failure> {
    println!("4 KiB reads, for each I/O, from {}", address.unwrap_or("a modelled drive"));
    println!("depth  instructions (submit + kick + poll)  cycles  system calls  allocations");
    let mut clean = true;
    for depth in DEPTHS {
        let counts = stepper::count(depth, address)?;
        let (cycles, allocations) = rounds::timed(address, depth)?;
        let each = |steps: u64| steps as f64 / (stepper::rounds(depth) * depth) as f64;
        let [submit, kick, poll] = counts.steps.map(each);
        println!(
            "{depth:5}  {:12.1} ({submit:6.1} + {kick:4.1} + {poll:6.1})  {cycles:6}  {:12}  {allocations:11}",
            submit + kick + poll,
            counts.calls
        );
        clean &= counts.calls == 0 && allocations == 0;
    }
    Ok(clean)
}
