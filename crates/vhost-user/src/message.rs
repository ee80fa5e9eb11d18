//! What a front end says to a back end.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::code::Request;
use crate::framing::{Frame, frame};
use crate::payload::{Inflight, LogArea, Reader, Region, VringAddress, VringState};
use crate::refusal::Refusal;

/// VHOST_USER_MAX_CONFIG_SIZE: how much configuration space one message carries.
pub const MAX_CONFIG: usize = 256;

/// Regions of one SET_MEM_TABLE. The protocol's own number is 8 (VHOST_MEMORY_BASELINE_NREGIONS); front ends made with
/// rust-vmm send up to 32. More than that come one by one, with ADD_MEM_REG.
pub const MAX_TABLE_REGIONS: usize = 32;

/// In the number of SET_VRING_KICK, _CALL and _ERR: no descriptor comes with it.
const NO_DESCRIPTOR: u64 = 1 << 8;
const VRING_INDEX: u64 = 0xff;

/// A region of guest memory and the file that holds it.
#[derive(Debug)]
pub struct MemoryRegion {
    pub region: Region,
    pub file: OwnedFd,
}

/// A message that a back end can obey. Descriptors are owned: whoever drops the message closes them.
#[derive(Debug)]
pub enum Message {
    GetFeatures,
    SetFeatures(u64),
    SetOwner,
    ResetOwner,
    SetMemTable(Vec<MemoryRegion>),
    /// Without LOG_SHMFD the log has no file, and nothing can be logged.
    SetLogBase(LogArea, Option<OwnedFd>),
    SetLogFd(OwnedFd),
    SetVringNum(VringState),
    SetVringAddr(VringAddress),
    SetVringBase(VringState),
    GetVringBase(u32),
    /// Without a descriptor the ring is to be polled.
    SetVringKick(u8, Option<OwnedFd>),
    SetVringCall(u8, Option<OwnedFd>),
    SetVringErr(u8, Option<OwnedFd>),
    GetProtocolFeatures,
    SetProtocolFeatures(u64),
    GetQueueNum,
    SetVringEnable(u32, bool),
    SetBackendReqFd(OwnedFd),
    GetConfig {
        offset: u32,
        size: u32,
        flags: u32,
    },
    SetConfig {
        offset: u32,
        flags: u32,
        bytes: Vec<u8>,
    },
    GetInflightFd(Inflight),
    SetInflightFd(Inflight, OwnedFd),
    ResetDevice,
    GetMaxMemSlots,
    AddMemReg(MemoryRegion),
    /// The region is found by guest address, user address and size.
    RemMemReg(Region),
    SetStatus(u64),
    GetStatus,
}

