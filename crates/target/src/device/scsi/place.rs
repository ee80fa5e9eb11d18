//! Where a response goes, in whatever pieces the guest laid it out.

use nvlane_memory::{Segment, copy, total};
use nvlane_ring::Segments;

use super::super::{Io, Step};
use super::wire::{RESPONSE, Response};

/// The first [`RESPONSE`] writable bytes of a chain.
pub(super) enum Place {
    Whole(Segment),
    Pieces(Box<[Segment]>),
}

impl Place {
    /// Takes it off the front; what remains is the Data-In buffer. None: there is no room for a response.
    #[inline]
    pub fn take(segments: &mut Segments) -> Option<Place> {
        if let Some(whole) = segments.take_response(RESPONSE) {
            return Some(Place::Whole(whole));
        }
        if segments.writable_bytes() < RESPONSE {
            return None;
        }
        let pieces = part(segments.writable(), 0, RESPONSE);
        segments.skip_writable(RESPONSE);
        Some(Place::Pieces(pieces.into()))
    }

    /// Writes the response; `data` bytes of the Data-In buffer were written before.
    #[inline]
    pub fn answer(&self, response: &Response, data: u64, io: &mut Io<'_>) -> Step {
        let segments = match self {
            Place::Whole(whole) => std::slice::from_ref(whole),
            Place::Pieces(pieces) => pieces,
        };
        copy::copy_out(&response.encode(), segments, 0);
        if io.logs() {
            io.guest_wrote(segments);
        }
        Step::Done { written: u32::try_from(data + RESPONSE as u64).unwrap_or(u32::MAX) }
    }
}

/// `length` bytes from `offset` on; fewer where the segments end before.
pub(super) fn part(segments: &[Segment], mut offset: usize, length: usize) -> Vec<Segment> {
    let mut left = length;
    let mut parts = Vec::with_capacity(segments.len());
    for segment in segments {
        if left == 0 {
            break;
        }
        let piece = segment.part(offset, left);
        offset = offset.saturating_sub(segment.len());
        left -= piece.len();
        if !piece.is_empty() {
            parts.push(piece);
        }
    }
    debug_assert!(total(&parts) <= length);
    parts
}
