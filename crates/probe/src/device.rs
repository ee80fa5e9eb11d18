//! Reading and writing devices past the page cache: what is proven is what the device has.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use rustix::fs::OFlags;
use rustix::io::Errno;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::pattern;
use crate::protocol::{Answer, Code, Fault, params};
use crate::sys;

/// O_DIRECT wants memory, offset and length aligned to the logical block, which is at most this everywhere.
const ALIGN: u64 = 64 << 10;
const CHUNK: u64 = 1 << 20;

/// Memory that starts at a multiple of ALIGN.
struct Aligned {
    memory: Vec<u8>,
    start: usize,
}

impl Aligned {
    fn new() -> Self {
        let memory = vec![0; (CHUNK + ALIGN) as usize];
        let start = memory.as_ptr().align_offset(ALIGN as usize);
        Self { memory, start }
    }

    fn part(&mut self, length: u64) -> &mut [u8] {
        &mut self.memory[self.start..self.start + length as usize]
    }
}

struct Device {
    file: File,
    name: String,
    size: u64,
    direct: bool,
}

impl Device {
    fn open(name: &str, options: &OpenOptions, flags: OFlags) -> Result<Self, Fault> {
        let open = |flags: OFlags| options.clone().custom_flags(flags.bits() as i32).open(name);
        let (opened, direct) = match open(flags | OFlags::DIRECT) {
            // A file system without direct I/O (tmpfs of old kernels) says EINVAL.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => (open(flags), false),
            other => (other, true),
        };
        let failed = |error| Fault::io(format!("open {name}"), error);
        let mut file = opened.map_err(failed)?;
        let size = file.seek(SeekFrom::End(0)).map_err(failed)?;
        if !direct {
            match sys::drop_block_cache(&file) {
                Err(error) if Errno::from_io_error(&error) != Some(Errno::NOTTY) => {
                    return Err(failed(error));
                }
                _ => {}
            }
        }
        Ok(Self { file, name: name.to_owned(), size, direct })
    }

    /// Hash a range. Reads are widened to ALIGN at both ends, and never go past the device's end, which is aligned.
    fn hash(&self, offset: u64, length: u64, hasher: &mut Sha256) -> Result<(), Fault> {
        let end = offset.checked_add(length).filter(|end| *end <= self.size).ok_or_else(|| {
            let message =
                format!("{}: {length} bytes at {offset} are past its end at {}", self.name, self.size);
            Fault::new(Code::BadRequest, message)
        })?;
        let mut buffer = Aligned::new();
        let mut at = offset;
        while at < end {
            let start = at / ALIGN * ALIGN;
            let stop = (start + CHUNK).min(end.next_multiple_of(ALIGN)).min(self.size);
            let bytes = buffer.part(stop - start);
            self.read(bytes, start)
                .map_err(|error| Fault::io(format!("read {} at {start}", self.name), error))?;
            let last = end.min(stop);
            hasher.update(&bytes[(at - start) as usize..(last - start) as usize]);
            at = last;
        }
        Ok(())
    }

    fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }
}