impl Message {
    /// The message in a frame. Descriptors that it has no use for are closed.
    pub fn parse(frame: Frame) -> Result<Message, Refusal> {
        let number = frame.header.number;
        if frame.header.reply {
            return Err(Refusal::ReplyFlag { number });
        }
        let request = Request::from_number(number).ok_or(Refusal::Unknown { number })?;
        let mut body = Body { request, bytes: &frame.body, descriptors: frame.descriptors };
        use Request as R;
        Ok(match request {
            R::GetFeatures => Message::GetFeatures,
            R::SetFeatures => Message::SetFeatures(body.number()?),
            R::SetOwner => Message::SetOwner,
            R::ResetOwner => Message::ResetOwner,
            R::SetMemTable => Message::SetMemTable(body.memory_table()?),
            R::SetLogBase => body.log_base()?,
            R::SetLogFd => Message::SetLogFd(body.descriptor()?),
            R::SetVringNum => Message::SetVringNum(body.vring_state()?),
            R::SetVringAddr => {
                Message::SetVringAddr(body.exactly(VringAddress::SIZE, "40", VringAddress::read)?)
            }
            R::SetVringBase => Message::SetVringBase(body.vring_state()?),
            R::GetVringBase => Message::GetVringBase(body.vring_state()?.index),
            R::SetVringKick => body.vring_descriptor(Message::SetVringKick)?,
            R::SetVringCall => body.vring_descriptor(Message::SetVringCall)?,
            R::SetVringErr => body.vring_descriptor(Message::SetVringErr)?,
            R::GetProtocolFeatures => Message::GetProtocolFeatures,
            R::SetProtocolFeatures => Message::SetProtocolFeatures(body.number()?),
            R::GetQueueNum => Message::GetQueueNum,
            R::SetVringEnable => body.vring_enable()?,
            R::SetBackendReqFd => Message::SetBackendReqFd(body.descriptor()?),
            R::GetConfig => body.get_config()?,
            R::SetConfig => body.set_config()?,
            R::GetInflightFd => Message::GetInflightFd(body.inflight()?),
            R::SetInflightFd => Message::SetInflightFd(body.inflight()?, body.descriptor()?),
            R::ResetDevice => Message::ResetDevice,
            R::GetMaxMemSlots => Message::GetMaxMemSlots,
            R::AddMemReg => {
                Message::AddMemReg(MemoryRegion { region: body.region()?, file: body.descriptor()? })
            }
            R::RemMemReg => Message::RemMemReg(body.region()?),
            R::SetStatus => Message::SetStatus(body.number()?),
            R::GetStatus => Message::GetStatus,
            R::SendRarp
            | R::NetSetMtu
            | R::IotlbMsg
            | R::SetVringEndian
            | R::CreateCryptoSession
            | R::CloseCryptoSession
            | R::PostcopyAdvise
            | R::PostcopyListen
            | R::PostcopyEnd
            | R::GpuSetSocket
            | R::VringKick
            | R::GetSharedObject
            | R::SetDeviceStateFd
            | R::CheckDeviceState => return Err(Refusal::Unsupported { request }),
        })
    }

    pub fn request(&self) -> Request {
        match self {
            Message::GetFeatures => Request::GetFeatures,
            Message::SetFeatures(_) => Request::SetFeatures,
            Message::SetOwner => Request::SetOwner,
            Message::ResetOwner => Request::ResetOwner,
            Message::SetMemTable(_) => Request::SetMemTable,
            Message::SetLogBase(..) => Request::SetLogBase,
            Message::SetLogFd(_) => Request::SetLogFd,
            Message::SetVringNum(_) => Request::SetVringNum,
            Message::SetVringAddr(_) => Request::SetVringAddr,
            Message::SetVringBase(_) => Request::SetVringBase,
            Message::GetVringBase(_) => Request::GetVringBase,
            Message::SetVringKick(..) => Request::SetVringKick,
            Message::SetVringCall(..) => Request::SetVringCall,
            Message::SetVringErr(..) => Request::SetVringErr,
            Message::GetProtocolFeatures => Request::GetProtocolFeatures,
            Message::SetProtocolFeatures(_) => Request::SetProtocolFeatures,
            Message::GetQueueNum => Request::GetQueueNum,
            Message::SetVringEnable(..) => Request::SetVringEnable,
            Message::SetBackendReqFd(_) => Request::SetBackendReqFd,
            Message::GetConfig { .. } => Request::GetConfig,
            Message::SetConfig { .. } => Request::SetConfig,
            Message::GetInflightFd(_) => Request::GetInflightFd,
            Message::SetInflightFd(..) => Request::SetInflightFd,
            Message::ResetDevice => Request::ResetDevice,
            Message::GetMaxMemSlots => Request::GetMaxMemSlots,
            Message::AddMemReg(_) => Request::AddMemReg,
            Message::RemMemReg(_) => Request::RemMemReg,
            Message::SetStatus(_) => Request::SetStatus,
            Message::GetStatus => Request::GetStatus,
        }
    }

    /// The frame as bytes, as a front end sends it.
    pub fn bytes(&self, need_reply: bool) -> Vec<u8> {
        let mut body = Vec::new();
        self.write_body(&mut body);
        frame(self.request() as u32, false, need_reply, &body)
    }

