//! A guest that breaks its ring loses that queue and nothing else.

use std::time::Duration;

use nvlane_ring::Layout;
use nvlane_ring::driver::{Buffer, DriverRing};
use nvlane_vhost_user::frontend::wait_notified;

use crate::rig::*;

#[test]
fn a_broken_ring_stops_alone_and_says_so() {
    let mut rig = Rig::new(slow(3000), false);
    let (mut good, _) = rig.queue(Layout::Split);
    let (mut bad, bad_id) = rig.queue(Layout::Split);
    let pending = bad.ask(IN, 0, &[], 512);
    rig.turns(2);
    // A buffer outside guest memory.
    bad.driver.add(&[Buffer { address: 1 << 60, length: 16, writable: false }]).unwrap();
    bad.driver.publish();
    let after = bad.ask(IN, 0, &[], 512);
    assert_eq!(rig.ask(&mut good, IN, 0, &[], 512).0, OK);
    assert!(wait_notified(&bad.err, Duration::ZERO).unwrap());
    assert!(!wait_notified(&good.err, Duration::ZERO).unwrap());
    // What was under way ends; what came after the break is not looked at.
    let used = rig.until(|| bad.driver.reap());
    assert_eq!((used.id, bad.status(&pending)), (pending.id, OK));
    rig.turns(10);
    assert_eq!(bad.status(&after), UNTOUCHED);
    rig.reactors.detach(bad_id);
    assert_eq!(rig.detached().queue, bad_id);
    assert_eq!(rig.ask(&mut good, IN, 1, &[], 512).0, OK);
}

#[test]
fn rubbish_on_the_ring_never_reaches_another_queue() {
    // Each byte pattern over the available ring and the descriptors of a queue of its own.
    for seed in 0..200_u64 {
        let mut rig = Rig::new(malloc(64, 512), false);
        let (mut good, _) = rig.queue(Layout::Split);
        let layout = if seed % 2 == 0 { Layout::Split } else { Layout::Packed };
        let (bad, _) = rig.queue(layout);
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let rubbish: Vec<u8> =
            (0..4096).map(|_| (next() >> 24) as u8 & if next() % 3 == 0 { 0xff } else { 3 }).collect();
        bad.guest.write(0, &rubbish);
        bad.guest.write(4096, &rubbish[..2048]);
        rig.turns(20);
        assert_eq!(rig.ask(&mut good, OUT, 3, &[7; 512], 0).0, OK, "seed {seed}");
        assert_eq!(rig.ask(&mut good, IN, 3, &[], 512), (OK, vec![7; 512]), "seed {seed}");
    }
}

/// One queue that always has requests does not keep the others waiting for more than its quantum.
#[test]
fn a_busy_queue_leaves_the_others_their_turn() {
    let mut rig = Rig::new(malloc(2048, 512), false);
    let (mut greedy, _) = rig.queue(Layout::Split);
    let (mut modest, _) = rig.queue(Layout::Split);
    rig.turns(1);
    for n in 0..80 {
        greedy.ask(IN, n, &[], 512);
    }
    let asked = modest.ask(IN, 0, &[], 512);
    rig.turns(1);
    assert_eq!(modest.status(&asked), OK);
    assert_eq!(std::iter::from_fn(|| greedy.driver.reap()).count(), 32);
}
