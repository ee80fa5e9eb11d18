//! Which parts of the reserved range are free: first fit, lowest address first.
//!
//! Low addresses first keeps I/O virtual addresses low, which matters where an IOMMU translates 39 bits only (QEMU's
//! default intel-iommu until 9.2).

use std::collections::BTreeMap;

/// Free ranges by their start; no two of them touch.
#[derive(Debug)]
pub(crate) struct FreeList {
    ranges: BTreeMap<usize, usize>,
}

/// Where a range may start: `start % alignment == remainder`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placement {
    pub alignment: usize,
    pub remainder: usize,
}

impl FreeList {
    pub fn new(start: usize, length: usize) -> FreeList {
        FreeList { ranges: BTreeMap::from([(start, length)]) }
    }

    /// Takes `length` bytes out of the lowest free range that can hold them at that placement.
    pub fn allocate(&mut self, length: usize, placement: Placement) -> Option<usize> {
        let (start, free, at) = self.ranges.iter().find_map(|(&start, &free)| {
            let at = first_at_or_after(start, placement)?;
            let end = at.checked_add(length)?;
            (end <= start + free).then_some((start, free, at))
        })?;
        self.ranges.remove(&start);
        if at > start {
            self.ranges.insert(start, at - start);
        }
        if at + length < start + free {
            self.ranges.insert(at + length, start + free - at - length);
        }
        Some(at)
    }

    /// Gives a range back and joins it with its neighbours.
    pub fn release(&mut self, mut start: usize, mut length: usize) {
        if let Some((&before, &free)) = self.ranges.range(..start).next_back() {
            debug_assert!(before + free <= start, "a range was released twice");
            if before + free == start {
                self.ranges.remove(&before);
                start = before;
                length += free;
            }
        }
        if let Some(free) = self.ranges.remove(&(start + length)) {
            length += free;
        }
        self.ranges.insert(start, length);
    }
}

fn first_at_or_after(start: usize, Placement { alignment, remainder }: Placement) -> Option<usize> {
    let down = start - start % alignment + remainder;
    if down >= start { Some(down) } else { down.checked_add(alignment) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: Placement = Placement { alignment: 4096, remainder: 0 };

    #[test]
    fn lowest_first_and_joined_again() {
        let mut list = FreeList::new(0x10000, 0x10000);
        let first = list.allocate(0x1000, ANY).unwrap();
        let second = list.allocate(0x2000, ANY).unwrap();
        let third = list.allocate(0x1000, ANY).unwrap();
        assert_eq!((first, second, third), (0x10000, 0x11000, 0x13000));
        list.release(second, 0x2000);
        assert_eq!(list.allocate(0x1000, ANY), Some(0x11000));
        list.release(0x11000, 0x1000);
        list.release(first, 0x1000);
        list.release(third, 0x1000);
        assert_eq!(list.ranges, BTreeMap::from([(0x10000, 0x10000)]));
    }

    #[test]
    fn placement_is_kept() {
        let mut list = FreeList::new(0x1000, 0x100_0000);
        let at = list.allocate(0x1000, Placement { alignment: 0x20_0000, remainder: 0x3000 }).unwrap();
        assert_eq!(at, 0x3000);
        let at = list.allocate(0x1000, Placement { alignment: 0x20_0000, remainder: 0x3000 }).unwrap();
        assert_eq!(at, 0x20_3000);
        assert_eq!(list.allocate(0x200_0000, ANY), None);
    }
}
