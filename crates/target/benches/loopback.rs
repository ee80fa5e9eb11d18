//! How fast the engine is without anybody's guest: a driver of ours in one thread, a reactor in another.
//!
//! `cargo bench -p nvlane-target --bench loopback -- [--bdev null|malloc] [--depths 1,8,32,128] [--size 4096]
//! [--sequential] [--layout split|packed] [--disk-mib 256] [--milliseconds 300] [--rounds 5] [--reactors 0]
//! [--driver 1] [--instructions N]`
//!
//! Prints one line a depth: the median of the rounds in thousand requests a second, the fastest round, and the
//! reactor's busy ticks a request. With `--instructions` it makes N requests in one thread, driver and reactor taking
//! turns, for callgrind (`valgrind --tool=callgrind --toggle-collect='*measured*'`), and prints the ticks of the
//! reactor's turns alone, the least of many batches: a figure that a busy machine leaves alone. `--cold` takes what the
//! driver wrote out of the caches before each turn, as if another processor had written it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nvlane_bdev::{Bdev, Info, Malloc, Null, Uuid};
use nvlane_ring::driver::{Buffer, Driver, DriverRing, Guest};
use nvlane_ring::{Layout, Queue};
use nvlane_target::device::blk::{Blk, Shape};
use nvlane_target::reactor::{Coalescing, PollPolicy, QueueWork, Reactors};

#[derive(Clone)]
struct Settings {
    bdev: String,
    depths: Vec<u16>,
    size: u32,
    sequential: bool,
    layout: Layout,
    event_idx: bool,
    disk_mib: u64,
    round: Duration,
    rounds: usize,
    reactors: Vec<usize>,
    drivers: Vec<usize>,
    instructions: u64,
    cold: bool,
}

fn settings() -> Settings {
    let mut settings = Settings {
        bdev: "null".into(),
        depths: vec![1, 8, 32, 128],
        size: 4096,
        sequential: false,
        layout: Layout::Split,
        event_idx: false,
        disk_mib: 256,
        round: Duration::from_millis(300),
        rounds: 5,
        reactors: vec![0],
        drivers: vec![1],
        instructions: 0,
        cold: false,
    };
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{name} needs a value"));
        let list =
            |text: String| text.split(',').map(|n| n.parse().expect("numbers")).collect::<Vec<usize>>();
        match name.as_str() {
            "--bdev" => settings.bdev = value(),
            "--depths" => settings.depths = list(value()).into_iter().map(|n| n as u16).collect(),
            "--size" => settings.size = value().parse().expect("bytes"),
            "--sequential" => settings.sequential = true,
            "--layout" => settings.layout = if value() == "packed" { Layout::Packed } else { Layout::Split },
            "--event-idx" => settings.event_idx = true,
            "--disk-mib" => settings.disk_mib = value().parse().expect("MiB"),
            "--milliseconds" => {
                settings.round = Duration::from_millis(value().parse().expect("milliseconds"))
            }
            "--rounds" => settings.rounds = value().parse().expect("a number"),
            "--reactors" => settings.reactors = list(value()),
            "--drivers" => settings.drivers = list(value()),
            "--cold" => settings.cold = true,
            "--instructions" => settings.instructions = value().parse().expect("a number"),
            other => panic!("{other}? See the head of benches/loopback.rs"),
        }
    }
    settings
}

fn disk(settings: &Settings) -> Arc<dyn Bdev> {
    let info = Info::new("disk", Uuid::random().expect("random bytes"), 512);
    let blocks = settings.disk_mib << 11;
    if settings.bdev == "malloc" {
        let malloc = Malloc::new(info, blocks).expect("memory");
        Arc::new(malloc)
    } else {
        Arc::new(Null::new(info, blocks).expect("a disk"))
    }
}

