//! `malloc`: a disk in memory. A request is a copy, so the copy and the cache misses before it are the whole cost.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use nvlane_memory::{HostMemory, copy};
use serde_json::{Value, json};

use crate::{Backend, Base, Bdev, BdevError, Info, Operation, Request, Status};

/// The pieces of a disk in order: the first is as large as the disk was when it was made, each growth adds one.
type Pieces = Arc<Vec<Arc<HostMemory>>>;

/// What the control thread and the channels share.
struct Shared {
    /// The size in bytes, within the pieces.
    length: AtomicU64,
    pieces: RwLock<Pieces>,
}

pub struct Malloc {
    base: Base,
    shared: Arc<Shared>,
}

impl Malloc {
    pub fn new(info: Info, blocks: u64) -> Result<Self, BdevError> {
        info.check()?;
        let length = bytes(&info, blocks)?;
        let first = allocate(&info, length)?;
        let shared = Shared { length: AtomicU64::new(length), pieces: RwLock::new(Arc::new(vec![first])) };
        Ok(Self { base: Base::new(Info { product_name: "Malloc disk", ..info }), shared: Arc::new(shared) })
    }
}

fn bytes(info: &Info, blocks: u64) -> Result<u64, BdevError> {
    blocks
        .checked_mul(u64::from(info.block_size))
        .filter(|&length| length != 0 && length < 1 << 46)
        .ok_or_else(|| {
            BdevError::new(
                libc::EINVAL,
                format!("malloc bdev {:?}: {blocks} blocks is no size that memory has", info.name),
            )
        })
}

/// Up to this size all pages are taken at once; above it a thread takes them, and the disk can be used meanwhile.
const TAKEN_AT_ONCE: u64 = 64 << 20;

/// Memory for a disk, with its pages: a page that is taken at its first access holds the reactor up for a page of zeroes,
/// 2 MiB of them where the page is large.
fn allocate(info: &Info, length: u64) -> Result<Arc<HostMemory>, BdevError> {
    let failed =
        |error| BdevError::io(format_args!("malloc bdev {:?}: {length} bytes of memory", info.name), &error);
    let memory = HostMemory::new(length as usize, length <= TAKEN_AT_ONCE).map_err(failed)?;
    let memory = Arc::new(memory);
    if length > TAKEN_AT_ONCE {
        let share = memory.clone();
        // Without the thread, or without pages, the first accesses take them.
        let _ = std::thread::Builder::new().name("nvlane-pages".into()).spawn(move || share.populate());
    }
    Ok(memory)
}

impl Bdev for Malloc {
    fn base(&self) -> &Base {
        &self.base
    }

    fn blocks(&self) -> u64 {
        self.shared.length.load(Relaxed) / u64::from(self.info().block_size)
    }

    fn supports(&self, _operation: Operation) -> bool {
        true
    }

    fn backend(&self, _reactor: usize) -> Result<Backend, BdevError> {
        Ok(Backend::Malloc(MallocChannel::new(self.shared.clone())))
    }

    fn driver_specific(&self) -> Value {
        json!({})
    }

    /// Grows by a new piece of memory. A disk that shrank keeps its memory, and reads zeroes when it grows again.
    fn resize(&self, blocks: u64) -> Result<(), BdevError> {
        let wanted = bytes(self.info(), blocks)?;
        let mut pieces = self.shared.pieces.write().unwrap_or_else(PoisonError::into_inner);
        let present: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        let current = self.shared.length.load(Relaxed);
        if wanted > current {
            View::new(pieces.clone()).zero(current, wanted.min(present) - current);
        }
        if wanted > present {
            let mut more = pieces.to_vec();
            more.push(allocate(self.info(), wanted - present)?);
            *pieces = Arc::new(more);
        }
        self.shared.length.store(wanted, Relaxed);
        Ok(())
    }
}

/// The memory as a channel knows it.
struct View {
    pieces: Pieces,
    first: *mut u8,
    first_length: u64,
    /// Of all pieces.
    length: u64,
}

// SAFETY: the pointer is into `pieces`, which the view owns a share of.
unsafe impl Send for View {}

