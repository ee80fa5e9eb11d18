//! Bodies of messages. All numbers are in the byte order of the machine (vhost-user.rst, «Message Specification»).

/// Reads numbers from a body, in order. The caller has checked the length.
pub(crate) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }
    pub fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_ne_bytes)
    }
    pub fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }
    pub fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }
}

/// A number that belongs to a ring: its size, its base, or whether it is enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VringState {
    pub index: u32,
    pub num: u32,
}

impl VringState {
    pub const SIZE: usize = 8;

    pub(crate) fn read(body: &[u8]) -> Option<VringState> {
        let mut reader = Reader(body);
        Some(VringState { index: reader.u32()?, num: reader.u32()? })
    }
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.index.to_ne_bytes());
        out.extend(self.num.to_ne_bytes());
    }
}

/// Where a ring lies: addresses in the front end's address space, not the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VringAddress {
    pub index: u32,
    pub flags: u32,
    pub descriptor: u64,
    pub used: u64,
    pub available: u64,
    /// Guest address under which writes to the used ring are logged.
    pub log: u64,
}

impl VringAddress {
    pub const SIZE: usize = 40;

    pub(crate) fn read(body: &[u8]) -> Option<VringAddress> {
        let mut reader = Reader(body);
        Some(VringAddress {
            index: reader.u32()?,
            flags: reader.u32()?,
            descriptor: reader.u64()?,
            used: reader.u64()?,
            available: reader.u64()?,
            log: reader.u64()?,
        })
    }
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.index.to_ne_bytes());
        out.extend(self.flags.to_ne_bytes());
        for number in [self.descriptor, self.used, self.available, self.log] {
            out.extend(number.to_ne_bytes());
        }
    }
}

/// A region of guest memory, without its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    pub guest_address: u64,
    pub size: u64,
    pub user_address: u64,
    pub mmap_offset: u64,
}

impl Region {
    pub const SIZE: usize = 32;

    pub(crate) fn read(body: &[u8]) -> Option<Region> {
        let mut reader = Reader(body);
        Some(Region {
            guest_address: reader.u64()?,
            size: reader.u64()?,
            user_address: reader.u64()?,
            mmap_offset: reader.u64()?,
        })
    }
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        for number in [self.guest_address, self.size, self.user_address, self.mmap_offset] {
            out.extend(number.to_ne_bytes());
        }
    }
}

/// Where the dirty log lies in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogArea {
    pub size: u64,
    pub offset: u64,
}

impl LogArea {
    pub const SIZE: usize = 16;

    pub(crate) fn read(body: &[u8]) -> Option<LogArea> {
        let mut reader = Reader(body);
        Some(LogArea { size: reader.u64()?, offset: reader.u64()? })
    }
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.size.to_ne_bytes());
        out.extend(self.offset.to_ne_bytes());
    }
}

/// Where the in-flight record lies in its file, and for how many rings of what size it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inflight {
    pub mmap_size: u64,
    pub mmap_offset: u64,
    pub num_queues: u16,
    pub queue_size: u16,
}

impl Inflight {
    /// The numbers take 20 bytes; the C structure, which QEMU and DPDK send, is padded to 24.
    pub const SIZE: usize = 20;
    pub const PADDED: usize = 24;

    pub(crate) fn read(body: &[u8]) -> Option<Inflight> {
        let mut reader = Reader(body);
        Some(Inflight {
            mmap_size: reader.u64()?,
            mmap_offset: reader.u64()?,
            num_queues: reader.u16()?,
            queue_size: reader.u16()?,
        })
    }
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.mmap_size.to_ne_bytes());
        out.extend(self.mmap_offset.to_ne_bytes());
        out.extend(self.num_queues.to_ne_bytes());
        out.extend(self.queue_size.to_ne_bytes());
        out.extend([0; Inflight::PADDED - Inflight::SIZE]);
    }
}
