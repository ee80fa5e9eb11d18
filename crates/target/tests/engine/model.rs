//! Any requests, against a disk that is an array.

use nvlane_ring::Layout;
use nvlane_ring::driver::DriverRing;
use proptest::prelude::*;

use crate::rig::*;

const SECTORS: u64 = 64;

#[derive(Clone, Debug)]
struct Step {
    kind: u32,
    sector: u64,
    sectors: u32,
    fill: u8,
}

fn step() -> impl Strategy<Value = Step> {
    let kind =
        prop_oneof![4 => Just(IN), 4 => Just(OUT), 1 => Just(WRITE_ZEROES), 1 => Just(FLUSH), 1 => 2..40_u32];
    (kind, 0..SECTORS + 4, 0..9_u32, any::<u8>()).prop_map(|(kind, sector, sectors, fill)| Step {
        kind,
        sector,
        sectors,
        fill,
    })
}

/// The disk, and what each request has to answer.
struct Model(Vec<u8>);

impl Model {
    fn apply(&mut self, step: &Step) -> (u8, Option<Vec<u8>>) {
        let (at, length) = (step.sector as usize * 512, step.sectors as usize * 512);
        let Some(place) = self.0.get_mut(at..at + length) else {
            return (if matches!(step.kind, FLUSH) { OK } else { IOERR }, None);
        };
        match step.kind {
            IN => return (OK, Some(place.to_vec())),
            OUT => place.fill(step.fill),
            WRITE_ZEROES => place.fill(0),
            _ => {}
        }
        (OK, None)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn the_disk_is_an_array(steps in proptest::collection::vec(step(), 1..60), packed: bool, depth in 1..16_usize) {
        let mut rig = Rig::new(malloc(SECTORS, 512), false);
        let (mut queue, _) = rig.queue(if packed { Layout::Packed } else { Layout::Split });
        let mut model = Model(vec![0; SECTORS as usize * 512]);
        for batch in steps.chunks(depth) {
            let mut asked = Vec::new();
            for step in batch {
                let known = [IN, OUT, WRITE_ZEROES, FLUSH].contains(&step.kind);
                if !known && [GET_ID, DISCARD].contains(&step.kind) {
                    continue;
                }
                let mut range = Vec::from(step.sector.to_le_bytes());
                range.extend(step.sectors.to_le_bytes());
                range.extend([0; 4]);
                let out = match step.kind {
                    OUT => vec![step.fill; step.sectors as usize * 512],
                    WRITE_ZEROES => range,
                    _ => Vec::new(),
                };
                let room = if step.kind == IN { step.sectors * 512 } else { 0 };
                let expected = if known { model.apply(step) } else { (UNSUPP, None) };
                asked.push((queue.ask(step.kind, step.sector, &out, room), expected));
            }
            for _ in &asked {
                rig.until(|| queue.driver.reap());
            }
            for (request, (status, data)) in &asked {
                prop_assert_eq!(queue.status(request), *status);
                if let Some(data) = data {
                    prop_assert_eq!(&queue.data(request), data);
                }
            }
        }
    }
}