/// A guest with one queue and `depth` requests.
struct Load {
    driver: Driver,
    requests: Vec<[Buffer; 3]>,
    headers: Vec<*mut u8>,
    of_id: Vec<usize>,
    size: u64,
    blocks: u64,
    sequential: bool,
    next: u64,
    guest: Guest,
}

// SAFETY: the pointers are into the guest's memory, which the load owns; one thread at a time has it.
unsafe impl Send for Load {}

impl Load {
    fn new(settings: &Settings, depth: u16) -> (Load, Queue) {
        let size = u64::from(settings.size);
        let mut guest = Guest::new((u64::from(depth) * (size + 4096) + (4 << 20)).next_multiple_of(2 << 20))
            .expect("memory");
        let entries = (depth * 4).next_power_of_two().max(256);
        let mut config = guest.queue(settings.layout, entries);
        config.event_idx = settings.event_idx;
        let mut driver = guest.driver(&config).expect("a driver");
        driver.disable_calls();
        let queue = Queue::new(config).expect("a queue");
        let mut headers = Vec::new();
        let requests = (0..depth)
            .map(|_| {
                let header = guest.allocate(16, 64);
                let status = guest.allocate(1, 64);
                let data = guest.allocate(size, 4096);
                let (pointer, _) = guest.memory().translate(header, 16).expect("guest memory");
                headers.push(pointer);
                [
                    Buffer { address: header, length: 16, writable: false },
                    Buffer { address: data, length: settings.size, writable: true },
                    Buffer { address: status, length: 1, writable: true },
                ]
            })
            .collect();
        let load = Load {
            driver,
            requests,
            headers,
            of_id: vec![0; usize::from(entries)],
            size,
            blocks: (settings.disk_mib << 20) / size,
            sequential: settings.sequential,
            next: 0x9e37_79b9_7f4a_7c15,
            guest,
        };
        (load, queue)
    }

    /// The next request with buffers of `index`.
    #[inline]
    fn submit(&mut self, index: usize) {
        let block = if self.sequential {
            self.next = self.next.wrapping_add(1);
            self.next % self.blocks
        } else {
            // xorshift, scaled without a division.
            self.next ^= self.next << 13;
            self.next ^= self.next >> 7;
            self.next ^= self.next << 17;
            ((u128::from(self.next) * u128::from(self.blocks)) >> 64) as u64
        };
        // SAFETY: sixteen bytes of the guest's memory, which the device looks at only between submit and reap.
        unsafe { self.headers[index].cast::<[u64; 2]>().write_volatile([0, block * (self.size / 512)]) };
        let id = self.driver.add(&self.requests[index]).expect("a ring with room for all requests");
        self.of_id[usize::from(id)] = index;
    }

    /// Reaps what is done and submits as many again; how many.
    #[inline]
    fn turn(&mut self) -> u64 {
        let mut done = 0;
        while let Some(used) = self.driver.reap() {
            self.submit(self.of_id[usize::from(used.id)]);
            done += 1;
        }
        if done > 0 {
            self.driver.publish();
        }
        done
    }

    /// Takes the rings, the headers and the statuses out of the caches.
    fn flush(&self) {
        #[cfg(target_arch = "x86_64")]
        {
            let (rings, _) = self.guest.memory().translate(0, 1).expect("guest memory");
            let lines = (0..64 * 1024).step_by(64).map(|line| rings.wrapping_add(line));
            for line in lines.chain(self.headers.iter().flat_map(|&header| [header, header.wrapping_add(64)]))
            {
                // SAFETY: a flush changes nothing, and the lines are in the guest's memory.
                unsafe { std::arch::x86_64::_mm_clflush(line) };
            }
            // SAFETY: a fence.
            unsafe { std::arch::x86_64::_mm_mfence() };
        }
    }

    fn begin(&mut self) {
        for index in 0..self.requests.len() {
            self.submit(index);
        }
        self.driver.publish();
    }
}

