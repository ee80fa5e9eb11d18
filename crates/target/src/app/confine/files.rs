//! Landlock: the files and directories that may still be opened (landlock(7)).

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

/// What the rules speak of: version 5 came with Linux 6.10 and its ioctls on devices. An older kernel takes what it
/// knows of it.
const VERSION: ABI = ABI::V5;

/// Read, for what is looked up: sizes of hugepages, PCI functions, who uses a disk.
const READ: &[&str] = &["/proc/self", "/proc/swaps", "/proc/meminfo", "/proc/filesystems", "/sys"];
/// Whole devices: VFIO groups, containers and cdevs, the I/O memory management unit.
const DEVICES: &[&str] = &["/dev/vfio", "/dev/iommu"];

/// The paths that are allowed beyond the fixed ones.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    /// Disks: files and devices, or directories of such.
    pub disks: Vec<PathBuf>,
    /// Directories in which sockets come and go.
    pub sockets: Vec<PathBuf>,
    /// Directories in which a file of ours is replaced by a newer one.
    pub replaced: Vec<PathBuf>,
}

/// How far the kernel went along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforced {
    Fully,
    Partly,
    Not,
}

/// Binds this thread and all that it will start. Paths that are not there are passed over: there is nothing to open.
pub fn confine(paths: &Paths) -> Result<Enforced, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let disk = AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::IoctlDev;
    let socket = AccessFs::MakeSock | AccessFs::RemoveFile | AccessFs::ReadDir;
    let replaced = AccessFs::MakeReg | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::RemoveFile | read;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(VERSION))?
        .handle_access(AccessNet::from_all(VERSION))?
        .scope(Scope::Signal)?
        .create()?;
    let fixed = READ.iter().map(|path| (Path::new(path), read));
    let fixed = fixed.chain(DEVICES.iter().map(|path| (Path::new(path), disk)));
    let given = paths.disks.iter().map(|path| (path.as_path(), disk));
    let given = given.chain(paths.sockets.iter().map(|path| (path.as_path(), socket)));
    let given = given.chain(paths.replaced.iter().map(|path| (path.as_path(), replaced)));
    for (path, access) in fixed.chain(given) {
        if let Some(rule) = rule(path, access) {
            rules = rules.add_rule(rule)?;
        }
    }
    Ok(match rules.restrict_self()?.ruleset {
        RulesetStatus::FullyEnforced => Enforced::Fully,
        RulesetStatus::PartiallyEnforced => Enforced::Partly,
        RulesetStatus::NotEnforced => Enforced::Not,
    })
}

fn rule(path: &Path, access: BitFlags<AccessFs>) -> Option<PathBeneath<PathFd>> {
    // The kernel refuses rights of directories on a file.
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(VERSION) };
    match PathFd::new(path) {
        Ok(opened) => Some(PathBeneath::new(opened, access)),
        Err(error) => {
            log::debug!("no rule for {}: {error}", path.display());
            None
        }
    }
}

/// The directory that a path's file is in.
pub fn directory(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind::PermissionDenied;

    #[test]
    fn what_is_not_named_cannot_be_opened() {
        let directory = tempfile::tempdir().unwrap();
        let (mine, other) = (directory.path().join("mine"), directory.path().join("other"));
        std::fs::write(&mine, "a").unwrap();
        std::fs::write(&other, "b").unwrap();
        let sockets = directory.path().join("sockets");
        std::fs::create_dir(&sockets).unwrap();
        // A thread of its own: the rules hold as long as it lives, and for it alone.
        let outcome = std::thread::spawn(move || {
            let paths = Paths {
                disks: vec![mine.clone(), "/nowhere".into()],
                sockets: vec![sockets.clone()],
                replaced: vec![],
            };
            let enforced = confine(&paths).unwrap();
            if enforced == Enforced::Not {
                return None;
            }
            let socket = std::os::unix::net::UnixListener::bind(sockets.join("a.sock"));
            let opened = std::fs::OpenOptions::new().read(true).write(true).open(&mine);
            let refused =
                [std::fs::read(&other), std::fs::read("/etc/shadow"), std::fs::read("/etc/hostname")];
            let made = std::fs::write(sockets.join("file"), "x");
            let child = std::thread::spawn(move || std::fs::read(&other)).join().unwrap();
            Some((
                socket.is_ok(),
                opened.is_ok(),
                refused.map(|r| r.map_err(|e| e.kind())),
                made.map_err(|e| e.kind()),
                child.map_err(|e| e.kind()),
            ))
        });
        // A kernel without Landlock has nothing to test.
        let Some((socket, opened, refused, made, child)) = outcome.join().unwrap() else { return };
        assert!(socket && opened);
        assert!(refused.iter().all(|read| *read == Err(PermissionDenied)), "{refused:?}");
        assert_eq!(made, Err(PermissionDenied));
        assert_eq!(child, Err(PermissionDenied), "threads inherit the rules");
    }
}
