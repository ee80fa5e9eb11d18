//! File systems with DAX: making, mounting and judging them.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Read;
use std::num::NonZeroUsize;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::exec;
use crate::modules;
use crate::protocol::{Answer, Code, Fault, params};
use crate::sys;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DaxMount {
    device: String,
    fstype: FileSystem,
    mountpoint: String,
    /// Make a new file system whatever is there. Without it, one is made only where the device begins with zeros.
    #[serde(default)]
    format: bool,
    /// `false` mounts a disk without DAX, through the page cache.
    #[serde(default = "yes")]
    dax: bool,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    /// DAX wants blocks of a page. Kernels before 6.0 refuse DAX on an xfs with reflink, so it is left out.
    fn make(self, device: &str) -> Result<String, Fault> {
        match self {
            Self::Ext4 => exec::tool(&["mkfs.ext4", "-q", "-F", "-b", "4096", device]),
            Self::Xfs => exec::tool(&["mkfs.xfs", "-q", "-f", "-m", "reflink=0", device]),
        }
    }
}

/// `dax_mount {device, fstype, mountpoint, format, dax}`: mount, with `-o dax` unless `dax` is false. A device that begins
/// with zeros gets its file system first; one with anything in it only with `format`, which destroys that.
pub fn dax_mount(given: Map<String, Value>) -> Answer {
    let wanted: DaxMount = params(given)?;
    let kind = wanted.fstype.name();
    modules::need(kind)?;
    let make = wanted.format || begins_with_zeros(&wanted.device)?;
    if make {
        wanted.fstype.make(&wanted.device)?;
    }
    let place = Path::new(&wanted.mountpoint);
    fs::create_dir_all(place).map_err(|error| Fault::io(format!("make {}", wanted.mountpoint), error))?;
    let options = MountFlags::NOSUID | MountFlags::NODEV;
    let data = if wanted.dax { c"dax" } else { c"" };
    mount(wanted.device.as_str(), place, kind, options, data).map_err(|error| {
        let with = if wanted.dax { "-o dax " } else { "" };
        let what = format!("mount -t {kind} {with}{} {}", wanted.device, wanted.mountpoint);
        Fault::io(format!("{what} (the kernel's log has the reason; format: true makes a new {kind})"), error)
    })?;
    let shown = mount_options(&wanted.mountpoint)?;
    Ok(json!({"options": shown, "dax": file_is_dax(place)?, "formatted": make}))
}

/// Whether a device's first MiB, where every file system, partition table and volume label starts, is empty.
fn begins_with_zeros(device: &str) -> Result<bool, Fault> {
    let failed = |error| Fault::io(format!("look at {device}"), error);
    let mut start = Vec::new();
    File::open(device).map_err(failed)?.take(1 << 20).read_to_end(&mut start).map_err(failed)?;
    Ok(!start.is_empty() && start.iter().all(|byte| *byte == 0))
}

/// The options by which something is mounted at a place: those of the mount, then those of the file system.
fn mount_options(place: &str) -> Result<Vec<String>, Fault> {
    let table =
        fs::read_to_string("/proc/self/mountinfo").map_err(|error| Fault::io("read mountinfo", error))?;
    options_in(&table, place).ok_or_else(|| {
        Fault::new(Code::NotFound, format!("nothing is mounted on {place}, says /proc/self/mountinfo"))
    })
}

/// The last line for that place: a later mount hides an earlier one (proc_pid_mountinfo(5)).
fn options_in(table: &str, place: &str) -> Option<Vec<String>> {
    let of = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let (found, own) = (left.get(4)?, left.get(5)?);
        let of_file_system = right.split(' ').nth(2)?;
        (*found == place)
            .then(|| own.split(',').chain(of_file_system.split(',')).map(str::to_owned).collect())
    };
    table.lines().rev().find_map(of)
}

