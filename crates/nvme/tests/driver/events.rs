//! What happens by itself.

use nvlane_nvme::emulated::EmulatedOptions;
use nvlane_nvme::{Event, Outcome, State, Submission};

use crate::{Bench, Memory, run, write};

#[test]
fn a_namespace_that_grows_is_told() {
    let bench = Bench::new(EmulatedOptions::default());
    for blocks in [70000, 80000] {
        bench.device.resize(1, blocks);
        let event = bench.event(|event| matches!(event, Event::Resized { .. }));
        assert_eq!(event, Event::Resized { namespace: 1, blocks });
        assert_eq!(bench.controller.namespaces()[0].blocks(), blocks);
    }
    bench.is_content();
}

#[test]
fn a_namespace_that_goes_is_told() {
    let bench = Bench::new(EmulatedOptions::default());
    let queue = bench.controller.open(2).unwrap();
    bench.device.remove_namespace(2);
    assert_eq!(bench.event(|event| matches!(event, Event::Removed { .. })), Event::Removed { namespace: 2 });
    assert!(queue.namespace().is_gone());
    assert_eq!(bench.controller.namespaces().len(), 1);
}

#[test]
fn a_device_that_is_wanted_back_fails_its_requests_and_lets_go() {
    let bench = Bench::new(EmulatedOptions::default());
    let mut queue = bench.controller.open(1).unwrap();
    let memory = Memory::new(4096);
    let segment = [memory.part(0, 4096)];
    assert_eq!(run(&mut queue, &write(0, 8, &segment, 1)), Outcome::Ok);
    bench.device.inject(|faults| faults.hold = true);
    assert_eq!(queue.submit(&write(0, 8, &segment, 2)), Submission::Pending);
    queue.kick();
    bench.device.request_removal();
    assert_eq!(crate::finish(&mut queue, 1), [(2, Outcome::Gone)]);
    bench.event(|event| *event == Event::Gone);
    assert_eq!(bench.controller.state(), State::Gone);
    assert_eq!(queue.submit(&write(0, 8, &segment, 3)), Submission::Done(Outcome::Gone));
    assert!(bench.controller.open(1).err().unwrap().is_gone());
    drop(queue);
    // Nothing of the driver holds the device any more.
    bench.controller.detach();
    assert_eq!(std::sync::Arc::strong_count(&bench.device), 1);
}
