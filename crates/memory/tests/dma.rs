//! The registry of ranges and mappers; one process, because it is the process's.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use nvlane_memory::dma::{DmaMapper, add_mapper, register};
use nvlane_memory::{Backing, Mapping, OnFault, arena};

#[derive(Default)]
struct Fake {
    mapped: Mutex<BTreeMap<u64, usize>>,
    refuses: bool,
}

impl DmaMapper for Fake {
    fn map(&self, iova: u64, _: *mut u8, length: usize) -> io::Result<()> {
        if self.refuses {
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        assert_eq!(self.mapped.lock().unwrap().insert(iova, length), None);
        Ok(())
    }

    fn unmap(&self, iova: u64, length: usize) {
        assert_eq!(self.mapped.lock().unwrap().remove(&iova), Some(length));
    }
}

impl Fake {
    fn knows(&self, range: &Mapping) -> bool {
        self.mapped.lock().unwrap().get(&arena::iova_of(range.pointer())) == Some(&range.len())
    }
}

#[test]
fn every_mapper_knows_every_range_or_says_no() {
    let memory = |pages: usize| Mapping::new(Backing::Anonymous, pages * 4096, OnFault::Die).unwrap();
    let (first, second) = (memory(1), memory(2));
    let early = register(first.pointer(), first.len()).unwrap();
    let mapper = Arc::new(Fake::default());
    let handle = add_mapper(mapper.clone()).unwrap();
    let late = register(second.pointer(), second.len()).unwrap();
    assert!(mapper.knows(&first) && mapper.knows(&second));
    let refusing = Arc::new(Fake { refuses: true, ..Fake::default() });
    assert!(add_mapper(refusing.clone()).is_err());
    drop(early);
    assert!(!mapper.knows(&first) && mapper.knows(&second));
    drop(handle);
    assert!(!mapper.knows(&second));
    drop(late);
    let handle = add_mapper(refusing).unwrap();
    assert!(register(first.pointer(), first.len()).is_err());
    drop(handle);
}
