//! What the model keeps, and how it moves data: PRPs are read as the specification has them, and not as kindly.

use std::collections::BTreeMap;

use super::Counters;
use crate::dma::reach::Reach;
use crate::spec::{Command, PAGE, Status, io};

#[derive(Clone, Debug)]
pub struct EmulatedNamespace {
    pub block_size: u32,
    pub bytes: usize,
    /// Blocks (NOIOB).
    pub optimal_boundary: u16,
    pub metadata: u16,
}

impl EmulatedNamespace {
    pub fn new(block_size: u32, bytes: usize) -> Self {
        Self { block_size, bytes, optimal_boundary: 0, metadata: 0 }
    }

    pub(super) fn blocks(&self) -> u64 {
        self.bytes as u64 / u64::from(self.block_size)
    }
}

pub(super) struct Media {
    namespaces: BTreeMap<u32, (EmulatedNamespace, Vec<u8>)>,
}

impl Media {
    pub fn new(namespaces: Vec<EmulatedNamespace>) -> Self {
        let kept = (1..).zip(namespaces).map(|(id, namespace)| {
            let bytes = vec![0; namespace.bytes];
            (id, (namespace, bytes))
        });
        Self { namespaces: kept.collect() }
    }

    pub fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        self.namespaces.keys().copied()
    }

    pub fn get(&self, id: u32) -> Option<&EmulatedNamespace> {
        self.namespaces.get(&id).map(|(namespace, _)| namespace)
    }

    pub fn resize(&mut self, id: u32, blocks: u64) {
        if let Some((namespace, kept)) = self.namespaces.get_mut(&id) {
            namespace.bytes = (blocks * u64::from(namespace.block_size)) as usize;
            kept.resize(namespace.bytes, 0);
        }
    }

    pub fn remove(&mut self, id: u32) {
        self.namespaces.remove(&id);
    }

    pub fn peek(&self, id: u32, offset: usize, to: &mut [u8]) {
        if let Some((_, kept)) = self.namespaces.get(&id) {
            to.copy_from_slice(&kept[offset..offset + to.len()]);
        }
    }

    /// Runs a command; an error is a sentence about what the driver did wrong.
    pub fn execute(
        &mut self,
        command: &Command,
        reach: &Reach,
        counters: &mut Counters,
    ) -> Result<Status, String> {
        let Some((namespace, kept)) = self.namespaces.get_mut(&command.0[1]) else {
            return Ok(Status::INVALID_NAMESPACE);
        };
        let size = namespace.block_size as usize;
        let range = |lba: u64, blocks: u64| {
            let end = lba.checked_add(blocks).filter(|&end| end <= namespace.blocks());
            end.map(|end| lba as usize * size..end as usize * size)
        };
        match command.opcode() {
            io::FLUSH => counters.flushes += 1,
            io::READ | io::WRITE | io::WRITE_ZEROES => {
                let (lba, blocks) = command.range();
                let Some(range) = range(lba, blocks.into()) else { return Ok(Status::LBA_OUT_OF_RANGE) };
                let data = &mut kept[range];
                match command.opcode() {
                    io::WRITE_ZEROES => data.fill(0),
                    opcode => transfer(command, reach, data, opcode == io::READ)?,
                }
            }
            io::DATASET_MANAGEMENT => {
                let mut bytes = [0; 16];
                let address = command.prps().0;
                reach.read(address, &mut bytes).ok_or(format!("a range cannot be read at {address:#x}"))?;
                let blocks = u32::from_le_bytes(bytes[4..8].try_into().unwrap_or_default());
                let lba = u64::from_le_bytes(bytes[8..16].try_into().unwrap_or_default());
                let Some(range) = range(lba, blocks.into()) else { return Ok(Status::LBA_OUT_OF_RANGE) };
                kept[range].fill(0);
                counters.deallocations += 1;
            }
            _ => return Ok(Status::INVALID_OPCODE),
        }
        Ok(Status::SUCCESS)
    }
}

/// Moves data page by page (4.1.1).
fn transfer(command: &Command, reach: &Reach, data: &mut [u8], to_host: bool) -> Result<(), String> {
    let (first, second) = command.prps();
    if first % 4 != 0 {
        return Err(format!("PRP1 is {first:#x}"));
    }
    let mut done = 0;
    let mut page = first;
    let mut list = second;
    let in_first = (PAGE - first as usize % PAGE).min(data.len());
    // What is left after the first page: one more page, or a list.
    let is_list = data.len() - in_first > PAGE;
    let mut length = in_first;
    loop {
        let part = &mut data[done..done + length];
        let moved = if to_host { reach.write(page, part) } else { reach.read(page, part) };
        moved.ok_or(format!("{length} bytes at {page:#x} are not mapped"))?;
        done += length;
        if done == data.len() {
            return Ok(());
        }
        length = (data.len() - done).min(PAGE);
        if is_list {
            let mut entry = [0; 8];
            reach.read(list, &mut entry).ok_or(format!("a PRP list cannot be read at {list:#x}"))?;
            page = u64::from_le_bytes(entry);
            list += 8;
            if list % PAGE as u64 == 0 && data.len() - done > length {
                return Err("a PRP list goes on beyond its page".to_owned());
            }
        } else {
            page = second;
        }
        if page % PAGE as u64 != 0 {
            return Err(format!("a PRP after the first is {page:#x}"));
        }
    }
}