    fn write_body(&self, out: &mut Vec<u8>) {
        match self {
            Message::SetFeatures(number)
            | Message::SetProtocolFeatures(number)
            | Message::SetStatus(number) => {
                out.extend(number.to_ne_bytes());
            }
            Message::SetMemTable(regions) => {
                out.extend((regions.len() as u32).to_ne_bytes());
                out.extend([0; 4]);
                regions.iter().for_each(|region| region.region.write(out));
            }
            Message::SetLogBase(area, _) => area.write(out),
            Message::SetVringNum(state) | Message::SetVringBase(state) => state.write(out),
            Message::SetVringAddr(address) => address.write(out),
            Message::GetVringBase(index) => VringState { index: *index, num: 0 }.write(out),
            Message::SetVringKick(index, descriptor)
            | Message::SetVringCall(index, descriptor)
            | Message::SetVringErr(index, descriptor) => {
                let flag = if descriptor.is_none() { NO_DESCRIPTOR } else { 0 };
                out.extend((u64::from(*index) | flag).to_ne_bytes());
            }
            Message::SetVringEnable(index, enable) => {
                VringState { index: *index, num: u32::from(*enable) }.write(out);
            }
            Message::GetConfig { offset, size, flags } => {
                write_config(out, *offset, *size, *flags, &vec![0; (*size as usize).min(MAX_CONFIG)]);
            }
            Message::SetConfig { offset, flags, bytes } => {
                write_config(out, *offset, bytes.len() as u32, *flags, bytes);
            }
            Message::GetInflightFd(inflight) | Message::SetInflightFd(inflight, _) => inflight.write(out),
            Message::AddMemReg(MemoryRegion { region, .. }) | Message::RemMemReg(region) => {
                out.extend([0; 8]);
                region.write(out);
            }
            Message::GetFeatures
            | Message::SetOwner
            | Message::ResetOwner
            | Message::SetLogFd(_)
            | Message::GetProtocolFeatures
            | Message::GetQueueNum
            | Message::SetBackendReqFd(_)
            | Message::ResetDevice
            | Message::GetMaxMemSlots
            | Message::GetStatus => {}
        }
    }

    /// The descriptors that go with the frame, in order.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Message::SetMemTable(regions) => regions.iter().map(|region| region.file.as_fd()).collect(),
            Message::SetLogBase(_, file)
            | Message::SetVringKick(_, file)
            | Message::SetVringCall(_, file)
            | Message::SetVringErr(_, file) => file.iter().map(AsFd::as_fd).collect(),
            Message::SetLogFd(file)
            | Message::SetBackendReqFd(file)
            | Message::SetInflightFd(_, file)
            | Message::AddMemReg(MemoryRegion { file, .. }) => vec![file.as_fd()],
            _ => Vec::new(),
        }
    }
}

pub(crate) fn write_config(out: &mut Vec<u8>, offset: u32, size: u32, flags: u32, bytes: &[u8]) {
    for number in [offset, size, flags] {
        out.extend(number.to_ne_bytes());
    }
    out.extend(bytes);
}

/// A body on its way to becoming a message.
struct Body<'a> {
    request: Request,
    bytes: &'a [u8],
    descriptors: Vec<OwnedFd>,
}

