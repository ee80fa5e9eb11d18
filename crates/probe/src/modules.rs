//! Kernel modules of the probe guest: by name, by alias, and for the devices that are here.
//!
//! The tables are kmod's own text files (modules.dep, modules.alias, modules.softdep of `/lib/modules/RELEASE`), which
//! nvlane's builder has cut down to what the image holds; the modules themselves it has decompressed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;

use rustix::io::Errno;
use rustix::system::{finit_module, uname};

use crate::protocol::{Code, Fault};
use crate::sysfs::Tree;

/// What an image's tables say.
#[derive(Debug, Default)]
pub struct Modules {
    directory: PathBuf,
    /// A module's file and those it needs, nearest first, as modules.dep has them.
    files: BTreeMap<String, Vec<String>>,
    /// Pattern and module.
    aliases: Vec<(String, String)>,
    /// What a module should find loaded before it.
    before: BTreeMap<String, Vec<String>>,
    /// Aliases that were already looked up: devices share them.
    seen: Mutex<BTreeSet<String>>,
}

impl Modules {
    /// The tables of the running kernel; empty ones when this guest has none.
    pub fn of_this_kernel() -> Self {
        let release = uname().release().to_string_lossy().into_owned();
        let directory = PathBuf::from("/lib/modules").join(release);
        let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_default();
        let (dep, alias, soft) = (read("modules.dep"), read("modules.alias"), read("modules.softdep"));
        Self { directory, ..Self::parse(&dep, &alias, &soft) }
    }

    fn parse(dep: &str, alias: &str, soft: &str) -> Self {
        let mut modules = Self::default();
        for line in dep.lines() {
            let Some((file, needs)) = line.split_once(':') else { continue };
            let files = std::iter::once(file).chain(needs.split_whitespace()).map(str::to_owned).collect();
            modules.files.insert(name_of(file), files);
        }
        for line in alias.lines() {
            if let ["alias", pattern, module] = line.split_whitespace().collect::<Vec<_>>()[..] {
                modules.aliases.push((normal(pattern), normal(module)));
            }
        }
        for line in soft.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let ["softdep", module, rest @ ..] = words.as_slice() else { continue };
            let pre = rest
                .iter()
                .skip_while(|word| **word != "pre:")
                .skip(1)
                .take_while(|word| !word.ends_with(':'));
            modules.before.insert(normal(module), pre.map(|word| normal(word)).collect());
        }
        modules
    }

    /// Load a module and what it needs. `false`: the image has no such module (it may be built into the kernel).
    pub fn load(&self, name: &str) -> Result<bool, Fault> {
        let name = normal(name);
        let Some(files) = self.files.get(&name) else { return Ok(false) };
        for earlier in self.before.get(&name).into_iter().flatten().filter(|earlier| **earlier != name) {
            self.load(earlier)?;
        }
        for file in files.iter().rev() {
            self.insert(file)?;
        }
        Ok(true)
    }

    fn insert(&self, file: &str) -> Result<(), Fault> {
        let path = self.directory.join(file);
        let module =
            File::open(&path).map_err(|error| Fault::io(format!("open {}", path.display()), error))?;
        match finit_module(&module, c"", 0) {
            // EEXIST: it is loaded. ENODEV: it looked for its hardware or for a CPU feature and found none.
            Ok(()) | Err(Errno::EXIST | Errno::NODEV) => Ok(()),
            Err(error) => Err(Fault::io(format!("load the module {}", path.display()), error)),
        }
    }

    /// Load every module that claims `alias`; gives the names, once per alias.
    pub fn load_for(&self, alias: &str) -> Vec<Result<String, Fault>> {
        let alias = normal(alias);
        let fresh = self.seen.lock().is_ok_and(|mut seen| seen.insert(alias.clone()));
        if !fresh {
            return Vec::new();
        }
        let claimed: BTreeSet<&String> = self
            .aliases
            .iter()
            .filter(|(pattern, _)| matches(pattern, &alias))
            .map(|(_, module)| module)
            .collect();
        claimed.into_iter().map(|module| self.load(module).map(|_| module.clone())).collect()
    }

    /// Load what the devices that are here ask for, until nothing new turns up.
    pub fn load_for_devices(&self, tree: &Tree) -> Vec<Result<String, Fault>> {
        let mut all = Vec::new();
        loop {
            let before = all.len();
            for bus in tree.names("sys/bus") {
                for device in tree.names(format!("sys/bus/{bus}/devices")) {
                    if let Some(alias) = tree.text(format!("sys/bus/{bus}/devices/{device}/modalias")) {
                        all.extend(self.load_for(&alias));
                    }
                }
            }
            if all.len() == before {
                return all;
            }
        }
    }
}