fn attach(
    reactors: &Reactors,
    reactor: usize,
    bdev: &Arc<dyn Bdev>,
    ring: Queue,
) -> nvlane_target::reactor::QueueId {
    let channel = reactors.open_channel(reactor, bdev).expect("a channel");
    let device = Box::new(Blk::new(channel, Arc::new(Shape::new(&**bdev, false)), 1024));
    let coalescing = Coalescing::default();
    reactors
        .attach(reactor, QueueWork { ring, device, kick: None, call: None, err: None, coalescing, log: None })
}

fn pin(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).expect("a processor of ours");
}

/// Requests a second of all drivers together, and busy ticks a request, of one round.
fn round(settings: &Settings, depth: u16) -> (f64, f64) {
    let bdev = disk(settings);
    let reactors = Reactors::start(&settings.reactors, PollPolicy::Always).expect("reactors");
    let stop = Arc::new(AtomicBool::new(false));
    let drivers: Vec<_> = settings
        .drivers
        .iter()
        .enumerate()
        .map(|(index, &cpu)| {
            let (mut load, ring) = Load::new(settings, depth);
            attach(&reactors, index % settings.reactors.len(), &bdev, ring);
            let stop = stop.clone();
            std::thread::spawn(move || {
                pin(cpu);
                load.begin();
                let warm = Instant::now();
                while warm.elapsed() < Duration::from_millis(20) {
                    load.turn();
                }
                let start = Instant::now();
                let mut done = 0;
                while !stop.load(Ordering::Relaxed) {
                    done += load.turn();
                }
                (done as f64 / start.elapsed().as_secs_f64(), done, load)
            })
        })
        .collect();
    let before: u64 = reactors.stats().iter().map(|reactor| reactor.busy).sum();
    std::thread::sleep(settings.round);
    stop.store(true, Ordering::Relaxed);
    let results: Vec<_> = drivers.into_iter().map(|driver| driver.join().expect("a driver")).collect();
    let busy = reactors.stats().iter().map(|reactor| reactor.busy).sum::<u64>() - before;
    let done: u64 = results.iter().map(|result| result.1).sum();
    drop(reactors);
    (results.iter().map(|result| result.0).sum(), busy as f64 / done as f64)
}

/// For callgrind: collection is toggled by this function's name.
#[inline(never)]
fn measured(reactor: &mut nvlane_target::reactor::ByHand) {
    reactor.turn();
}

fn instructions(settings: &Settings, depth: u16) {
    let bdev = disk(settings);
    let (reactors, mut reactor) = Reactors::by_hand().expect("a reactor");
    let (mut load, ring) = Load::new(settings, depth);
    attach(&reactors, 0, &bdev, ring);
    reactor.turn();
    load.begin();
    let mut least = u64::MAX;
    let (mut done, mut batch, mut ticks) = (0, 0, 0);
    while done < settings.instructions {
        if settings.cold {
            load.flush();
        }
        let start = nvlane_bdev::ticks::now();
        measured(&mut reactor);
        ticks += nvlane_bdev::ticks::now() - start;
        batch += load.turn();
        if batch >= 256 {
            least = least.min(ticks / batch);
            done += batch;
            (batch, ticks) = (0, 0);
        }
    }
    println!("{} depth {depth:>3}: {least} ticks a request in the reactor's turn", settings.bdev);
}

fn main() {
    let settings = settings();
    for &depth in &settings.depths {
        if settings.instructions > 0 {
            instructions(&settings, depth);
            continue;
        }
        let mut rounds: Vec<_> = (0..settings.rounds).map(|_| round(&settings, depth)).collect();
        rounds.sort_by(|one, other| one.0.total_cmp(&other.0));
        let (rate, ticks) = rounds[rounds.len() / 2];
        let best = rounds[rounds.len() - 1].0;
        println!(
            "{} {} B depth {depth:>3}: {:>6.0} k IOPS (best {:>6.0}), {ticks:.0} busy ticks a request",
            settings.bdev,
            settings.size,
            rate / 1000.0,
            best / 1000.0,
        );
    }
}