impl Body<'_> {
    fn size(&self, wanted: &'static str) -> Refusal {
        Refusal::Size { request: self.request, wanted, got: self.bytes.len() }
    }

    fn exactly<T>(
        &self,
        size: usize,
        wanted: &'static str,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<T, Refusal> {
        if self.bytes.len() != size {
            return Err(self.size(wanted));
        }
        read(self.bytes).ok_or_else(|| self.size(wanted))
    }

    fn number(&self) -> Result<u64, Refusal> {
        self.exactly(8, "8", |bytes| Reader(bytes).u64())
    }

    fn vring_state(&self) -> Result<VringState, Refusal> {
        self.exactly(VringState::SIZE, "8", VringState::read)
    }

    fn vring_enable(&self) -> Result<Message, Refusal> {
        let state = self.vring_state()?;
        match state.num {
            0 | 1 => Ok(Message::SetVringEnable(state.index, state.num == 1)),
            _ => Err(Refusal::Value {
                request: self.request,
                what: "a ring is enabled with 1, disabled with 0",
            }),
        }
    }

    /// Padding, then the region.
    fn region(&self) -> Result<Region, Refusal> {
        self.exactly(8 + Region::SIZE, "40", |bytes| Region::read(&bytes[8..]))
    }

    fn inflight(&self) -> Result<Inflight, Refusal> {
        match self.bytes.len() {
            Inflight::SIZE..=Inflight::PADDED => {
                Inflight::read(self.bytes).ok_or_else(|| self.size("20 to 24"))
            }
            _ => Err(self.size("20 to 24")),
        }
    }

    /// The first descriptor; the others are closed with the body.
    fn descriptor(&mut self) -> Result<OwnedFd, Refusal> {
        if self.descriptors.is_empty() {
            return Err(Refusal::Descriptors { request: self.request, wanted: 1, got: 0 });
        }
        Ok(self.descriptors.swap_remove(0))
    }

    fn vring_descriptor(&mut self, make: fn(u8, Option<OwnedFd>) -> Message) -> Result<Message, Refusal> {
        let number = self.number()?;
        if number & !(VRING_INDEX | NO_DESCRIPTOR) != 0 {
            return Err(Refusal::Value { request: self.request, what: "bits above 8 are set" });
        }
        let index = (number & VRING_INDEX) as u8;
        if number & NO_DESCRIPTOR != 0 {
            return Ok(make(index, None));
        }
        Ok(make(index, Some(self.descriptor()?)))
    }

    fn memory_table(&mut self) -> Result<Vec<MemoryRegion>, Refusal> {
        const WANTED: &str = "8 and 32 for each region";
        let count = Reader(self.bytes).u32().ok_or_else(|| self.size(WANTED))? as usize;
        if count > MAX_TABLE_REGIONS {
            return Err(Refusal::Value { request: self.request, what: "a table has at most 32 regions" });
        }
        if self.bytes.len() != 8 + count * Region::SIZE {
            return Err(self.size(WANTED));
        }
        if self.descriptors.len() < count {
            let got = self.descriptors.len();
            return Err(Refusal::Descriptors { request: self.request, wanted: count, got });
        }
        let regions = self.bytes[8..].chunks_exact(Region::SIZE).filter_map(Region::read);
        let files = std::mem::take(&mut self.descriptors);
        Ok(regions.zip(files).map(|(region, file)| MemoryRegion { region, file }).collect())
    }

    /// Without LOG_SHMFD the body is one number, an address that means nothing in another process.
    fn log_base(&mut self) -> Result<Message, Refusal> {
        match self.bytes.len() {
            8 => Ok(Message::SetLogBase(LogArea { size: 0, offset: 0 }, None)),
            LogArea::SIZE => {
                let area = LogArea::read(self.bytes).ok_or_else(|| self.size("8 or 16"))?;
                Ok(Message::SetLogBase(area, Some(self.descriptor()?)))
            }
            _ => Err(self.size("8 or 16")),
        }
    }

    fn config_head(&self) -> Result<(u32, u32, u32, &[u8]), Refusal> {
        const WANTED: &str = "12 to 268";
        let mut reader = Reader(self.bytes);
        let mut word = || reader.u32().ok_or_else(|| self.size(WANTED));
        let (offset, size, flags) = (word()?, word()?, word()?);
        if reader.0.len() > MAX_CONFIG {
            return Err(self.size(WANTED));
        }
        Ok((offset, size, flags, reader.0))
    }

    /// Some front ends send as many bytes as they ask for, some the head alone.
    fn get_config(&self) -> Result<Message, Refusal> {
        let (offset, size, flags, _) = self.config_head()?;
        if size as usize > MAX_CONFIG {
            return Err(Refusal::Value { request: self.request, what: "more than 256 bytes are asked for" });
        }
        Ok(Message::GetConfig { offset, size, flags })
    }

    fn set_config(&self) -> Result<Message, Refusal> {
        let (offset, size, flags, bytes) = self.config_head()?;
        if size as usize != bytes.len() {
            return Err(self.size("12 and as many as its size says"));
        }
        Ok(Message::SetConfig { offset, flags, bytes: bytes.to_vec() })
    }
}