/// Whether a file made there gets the DAX attribute: the one sign that reads and writes bypass the page cache.
fn file_is_dax(place: &Path) -> Result<bool, Fault> {
    let path = place.join(".nvlane-dax");
    let failed = |error: std::io::Error| Fault::io(format!("try DAX with {}", path.display()), error);
    let file = File::create(&path).map_err(failed)?;
    file.set_len(4096).map_err(failed)?;
    let found = statx(CWD, &path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS);
    fs::remove_file(&path).map_err(failed)?;
    let found = found.map_err(|error| failed(error.into()))?;
    Ok(found.stx_attributes_mask.contains(StatxAttributes::DAX)
        && found.stx_attributes.contains(StatxAttributes::DAX))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Umount {
    mountpoint: String,
}

/// `umount {mountpoint}`.
pub fn umount(given: Map<String, Value>) -> Answer {
    let wanted: Umount = params(given)?;
    let place = CString::new(wanted.mountpoint.as_str())
        .map_err(|error| Fault::new(Code::BadRequest, error.to_string()))?;
    unmount(place.as_c_str(), UnmountFlags::NOFOLLOW)
        .map_err(|error| Fault::io(format!("umount {}", wanted.mountpoint), error))?;
    Ok(json!({}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MapSync {
    path: String,
    #[serde(default)]
    length: usize,
}

/// `map_sync {path, length}`: whether MAP_SYNC works on a file. A file that is not there is made, and removed again.
pub fn map_sync(given: Map<String, Value>) -> Answer {
    let wanted: MapSync = params(given)?;
    let path = Path::new(&wanted.path);
    let failed = |error: std::io::Error| Fault::io(format!("open {}", wanted.path), error);
    let length = NonZeroUsize::new(wanted.length).unwrap_or(NonZeroUsize::MIN.saturating_add(4095));
    let is_new = !path.exists();
    let file =
        File::options().read(true).write(true).create(is_new).truncate(false).open(path).map_err(failed)?;
    if is_new {
        file.set_len(length.get() as u64).map_err(failed)?;
    }
    let outcome = sys::maps_with_sync(&file, length);
    if is_new {
        fs::remove_file(path).map_err(failed)?;
    }
    Ok(json!({"works": outcome.is_ok(), "errno": outcome.err().map(rustix::io::Errno::raw_os_error)}))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "21 1 0:19 / /proc rw,nosuid - proc proc rw\n\
        30 1 259:0 / /mnt/p rw,nosuid,nodev - ext4 /dev/pmem0 rw,seclabel,dax=always\n";

    #[test]
    fn options_of_the_mount_and_of_the_file_system_are_joined() {
        let options = options_in(TABLE, "/mnt/p").expect("a mount");
        assert_eq!(options, ["rw", "nosuid", "nodev", "rw", "seclabel", "dax=always"]);
        assert_eq!(options_in(TABLE, "/mnt"), None);
        for table in crate::pattern::rubbish(b"/mntp -,rw\n") {
            options_in(&String::from_utf8(table).expect("ASCII"), "/mnt/p");
        }
    }

    #[test]
    fn only_zeros_are_blank() {
        let path = std::env::temp_dir().join(format!("nvlane-probe-blank-{}", std::process::id()));
        let name = path.to_str().expect("UTF-8");
        let mut content = vec![0; 70_000];
        fs::write(&path, &content).expect("a file");
        let blank = begins_with_zeros(name).expect("readable");
        content[65_600] = 1;
        fs::write(&path, &content).expect("a file");
        let full = begins_with_zeros(name).expect("readable");
        fs::remove_file(&path).expect("to remove it");
        assert!(blank && !full);
    }

    #[test]
    fn map_sync_cleans_up_after_itself() {
        let path = std::env::temp_dir().join(format!("nvlane-probe-sync-{}", std::process::id()));
        let answer =
            map_sync(json!({"path": path}).as_object().expect("an object").clone()).expect("an answer");
        assert_eq!(answer["works"], false);
        assert!(!path.exists());
    }

    #[test]
    fn an_ordinary_file_is_not_dax() {
        assert!(!file_is_dax(&std::env::temp_dir()).expect("a temporary directory"));
    }
}
