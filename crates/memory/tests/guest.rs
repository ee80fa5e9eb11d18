//! Guest memory: what is mapped, what is refused, what stays when the table changes.

use std::fs::File;
use std::sync::Arc;

use nvlane_memory::{GuestMemory, Hint, MAX_REGIONS, MapError, RegionSpec, memfd};

fn file(length: u64) -> File {
    let file = memfd(c"guest-test", 0).unwrap();
    file.set_len(length).unwrap();
    file
}

fn region(file: &File, guest_address: u64, size: u64, mmap_offset: u64) -> RegionSpec {
    let file = file.try_clone().unwrap().into();
    RegionSpec {
        guest_address,
        size,
        user_address: 0x7f00_0000_0000 + (guest_address & 0xf_ffff_ffff),
        mmap_offset,
        file,
    }
}

#[test]
fn addresses_are_translated_within_regions_only() {
    let file = file(0x40_0000);
    // The two pieces of a PC's low memory, around the hole at 640 KiB, and one far above.
    let memory = GuestMemory::map(vec![
        region(&file, 0xc0000, 0x10_0000, 0xc0000),
        region(&file, 0, 0xa0000, 0),
        region(&file, 0x1_0000_0000, 0x20_0000, 0x20_0000),
    ])
    .unwrap();
    let base = memory.translate(0, 1).unwrap().0;
    assert_eq!(memory.translate(0x9f000, 0x2000), Some((base.wrapping_add(0x9f000), 0x1000)));
    assert_eq!(memory.translate(0xa0000, 1), None);
    assert_eq!(memory.translate(0x1_001f_ffff, u64::MAX).unwrap().1, 1);
    assert_eq!(memory.translate(0x1_0020_0000, 1), None);
    assert_eq!(memory.translate(u64::MAX, u64::MAX), None);
    assert_eq!(memory.user_to_guest(0x7f00_000c_0010), Some(0xc0010));
    assert_eq!(memory.user_to_guest(0x7f00_000b_0000), None);
    let mut hint = Hint::default();
    for address in [0, 0x9ffff, 0xc0000, 0x1_0000_0000, 5, 0xa0000, 0xffff_ffff] {
        assert_eq!(
            memory.translate_near(&mut hint, address, 16),
            memory.translate(address, 16),
            "{address:#x}"
        );
    }
}

#[test]
fn what_is_no_memory_is_refused() {
    let file = file(0x10000);
    let refused = |specs| GuestMemory::map(specs).unwrap_err();
    assert!(matches!(refused(vec![region(&file, 0, 0, 0)]), MapError::BadRange { .. }));
    assert!(matches!(refused(vec![region(&file, u64::MAX - 0xfff, 0x2000, 0)]), MapError::BadRange { .. }));
    assert!(matches!(refused(vec![region(&file, 0, 0x2000, u64::MAX - 0xfff)]), MapError::BadRange { .. }));
    assert!(matches!(refused(vec![region(&file, 0, 0x11000, 0)]), MapError::FileTooSmall { .. }));
    assert!(matches!(refused(vec![region(&file, 0, 0x8000, 0x9000)]), MapError::FileTooSmall { .. }));
    let (one, two) = (region(&file, 0x1000, 0x2000, 0), region(&file, 0x2fff, 0x1000, 0));
    assert!(matches!(refused(vec![one, two]), MapError::Overlap { .. }));
    let socket = std::os::unix::net::UnixStream::pair().unwrap().0;
    let mut spec = region(&file, 0, 0x1000, 0);
    spec.file = socket.into();
    assert!(matches!(refused(vec![spec]), MapError::NotMemory { .. }));
    // A sparse file can claim any size; the addresses of the process are not one session's.
    let sparse = self::file(1 << 60);
    assert!(matches!(refused(vec![region(&sparse, 0, 1 << 60, 0)]), MapError::Map { .. }));
}

#[test]
fn a_thousand_regions_are_too_many() {
    let file = file(0x1000);
    let specs =
        |count: u64| (0..count).map(|page| region(&file, page * 0x1000, 0x1000, 0)).collect::<Vec<_>>();
    assert!(matches!(GuestMemory::map(specs(1000)), Err(MapError::TooManyRegions)));
    let memory = GuestMemory::map(specs(MAX_REGIONS as u64)).unwrap();
    assert_eq!(memory.regions().len(), MAX_REGIONS);
    for page in 0..MAX_REGIONS as u64 {
        assert_eq!(memory.translate(page * 0x1000 + 5, 0x2000).unwrap().1, 0xffb);
    }
}

#[test]
fn a_new_table_shares_what_stays() {
    let first = file(0x4000);
    let memory = Arc::new(GuestMemory::map(vec![region(&first, 0, 0x4000, 0)]).unwrap());
    let pointer = memory.translate(0, 1).unwrap().0;
    let more = memory.add(region(&file(0x1000), 0x10000, 0x1000, 0)).unwrap();
    assert!(matches!(memory.add(region(&first, 0x3000, 0x1000, 0)), Err(MapError::Overlap { .. })));
    drop(memory);
    assert_eq!(more.translate(0, 1).unwrap().0, pointer);
    assert!(matches!(more.remove(0, 0x4000, 0), Err(MapError::Unknown { .. })));
    let less = more.remove(0x10000, 0x1000, 0x7f00_0001_0000).unwrap();
    assert_eq!(less.translate(0x10000, 1), None);
    // The same region again, with another descriptor of the same file: nothing is mapped anew.
    let same =
        less.remap(vec![region(&first, 0, 0x4000, 0), region(&file(0x1000), 0x8000, 0x1000, 0)]).unwrap();
    assert_eq!(same.translate(0, 1).unwrap().0, pointer);
    // Another file at the same place is another region.
    let other = less.remap(vec![region(&file(0x4000), 0, 0x4000, 0)]).unwrap();
    assert_ne!(other.translate(0, 1).unwrap().0, pointer);
}
