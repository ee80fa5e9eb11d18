//! What a controller is refused for, and what it is asked.

use nvlane_nvme::Outcome;
use nvlane_nvme::State;
use nvlane_nvme::emulated::{Emulated, EmulatedNamespace, EmulatedOptions};

use crate::{Bench, Memory, attach, quick, run, write};

#[test]
fn identify_data_is_told() {
    let bench = Bench::new(EmulatedOptions::default());
    let info = bench.controller.info();
    assert_eq!(info.identify.serial, "EMULATED1");
    assert_eq!(info.identify.model, "nvlane modelled controller");
    assert_eq!((info.identify.max_transfer, info.queues), (Some(128 << 10), 8));
    assert_eq!(info.version.to_string(), "1.4");
    let namespaces = bench.controller.namespaces();
    let shapes: Vec<_> = namespaces.iter().map(|each| (each.id, each.block_size(), each.blocks())).collect();
    assert_eq!(shapes, [(1, 512, 65536), (2, 4096, 4096)]);
    assert_eq!(namespaces[1].identifiers.uuid, Some([0xa2; 16]));
    assert_eq!(bench.controller.state(), State::Enabled);
    bench.is_content();
}

#[test]
fn a_namespace_with_metadata_is_refused_with_the_reason() {
    let mut odd = EmulatedNamespace::new(4096, 1 << 20);
    odd.metadata = 8;
    let namespaces = vec![EmulatedNamespace::new(512, 1 << 20), odd];
    let bench = Bench::new(EmulatedOptions { namespaces, ..EmulatedOptions::default() });
    assert_eq!(bench.controller.namespaces().len(), 1);
    assert!(
        bench.controller.unusable()[0].contains("8 bytes of metadata"),
        "{:?}",
        bench.controller.unusable()
    );
    let error = bench.controller.open(2).err().unwrap();
    assert!(error.message.contains("no namespace 2") && error.is_gone(), "{error}");
}

#[test]
fn every_queue_is_used_and_given_back() {
    let bench = Bench::new(EmulatedOptions::default());
    let memory = Memory::new(4096);
    for _ in 0..3 {
        let mut queues: Vec<_> = (0..8).map(|_| bench.controller.open(1).unwrap()).collect();
        let error = bench.controller.open(1).err().unwrap();
        assert_eq!(error.errno, 16, "{error}");
        assert!(error.message.contains("all 8 I/O queues"), "{error}");
        for (at, queue) in queues.iter_mut().enumerate() {
            let segment = [memory.part(0, 4096)];
            assert_eq!(run(queue, &write(8 * at as u64, 8, &segment, at as u64)), Outcome::Ok);
        }
        drop(queues);
        // The supervisor takes what was dropped in the order it came: before this answer.
        bench.controller.reset(std::time::Duration::from_secs(5)).unwrap();
    }
    bench.is_content();
}

#[test]
fn a_queue_of_four_entries_is_enough() {
    let bench = Bench::new(EmulatedOptions { queue_entries: 4, ..EmulatedOptions::default() });
    let mut queue = bench.controller.open(2).unwrap();
    let memory = Memory::new(1 << 20);
    let bytes = memory.fill(1);
    for round in 0..20 {
        assert_eq!(run(&mut queue, &write(round, 250, &[memory.part(512, 250 * 4096)], round)), Outcome::Ok);
    }
    let mut kept = vec![0; 250 * 4096];
    bench.device.peek(2, 19 * 4096, &mut kept);
    assert!(kept == bytes[512..][..250 * 4096]);
    bench.is_content();
}

#[test]
fn queues_of_two_entries_are_refused() {
    let device = Emulated::new(EmulatedOptions { queue_entries: 2, ..EmulatedOptions::default() }).unwrap();
    let error = attach(&device, quick()).err().unwrap();
    assert!(error.message.contains("its queues have 2 entries"), "{error}");
}

#[test]
fn detaching_deletes_queues_and_notifies() {
    let bench = Bench::new(EmulatedOptions::default());
    let mut queue = bench.controller.open(1).unwrap();
    let memory = Memory::new(4096);
    assert_eq!(run(&mut queue, &write(0, 8, &[memory.part(0, 4096)], 1)), Outcome::Ok);
    bench.controller.detach();
    assert_eq!(bench.device.counters().shutdowns, 1);
    let segment = [memory.part(0, 4096)];
    queue.poll(|_, _| ());
    assert_eq!(
        run(&mut queue, &write(0, 8, &segment, 2)),
        Outcome::Gone,
        "a queue pair that outlives its controller"
    );
    assert_eq!(bench.device.complaints(), Vec::<String>::new());
    // It can be attached again.
    drop(queue);
    let (again, _) = attach(&bench.device, quick()).unwrap();
    assert_eq!(run(&mut again.open(1).unwrap(), &write(0, 8, &[memory.part(0, 4096)], 3)), Outcome::Ok);
}
