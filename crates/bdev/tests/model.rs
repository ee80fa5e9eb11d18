//! Every driver against a plain model: whatever is asked in whatever order, the bytes are those of a `Vec`.

mod disk;

use disk::{Disk, Guest};
use nvlane_bdev::{Bdev, Operation, Status};
use proptest::prelude::*;

const BLOCK: u64 = 512;
const BLOCKS: u64 = 512;

#[derive(Clone, Debug)]
enum Step {
    Read,
    Write(u8),
    Unmap,
    WriteZeroes(bool),
    Flush,
}

fn step() -> impl Strategy<Value = (Step, u64, u64, Vec<usize>)> {
    let what = prop_oneof![
        3 => Just(Step::Read),
        4 => any::<u8>().prop_map(Step::Write),
        1 => Just(Step::Unmap),
        1 => any::<bool>().prop_map(Step::WriteZeroes),
        1 => Just(Step::Flush),
    ];
    let cuts = prop::collection::vec(prop_oneof![Just(512usize), Just(4096), 1usize..5000], 0..6);
    (what, 0..BLOCKS, 1u64..64, cuts)
        .prop_map(|(what, start, count, cuts)| (what, start, count.min(BLOCKS - start), cuts))
}

/// Runs the steps, several at a time, and compares with the model after each group.
fn check(bdev: &dyn Bdev, steps: &[(Step, u64, u64, Vec<usize>)]) -> Result<(), TestCaseError> {
    let mut disk = Disk::open(bdev);
    let mut model = disk.everything(bdev);
    for (what, start, count, cuts) in steps {
        let (offset, length) = (start * BLOCK, count * BLOCK);
        let range = offset as usize..(offset + length) as usize;
        match what {
            Step::Read => {
                let guest = Guest::new(length as usize, cuts, 0xa5);
                prop_assert_eq!(disk.run(Operation::Read, offset, length, &guest.segments()), Status::Ok);
                prop_assert!(guest.bytes() == model[range], "read at {}", offset);
            }
            Step::Write(byte) => {
                let guest = Guest::new(length as usize, cuts, *byte);
                prop_assert_eq!(disk.run(Operation::Write, offset, length, &guest.segments()), Status::Ok);
                model[range].copy_from_slice(&guest.bytes());
            }
            Step::Unmap => {
                prop_assert_eq!(disk.run(Operation::Unmap, offset, length, &[]), Status::Ok);
                // The drivers tested here read zeroes afterwards, though nobody has to.
                model[range].fill(0);
            }
            Step::WriteZeroes(unmap) => {
                let operation = Operation::WriteZeroes { unmap: *unmap };
                prop_assert_eq!(disk.run(operation, offset, length, &[]), Status::Ok);
                model[range].fill(0);
            }
            Step::Flush => prop_assert_eq!(disk.run(Operation::Flush, 0, 0, &[]), Status::Ok),
        }
    }
    prop_assert!(disk.everything(bdev) == model, "the whole disk");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn malloc(steps in prop::collection::vec(step(), 1..60)) {
        check(&disk::malloc(BLOCK as u32, BLOCKS), &steps)?;
    }

    #[test]
    fn malloc_in_pieces(steps in prop::collection::vec(step(), 1..60)) {
        let bdev = disk::malloc(BLOCK as u32, 100);
        for blocks in [150, 200, 90, BLOCKS] {
            bdev.resize(blocks).unwrap();
        }
        check(&bdev, &steps)?;
    }

    #[test]
    fn file_by_io_uring(steps in prop::collection::vec(step(), 1..60)) {
        let file = disk::TestFile::on_disk(BLOCK * BLOCKS);
        check(&file.open(BLOCK as u32, false), &steps)?;
    }

    #[test]
    fn file_by_threads(steps in prop::collection::vec(step(), 1..60)) {
        let file = disk::TestFile::on_disk(BLOCK * BLOCKS);
        check(&file.open(BLOCK as u32, true), &steps)?;
    }

    #[test]
    fn file_in_memory(steps in prop::collection::vec(step(), 1..60)) {
        let file = disk::TestFile::in_memory(BLOCK * BLOCKS);
        check(&file.open(BLOCK as u32, false), &steps)?;
    }
}
