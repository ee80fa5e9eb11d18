//! NVMe bdevs over a modelled drive.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nvlane_bdev::{
    Bdev, Channel, Completion, NvmeController, NvmeEvent, NvmeOptions, Operation, Request, Status, Submitted,
};
use nvlane_memory::{HostMemory, Segment, copy};
use nvlane_nvme::emulated::{Emulated, EmulatedOptions};

fn attach(options: EmulatedOptions) -> (Arc<Emulated>, NvmeController, Receiver<NvmeEvent>) {
    let device = Emulated::new(options).unwrap();
    let (sender, events) = channel();
    let options = NvmeOptions { tick: Duration::from_millis(5), ..NvmeOptions::default() };
    let listener = Box::new(move |event| {
        let _ = sender.send(event);
    });
    let controller = NvmeController::attach_device("Nvme0", device.clone(), options, listener).unwrap();
    (device, controller, events)
}

fn segment(memory: &HostMemory, offset: usize, length: usize) -> [Segment; 1] {
    assert!(offset + length <= memory.len());
    // SAFETY: inside the memory, which lives as long as the test.
    [unsafe { Segment::new(memory.pointer().add(offset), length) }]
}

fn run(
    channel: &mut Channel,
    operation: Operation,
    offset: u64,
    length: u64,
    segments: &[Segment],
) -> Status {
    let request = Request { operation, offset, length, segments, token: 77 };
    let mut done: Vec<Completion> = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut sent = false;
    while done.is_empty() {
        if !sent {
            match channel.submit(&request) {
                Submitted::Done(status) => return status,
                Submitted::Pending => sent = true,
                Submitted::Busy => {}
            }
        }
        channel.kick();
        channel.poll(&mut done);
        assert!(Instant::now() < deadline, "no completion");
    }
    assert_eq!(done[0].token, 77);
    done[0].status
}

#[test]
fn namespaces_are_bdevs_as_spdk_names_them() {
    let (_device, controller, _events) = attach(EmulatedOptions::default());
    let bdevs = controller.bdevs();
    let names: Vec<_> = bdevs.iter().map(|bdev| bdev.info().name.clone()).collect();
    assert_eq!(names, ["Nvme0n1", "Nvme0n2"]);
    let bdev: Arc<dyn Bdev> = bdevs[1].clone();
    let described = bdev.describe();
    assert_eq!(described["product_name"], "NVMe disk");
    assert_eq!(
        (described["block_size"].as_u64(), described["num_blocks"].as_u64()),
        (Some(4096), Some(4096))
    );
    assert_eq!(described["uuid"], "a2a2a2a2-a2a2-a2a2-a2a2-a2a2a2a2a2a2");
    let nvme = &described["driver_specific"]["nvme"][0];
    assert_eq!(nvme["trid"]["trtype"], "PCIe");
    assert_eq!(nvme["ctrlr_data"]["serial_number"], "EMULATED1");
    assert_eq!(nvme["ns_data"]["id"], 2);
    assert_eq!(described["supported_io_types"]["unmap"], true);
    assert_eq!(controller.describe()["ctrlrs"][0]["state"], "enabled");
}

#[test]
fn requests_go_through_a_channel() {
    let (device, controller, _events) = attach(EmulatedOptions::default());
    let bdev: Arc<dyn Bdev> = controller.bdev(1).unwrap();
    let mut channel = bdev.open(0).unwrap();
    let memory = HostMemory::for_dma(1 << 20).unwrap();
    let bytes: Vec<u8> = (0..65536u32).map(|at| (at % 251) as u8).collect();
    copy::copy_out(&bytes, &segment(&memory, 512, 65536), 0);
    assert_eq!(run(&mut channel, Operation::Write, 8192, 65536, &segment(&memory, 512, 65536)), Status::Ok);
    let mut kept = vec![0; 65536];
    device.peek(1, 8192, &mut kept);
    assert_eq!(kept, bytes);
    assert_eq!(run(&mut channel, Operation::Flush, 0, 0, &[]), Status::Ok);
    assert_eq!(run(&mut channel, Operation::Unmap, 8192, 4096, &[]), Status::Ok);
    assert_eq!(run(&mut channel, Operation::WriteZeroes { unmap: false }, 12288, 4096, &[]), Status::Ok);
    let target = segment(&memory, 131_072, 65536);
    assert_eq!(run(&mut channel, Operation::Read, 8192, 65536, &target), Status::Ok);
    let mut found = vec![1; 65536];
    copy::copy_in(&target, 0, &mut found);
    assert!(found[..8192].iter().all(|byte| *byte == 0) && found[8192..] == bytes[8192..]);
    let beyond = bdev.bytes();
    assert_eq!(
        run(&mut channel, Operation::Read, beyond, 4096, &segment(&memory, 0, 4096)),
        Status::OutOfRange
    );
    assert_eq!(device.complaints(), Vec::<String>::new());
}

#[test]
fn a_channel_that_slept_through_a_reset_goes_on() {
    let (device, controller, _events) = attach(EmulatedOptions::default());
    let bdev: Arc<dyn Bdev> = controller.bdev(1).unwrap();
    let (mut sleeping, mut polling) = (bdev.open(0).unwrap(), bdev.open(1).unwrap());
    let memory = HostMemory::for_dma(4096).unwrap();
    let part = segment(&memory, 0, 4096);
    for _ in 0..2 {
        for channel in [&mut sleeping, &mut polling] {
            assert_eq!(run(channel, Operation::Write, 0, 4096, &part), Status::Ok);
            assert!(channel.arm());
        }
        controller.reset(Duration::from_secs(5)).unwrap();
        // One hears of it when it is woken, the other with its next request.
        let deadline = Instant::now() + Duration::from_secs(5);
        while polling.arm() && Instant::now() < deadline && device.counters().enables < 2 {}
    }
    for channel in [&mut sleeping, &mut polling] {
        assert_eq!(run(channel, Operation::Write, 0, 4096, &part), Status::Ok);
    }
    assert_eq!(device.complaints(), Vec::<String>::new());
}

#[test]
fn a_drive_that_goes_is_gone_for_its_bdevs() {
    let (device, controller, events) = attach(EmulatedOptions::default());
    let bdev: Arc<dyn Bdev> = controller.bdev(1).unwrap();
    let mut channel = bdev.open(0).unwrap();
    let memory = HostMemory::for_dma(4096).unwrap();
    let part = segment(&memory, 0, 4096);
    assert_eq!(run(&mut channel, Operation::Write, 0, 4096, &part), Status::Ok);
    device.request_removal();
    while events.recv_timeout(Duration::from_secs(10)).unwrap() != NvmeEvent::Gone {}
    assert_eq!(run(&mut channel, Operation::Write, 0, 4096, &part), Status::Gone);
    assert_eq!(controller.describe()["ctrlrs"][0]["state"], "failed");
    assert!(bdev.open(1).is_err());
    drop((channel, bdev, controller));
    assert_eq!(Arc::strong_count(&device), 1);
}
