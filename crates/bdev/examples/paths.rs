//! How fast each driver is with no front end before it: random reads and writes of 4 KiB.
//!
//! `cargo run --release -p nvlane-bdev --example paths [FILE...]`: thousand requests a second by depth, for memory, and
//! for each file named (tmpfs, a file system, a block device; only read).

use std::time::{Duration, Instant};

use nvlane_bdev::file::{Driver, Options};
use nvlane_bdev::{Bdev, FileBdev, Info, Malloc, Null, Operation, Request, Submitted, Uuid};
use nvlane_memory::HostMemory;
use nvlane_memory::Segment;

const BLOCK: u64 = 4096;
const DEPTHS: [u64; 4] = [1, 8, 32, 128];
const SIZE: u64 = 256 << 20;

fn main() {
    let info = |name: &str| Info::new(name, Uuid::from_bytes([1; 16]), BLOCK as u32);
    let mut bdevs: Vec<(String, Box<dyn Bdev>, bool)> = vec![
        ("null".into(), Box::new(Null::new(info("null"), SIZE / BLOCK).unwrap()), true),
        ("malloc".into(), Box::new(Malloc::new(info("malloc"), SIZE / BLOCK).unwrap()), true),
    ];
    for path in std::env::args().skip(1) {
        for no_uring in [false, true] {
            let options = Options {
                name: path.clone(),
                uuid: Uuid::from_bytes([1; 16]),
                driver: Driver::Uring,
                path: path.clone().into(),
                block_size: Some(BLOCK as u32),
                read_only: true,
                no_uring,
            };
            let file = FileBdev::open(options).unwrap();
            bdevs.push((
                format!("{path} ({:?}, direct I/O {})", file.engine(), file.direct_io()),
                Box::new(file),
                false,
            ));
        }
    }
    let memory = HostMemory::new(128 * BLOCK as usize, true).unwrap();
    for (name, bdev, writable) in &bdevs {
        for operation in [Operation::Write, Operation::Read] {
            if operation == Operation::Write && !writable {
                continue;
            }
            let rates =
                DEPTHS.map(|depth| format!("{:8.0}", rate(&**bdev, operation, depth, &memory) / 1000.0));
            println!("{:>6} {}  {name}", format!("{operation:?}").to_lowercase(), rates.concat());
        }
    }
}

fn rate(bdev: &dyn Bdev, operation: Operation, depth: u64, memory: &HostMemory) -> f64 {
    let mut channel = bdev.open(0).unwrap();
    let (mut completions, mut idle) = (Vec::new(), (0..depth).collect::<Vec<u64>>());
    let (mut random, mut count, mut next) = (1u64, 0u64, Vec::new());
    let blocks = bdev.blocks();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(500) {
        for token in idle.drain(..) {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let offset = (random >> 33) % blocks * BLOCK;
            channel.prefetch(operation, offset, BLOCK);
            next.push((token, offset));
        }
        for (token, offset) in next.drain(..) {
            // SAFETY: the memory has 128 blocks and outlives the channel.
            let segment =
                unsafe { Segment::new(memory.pointer().add((token * BLOCK) as usize), BLOCK as usize) };
            let request = Request { operation, offset, length: BLOCK, segments: &[segment], token };
            match channel.submit(&request) {
                Submitted::Done(_) => {
                    idle.push(token);
                    count += 1;
                }
                Submitted::Pending => {}
                Submitted::Busy => panic!("busy at depth {depth}"),
            }
        }
        channel.kick();
        channel.poll(&mut completions);
        count += completions.len() as u64;
        idle.extend(completions.drain(..).map(|completion| completion.token));
    }
    while channel.in_flight() != 0 {
        channel.poll(&mut completions);
    }
    count as f64 / start.elapsed().as_secs_f64()
}