impl View {
    fn new(pieces: Pieces) -> Self {
        let length = pieces.iter().map(|piece| piece.len() as u64).sum();
        let (first, first_length) = (pieces[0].pointer(), pieces[0].len() as u64);
        Self { pieces, first, first_length, length }
    }

    /// Calls `with(address, length)` for each contiguous part of a range that lies within the view.
    #[inline]
    fn each(&self, offset: u64, length: u64, mut with: impl FnMut(*mut u8, usize)) {
        if offset + length <= self.first_length {
            // SAFETY: the range ends within the first piece, a mapping of `first_length` bytes.
            with(unsafe { self.first.add(offset as usize) }, length as usize);
        } else {
            self.each_piece(offset, length, &mut with);
        }
    }

    #[cold]
    fn each_piece(&self, mut offset: u64, mut length: u64, with: &mut dyn FnMut(*mut u8, usize)) {
        for piece in self.pieces.iter() {
            let size = piece.len() as u64;
            if offset < size && length != 0 {
                let part = (size - offset).min(length);
                // SAFETY: `offset + part` is at most the length of this piece.
                with(unsafe { piece.pointer().add(offset as usize) }, part as usize);
                (offset, length) = (0, length - part);
            } else {
                offset -= size.min(offset);
            }
        }
    }

    fn zero(&self, offset: u64, length: u64) {
        self.each(offset, length, |address, count| {
            // SAFETY: `each` gives ranges of mapped memory only; nobody holds references into it.
            unsafe { copy::clear(address, count) }
        });
    }
}

pub struct MallocChannel {
    shared: Arc<Shared>,
    view: View,
}

impl MallocChannel {
    fn new(shared: Arc<Shared>) -> Self {
        let view = View::new(shared.pieces.read().unwrap_or_else(PoisonError::into_inner).clone());
        Self { shared, view }
    }

    #[inline]
    pub(crate) fn submit(&mut self, request: &Request<'_>) -> Status {
        if !self.within(request.offset, request.length) {
            return Status::OutOfRange;
        }
        match request.operation {
            Operation::Read => self.copy(request, |disk, guest, count| {
                // SAFETY: `copy` gives a range of the disk and one of a segment, which the caller of `submit` vouches for.
                unsafe { copy::bytes(disk, guest, count) }
            }),
            Operation::Write => self.copy(request, |disk, guest, count| {
                // SAFETY: as above.
                unsafe { copy::bytes(guest, disk, count) }
            }),
            Operation::Flush => Status::Ok,
            Operation::Unmap | Operation::WriteZeroes { .. } => {
                self.view.zero(request.offset, request.length);
                Status::Ok
            }
        }
    }

    /// The range lies within the disk and within the view, which is brought up to date if the disk has grown.
    #[inline]
    fn within(&mut self, offset: u64, length: u64) -> bool {
        let Some(end) = offset.checked_add(length) else { return false };
        if end > self.shared.length.load(Relaxed) {
            return false;
        }
        end <= self.view.length || self.renew(end)
    }

    #[cold]
    fn renew(&mut self, end: u64) -> bool {
        self.view = View::new(self.shared.pieces.read().unwrap_or_else(PoisonError::into_inner).clone());
        end <= self.view.length
    }

    #[inline]
    fn copy(&self, request: &Request<'_>, copy: impl Fn(*mut u8, *mut u8, usize)) -> Status {
        let (mut offset, mut left) = (request.offset, request.length);
        for segment in request.segments {
            let length = (segment.len() as u64).min(left);
            let mut guest = segment.base();
            self.view.each(offset, length, |disk, count| {
                copy(disk, guest, count);
                guest = guest.wrapping_add(count);
            });
            offset += length;
            left -= length;
        }
        if left == 0 { Status::Ok } else { Status::IoError }
    }

    /// The first lines of the range: the processor's own prefetcher follows from there, page by page.
    #[inline]
    pub(crate) fn prefetch(&self, _operation: Operation, offset: u64, length: u64) {
        const LINES: u64 = 4;
        let Some(end) = offset.checked_add(length.min(LINES * 64)) else { return };
        if end > self.view.first_length {
            return;
        }
        for line in (offset..end).step_by(64) {
            prefetch_line(self.view.first.wrapping_add(line as usize));
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn prefetch_line(address: *const u8) {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch never faults, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn prefetch_line(_address: *const u8) {}
