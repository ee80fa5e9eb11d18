//! Which guest memory each request in flight may write, while the dirty log is on.

use crate::config::Log;

#[derive(Debug)]
pub(crate) struct WriteLog {
    log: Log,
    /// The device-writable buffers of the request with each id.
    buffers: Vec<Vec<(u64, u32)>>,
}

impl WriteLog {
    pub fn new(log: Log, size: u16) -> WriteLog {
        WriteLog { log, buffers: vec![Vec::new(); usize::from(size)] }
    }

    /// Takes the (empty) list of a request to fill it.
    pub fn buffers(&mut self, id: u16) -> &mut Vec<(u64, u32)> {
        let list = &mut self.buffers[usize::from(id)];
        list.clear();
        list
    }

    /// Everything that the request could have written was written; before the driver sees it completed.
    pub fn complete(&mut self, id: u16) {
        for (address, length) in self.buffers[usize::from(id)].drain(..) {
            self.log.log.mark(address, u64::from(length));
        }
    }

    /// A write to the used ring (split) or the device event area (packed), `offset` bytes into it.
    pub fn used(&self, offset: u64, length: u64) {
        if let Some(address) = self.log.used_address {
            self.log.log.mark(address.wrapping_add(offset), length);
        }
    }

    /// A write to the packed ring itself, which has no log address of its own.
    pub fn ring(&self, address: u64, length: u64) {
        if self.log.used_address.is_some() {
            self.log.log.mark(address, length);
        }
    }
}