/// `/sbin/modprobe -q -- ALIAS`, as the kernel calls it (kernel/module/kmod.c) for a file system or a cipher.
pub fn modprobe(words: &[&str]) -> ExitCode {
    let modules = Modules::of_this_kernel();
    let mut status = ExitCode::SUCCESS;
    for alias in words.iter().filter(|word| !word.starts_with('-')) {
        let loaded = match modules.load(alias) {
            Ok(false) => modules.load_for(alias),
            other => vec![other.map(|_| (*alias).to_owned())],
        };
        if loaded.is_empty() || loaded.iter().any(Result::is_err) {
            status = ExitCode::FAILURE;
        }
    }
    status
}

/// Load a module that a request needs, in a guest that has nvlane's tables; elsewhere the kernel's own modprobe does it.
pub fn need(name: &str) -> Result<(), Fault> {
    if std::process::id() != 1 {
        return Ok(());
    }
    Modules::of_this_kernel().load(name).map(|_| ()).map_err(|fault| Fault { code: Code::Failed, ..fault })
}

/// kmod holds `-` and `_` for the same.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// `kernel/drivers/nvme/host/nvme-core.ko` is nvme_core.
fn name_of(file: &str) -> String {
    let base = file.rsplit('/').next().unwrap_or(file);
    normal(base.split(".ko").next().unwrap_or(base))
}

/// fnmatch(3) with `*`, `?` and `[…]`, which is all that module aliases use.
fn matches(pattern: &str, text: &str) -> bool {
    fn step(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => (0..=text.len()).any(|skip| step(rest, &text[skip..])),
            ([b'?', rest @ ..], [_, text @ ..]) => step(rest, text),
            ([b'[', rest @ ..], [byte, text @ ..]) => {
                let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
                in_class(&rest[..end], *byte) && step(&rest[end + 1..], text)
            }
            ([one, rest @ ..], [other, text @ ..]) => one == other && step(rest, text),
            _ => false,
        }
    }
    fn in_class(class: &[u8], byte: u8) -> bool {
        match class {
            // `normal` turned the range's dash into an underscore: `[0_9]`.
            [low, b'_', high, rest @ ..] => (*low..=*high).contains(&byte) || in_class(rest, byte),
            [one, rest @ ..] => *one == byte || in_class(rest, byte),
            [] => false,
        }
    }
    step(pattern.as_bytes(), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str =
        "nd_pmem.ko: nd_btt.ko libnvdimm.ko\nnd_btt.ko: libnvdimm.ko\nlibnvdimm.ko:\nusb-storage.ko: x.ko\n";
    const ALIAS: &str =
        "# made by hand\nalias nd:t4* nd_pmem\nalias pci:v*d*sv*sd*bc01sc08i02* nvme\nalias fs-xfs xfs\n";

    #[test]
    fn tables_are_read() {
        let modules = Modules::parse(DEP, ALIAS, "softdep xfs pre: crc32c post: y\n");
        assert_eq!(modules.files["nd_pmem"], ["nd_pmem.ko", "nd_btt.ko", "libnvdimm.ko"]);
        assert!(modules.files.contains_key("usb_storage"));
        assert_eq!(modules.before["xfs"], ["crc32c"]);
        assert_eq!(modules.aliases.len(), 3);
    }

    #[test]
    fn aliases_match_as_fnmatch_does() {
        assert!(matches(
            "pci:v*d*sv*sd*bc01sc08i02*",
            "pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02"
        ));
        assert!(!matches(
            "pci:v*d*sv*sd*bc01sc08i02*",
            "pci:v00008086d00002918sv00001AF4sd00001100bc06sc01i00"
        ));
        assert!(matches("virtio:d00000002v*", "virtio:d00000002v00001AF4"));
        assert!(matches("usb:v*p*d[0_9]*ic08", "usb:v1p2d4xic08"));
        assert!(!matches("usb:v*p*d[0_9]*ic08", "usb:v1p2dXic08"));
        assert!(!matches("acpi*:ACPI0012:*", "acpi:PNP0A08:"));
    }

    #[test]
    fn no_table_and_no_pattern_is_fatal() {
        for text in crate::pattern::rubbish(b"*?[]-_09az:. \nalias softdep pre:.ko") {
            let text = String::from_utf8(text).expect("ASCII");
            let modules = Modules::parse(&text, &text, &text);
            assert!(modules.files.values().all(|files| !files.is_empty()));
            matches(&text, "pci:v00001B36d00000010");
            assert!(text.contains(['*', '?', '[']) || matches(&text, &text));
        }
    }

    #[test]
    fn an_alias_is_looked_up_once_and_an_absent_module_is_no_error() {
        let modules = Modules::parse("", ALIAS, "");
        assert_eq!(modules.load_for("fs-xfs").len(), 1, "a name, though the image has no file");
        assert!(modules.load_for("fs-xfs").is_empty());
        assert!(!modules.load("nvme").expect("no error"));
    }
}
