//! The requests of a channel that are under way: what the statistics need to know when they end.

use crate::{Kind, Request};

#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub token: u64,
    pub began: u64,
    pub length: u64,
    pub kind: Kind,
}

/// A slab: entries keep their place, free places form a stack. It grows to the most that were ever under way.
#[derive(Default)]
pub(crate) struct Pending {
    entries: Vec<Entry>,
    free: Vec<u32>,
}

impl Pending {
    pub fn with_capacity(capacity: usize) -> Self {
        Self { entries: Vec::with_capacity(capacity), free: Vec::with_capacity(capacity) }
    }

    pub fn insert(&mut self, request: &Request<'_>, began: u64) -> u64 {
        let entry =
            Entry { token: request.token, began, length: request.length, kind: Kind::of(request.operation) };
        match self.free.pop() {
            Some(place) => {
                self.entries[place as usize] = entry;
                u64::from(place)
            }
            None => {
                self.entries.push(entry);
                self.entries.len() as u64 - 1
            }
        }
    }

    pub fn remove(&mut self, place: u64) -> Entry {
        self.free.push(place as u32);
        self.entries[place as usize]
    }

    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }
}
