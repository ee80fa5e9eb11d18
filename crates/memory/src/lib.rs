//! Memory that several parties touch at once.
//!
//! Everything that a guest, a drive and this process share is mapped inside one reserved range of addresses, the
//! [`arena`]. That makes three questions one subtraction each: is this address shared memory (the SIGBUS handler asks),
//! whose is it, and under which I/O virtual address does a drive reach it ([`arena::iova_of`]).
//!
//! No reference to such memory is ever made: another party may change it at any time. It is read and written through
//! atomics (ring fields), through [`copy`] (everything else), or handed on as a [`Segment`].

mod segment;

pub use segment::Segment;
