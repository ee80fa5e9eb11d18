//! Physical region pages (4.1.1): how a command names its data.
//!
//! The first may begin anywhere in its page (at a multiple of four), all others begin a page, and all but the last go to
//! the end of their page. So segments that touch each other in the middle of a page are fine only where the device
//! sees them side by side; everything else has to be copied (`Staging`).

use nvlane_memory::Segment;

use crate::DmaBuffer;
use crate::dma::iova_of;

const MASK: u64 = 4095;

/// Where a command's PRP list may be: it does not cross a page.
pub(super) struct List<'a> {
    pub memory: &'a DmaBuffer,
    pub offset: usize,
    pub entries: usize,
}

/// PRP1 and PRP2 for all bytes of the segments; None when they break the rules, a device cannot reach them, or they are
/// not that many.
#[inline]
pub(super) fn describe(
    segments: impl Iterator<Item = Segment>,
    bytes: usize,
    list: &List,
) -> Option<(u64, u64)> {
    let mut first = None;
    let mut second = 0;
    let mut count = 0; // pages after the first
    let mut page = 0; // the next page that begins
    let mut end = 0;
    let mut left = bytes as u64;
    for segment in segments {
        if segment.is_empty() {
            continue;
        }
        let start = iova_of(segment.base())?;
        if first.is_none() {
            if start & 3 != 0 {
                return None;
            }
            first = Some(start);
            page = (start & !MASK) + MASK + 1;
        } else if start != end {
            if (start | end) & MASK != 0 {
                return None;
            }
            page = start;
        }
        end = start + segment.len() as u64;
        left = left.wrapping_sub(segment.len() as u64);
        while page < end {
            match count {
                0 => second = page,
                1 => {
                    // More than two: what was PRP2 moves into the list.
                    if list.entries < 2 {
                        return None;
                    }
                    list.memory.store64(list.offset, second);
                    list.memory.store64(list.offset + 8, page);
                }
                _ => {
                    if count >= list.entries {
                        return None;
                    }
                    list.memory.store64(list.offset + 8 * count, page);
                }
            }
            count += 1;
            page += MASK + 1;
        }
    }
    if left != 0 {
        return None;
    }
    if count > 1 {
        second = list.memory.iova(list.offset);
    }
    Some((first?, second))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: usize = 4096;

    /// What a device makes of two PRPs, `length` bytes in all: the bytes' addresses, piece by piece.
    fn understood(prps: (u64, u64), length: usize, memory: &DmaBuffer) -> Vec<(u64, usize)> {
        let mut pieces = vec![(prps.0, length.min(PAGE - (prps.0 as usize % PAGE)))];
        let mut left = length - pieces[0].1;
        if left > PAGE {
            let offset = (prps.1 - memory.iova(0)) as usize;
            let mut index = 0;
            while left > 0 {
                let page = memory.load64(offset + 8 * index);
                assert_eq!(page % PAGE as u64, 0, "pages of a list begin a page");
                pieces.push((page, left.min(PAGE)));
                left -= left.min(PAGE);
                index += 1;
            }
        } else if left > 0 {
            assert_eq!(prps.1 % PAGE as u64, 0);
            pieces.push((prps.1, left));
        }
        pieces
    }

    fn bytes(pieces: impl Iterator<Item = (u64, usize)>) -> Vec<u64> {
        pieces.flat_map(|(start, length)| (0..length as u64 / 4).map(move |word| start + 4 * word)).collect()
    }

    proptest! {
        /// Whatever is described is what the segments name, in order; and what obeys the rules is described.
        #[test]
        fn prps_name_what_the_segments_name(pieces in prop::collection::vec((0usize..32, 0usize..9, 1usize..20, any::<bool>()), 1..6)) {
            let memory = DmaBuffer::new(48 * PAGE).unwrap();
            let list = List { memory: &memory, offset: 47 * PAGE, entries: 64 };
            let segments: Vec<Segment> = pieces
                .iter()
                .map(|&(page, offset, length, whole)| {
                    let (offset, length) =
                        if whole { (0, length.min(8) * PAGE) } else { (offset * 512, length * 512) };
                    memory.part(page * PAGE + offset, length)
                })
                .collect();
            let length: usize = segments.iter().map(|segment| segment.len()).sum();
            let iova = |segment: &Segment| iova_of(segment.base()).unwrap();
            let described = describe(segments.iter().copied(), length, &list);
            let obeys = segments.windows(2).all(|pair| {
                let end = iova(&pair[0]) + pair[0].len() as u64;
                end == iova(&pair[1]) || (end | iova(&pair[1])) % PAGE as u64 == 0
            });
            prop_assert_eq!(described.is_some(), obeys);
            if let Some(prps) = described {
                let expected = bytes(segments.iter().map(|segment| (iova(segment), segment.len())));
                prop_assert_eq!(bytes(understood(prps, length, &memory).into_iter()), expected);
            }
        }
    }

    #[test]
    fn what_a_device_cannot_take_is_not_described() {
        let memory = DmaBuffer::new(8 * PAGE).unwrap();
        let list = List { memory: &memory, offset: 7 * PAGE, entries: 2 };
        let describe =
            |segments: &[Segment]| describe(segments.iter().copied(), nvlane_memory::total(segments), &list);
        assert!(describe(&[memory.part(2, 512)]).is_none(), "not a multiple of four");
        assert!(describe(&[memory.part(4, 512)]).is_some());
        assert!(describe(&[memory.part(0, 4 * PAGE)]).is_none(), "more pages than the list holds");
        assert!(describe(&[memory.part(0, 3 * PAGE)]).is_some());
        let mut outside = [0u8; 512];
        // SAFETY: never accessed through the segment.
        let stray = unsafe { Segment::new(outside.as_mut_ptr(), outside.len()) };
        assert!(describe(&[stray]).is_none(), "not in the arena");
        assert!(describe(&[]).is_none());
        assert!(
            super::describe(std::iter::once(memory.part(0, 512)), 1024, &list).is_none(),
            "too few bytes"
        );
    }
}