fn hex(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DigestOf {
    device: String,
    ranges: Vec<(u64, u64)>,
}

/// `digest {device, ranges: [[offset, length], …]}`: SHA-256 of the ranges one after the other. Read only.
pub fn digest(given: Map<String, Value>) -> Answer {
    let wanted: DigestOf = params(given)?;
    let device = Device::open(&wanted.device, OpenOptions::new().read(true), OFlags::empty())?;
    let mut hasher = Sha256::new();
    for (offset, length) in &wanted.ranges {
        device.hash(*offset, *length, &mut hasher)?;
    }
    let bytes: u64 = wanted.ranges.iter().map(|(_, length)| length).sum();
    Ok(json!({"sha256": hex(hasher), "bytes": bytes, "size_bytes": device.size, "direct": device.direct}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WritePattern {
    device: String,
    offset: u64,
    length: u64,
    seed: u64,
}

/// `write_pattern {device, offset, length, seed}`: write, flush, read back, compare. O_EXCL: a device in use is refused
/// by the kernel with EBUSY. Offset and length are multiples of the device's block.
pub fn write_pattern(given: Map<String, Value>) -> Answer {
    let wanted: WritePattern = params(given)?;
    let options = OpenOptions::new().read(true).write(true).clone();
    let device = Device::open(&wanted.device, &options, OFlags::EXCL | OFlags::SYNC)?;
    let end = wanted.offset.checked_add(wanted.length).filter(|end| *end <= device.size);
    if end.is_none() || wanted.length == 0 || wanted.offset % 512 != 0 || wanted.length % 512 != 0 {
        let message =
            format!("{}: offset and length are whole blocks inside its {} bytes", device.name, device.size);
        return Err(Fault::new(Code::BadRequest, message));
    }
    let (mut buffer, mut hasher, mut done) = (Aligned::new(), Sha256::new(), 0);
    while done < wanted.length {
        let bytes = buffer.part(CHUNK.min(wanted.length - done));
        pattern::fill(wanted.seed, done, bytes);
        hasher.update(&*bytes);
        let at = wanted.offset + done;
        let written = device.file.write_all_at(bytes, at);
        written.map_err(|error| Fault::io(format!("write {} at {at}", device.name), error))?;
        done += bytes.len() as u64;
    }
    device.file.sync_all().map_err(|error| Fault::io(format!("flush {}", device.name), error))?;
    let direct = device.direct;
    drop(device);
    let again = Device::open(&wanted.device, OpenOptions::new().read(true), OFlags::empty())?;
    let mut found = Sha256::new();
    again.hash(wanted.offset, wanted.length, &mut found)?;
    let (sha256, read_back) = (hex(hasher), hex(found));
    Ok(json!({"matches": sha256 == read_back, "sha256": sha256, "read_back": read_back, "direct": direct}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ZoneReport {
    device: String,
    #[serde(default)]
    sector: u64,
}

/// `zone_report {device, sector}`: the zones from a sector on, at most 256. Positions are in bytes.
pub fn zone_report(given: Map<String, Value>) -> Answer {
    let wanted: ZoneReport = params(given)?;
    let file =
        File::open(&wanted.device).map_err(|error| Fault::io(format!("open {}", wanted.device), error))?;
    let zones = sys::report_zones(&file, wanted.sector)
        .map_err(|error| Fault::io(format!("report the zones of {}", wanted.device), error))?;
    let zones: Vec<Value> = zones
        .iter()
        .map(|zone| {
            json!({
                "start": zone.start * 512, "length": zone.length * 512, "capacity": zone.capacity * 512,
                "write_pointer": zone.write_pointer * 512, "type": zone_type(zone.kind), "condition": zone_condition(zone.condition),
            })
        })
        .collect();
    Ok(json!({"zones": zones}))
}

/// enum blk_zone_type.
fn zone_type(kind: u8) -> &'static str {
    match kind {
        1 => "conventional",
        2 => "sequential-required",
        3 => "sequential-preferred",
        _ => "unknown",
    }
}

/// enum blk_zone_cond.
fn zone_condition(condition: u8) -> &'static str {
    match condition {
        0 => "not-write-pointer",
        1 => "empty",
        2 => "implicitly-open",
        3 => "explicitly-open",
        4 => "closed",
        0xd => "read-only",
        0xe => "full",
        0xf => "offline",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(std::path::PathBuf);

    impl Scratch {
        /// Not in a tmpfs if that can be helped: O_DIRECT is to be tried.
        fn new(name: &str, bytes: &[u8]) -> Self {
            let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
            let directory = if directory.is_dir() { directory } else { std::env::temp_dir() };
            let path = directory.join(format!("probe-test-{}-{name}", std::process::id()));
            std::fs::write(&path, bytes).expect("a scratch file");
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            std::fs::remove_file(&self.0).expect("to remove the scratch file");
        }
    }

    fn ask(method: fn(Map<String, Value>) -> Answer, given: Value) -> Answer {
        method(given.as_object().expect("an object").clone())
    }

    fn sha(bytes: &[u8]) -> String {
        hex(Sha256::new_with_prefix(bytes))
    }

    #[test]
    fn ranges_are_hashed_one_after_the_other_whatever_their_alignment() {
        let content: Vec<u8> = (0..3_000_000_u32).map(|k| (k * 7 % 251) as u8).collect();
        let content = &content[..3_000_000 / 512 * 512];
        let scratch = Scratch::new("digest", content);
        let ranges = [(0, 10), (65_535, 2), (1_000_001, 1_500_000), (content.len() - 1, 1), (5, 0)];
        let expected: Vec<u8> =
            ranges.iter().flat_map(|(at, length)| content[*at..at + length].to_vec()).collect();
        let answer = ask(digest, json!({"device": scratch.0, "ranges": ranges})).expect("a digest");
        assert_eq!(answer["sha256"], sha(&expected));
        assert_eq!(answer["bytes"], expected.len());
    }

    #[test]
    fn a_range_past_the_end_is_refused() {
        let scratch = Scratch::new("end", &[0; 4096]);
        let fault =
            ask(digest, json!({"device": scratch.0, "ranges": [[4000, 97]]})).expect_err("past the end");
        assert_eq!(fault.code, Code::BadRequest);
        ask(digest, json!({"device": scratch.0, "ranges": [[u64::MAX, 2]]})).expect_err("an overflow");
    }

    #[test]
    fn a_pattern_is_written_where_it_belongs_and_nowhere_else() {
        let scratch = Scratch::new("pattern", &vec![0xEE; 3 << 20]);
        let request = json!({"device": scratch.0, "offset": 8192, "length": (1 << 20) + 4096, "seed": 77});
        let answer = ask(write_pattern, request).expect("written");
        assert_eq!(answer["matches"], true);
        let mut expected = vec![0; (1 << 20) + 4096];
        pattern::fill(77, 0, &mut expected);
        let found = std::fs::read(&scratch.0).expect("the file");
        assert_eq!(answer["sha256"], sha(&expected));
        assert!(found[8192..8192 + expected.len()] == expected);
        assert!(found[..8192].iter().chain(&found[8192 + expected.len()..]).all(|byte| *byte == 0xEE));
    }

    #[test]
    fn a_file_has_no_zones() {
        let scratch = Scratch::new("zones", &[0; 512]);
        assert_eq!(ask(zone_report, json!({"device": scratch.0})).expect_err("no zones").errno, Some(25));
    }
}
