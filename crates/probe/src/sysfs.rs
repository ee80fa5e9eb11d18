//! Reading sysfs and procfs under a root, which is `/` in life and a temporary tree in tests.

use std::fs;
use std::path::{Path, PathBuf};

#[derive(Clone)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub fn system() -> Self {
        Self::new("/")
    }

    /// Where `path` (given without a leading slash) is.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// An attribute's text without its padding; `None` when it is absent, unreadable or empty. A driver may refuse
    /// an attribute with almost any errno (EINVAL, EIO, ENODATA …), and all of them mean "not known".
    pub fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let bytes = fs::read(self.path(path)).ok()?;
        let text = String::from_utf8_lossy(&bytes).trim_matches(['\0', '\n', ' ', '\t']).to_owned();
        (!text.is_empty()).then_some(text)
    }

    /// A decimal attribute, or a hexadecimal one with 0x.
    pub fn number(&self, path: impl AsRef<Path>) -> Option<u64> {
        let text = self.text(path)?;
        match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        }
    }

    pub fn flag(&self, path: impl AsRef<Path>) -> bool {
        self.number(path) == Some(1)
    }

    pub fn bytes(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        fs::read(self.path(path)).ok()
    }

    /// The names in a directory, sorted; none when there is no such directory.
    pub fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(path)) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_by_key(|name| natural(name));
        names
    }

    /// The last part of what a link points at: a driver's or a parent's name.
    pub fn link_name(&self, path: impl AsRef<Path>) -> Option<String> {
        Some(fs::read_link(self.path(path)).ok()?.file_name()?.to_str()?.to_owned())
    }

    /// The true path of a device, all links followed.
    pub fn real(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        self.path(path).canonicalize().ok()
    }

    /// The address of the nearest PCI function at or above a device.
    pub fn pci_above(&self, path: impl AsRef<Path>) -> Option<String> {
        let real = self.real(path)?;
        real.ancestors()
            .filter_map(|part| part.file_name()?.to_str())
            .find(|name| is_pci_address(name))
            .map(str::to_owned)
    }
}

/// Whether this is a PCI address written in full: `0000:00:1f.2`.
pub fn is_pci_address(name: &str) -> bool {
    let Some((domain, rest)) = name.split_once(':') else { return false };
    let Some((bus, rest)) = rest.split_once(':') else { return false };
    let Some((slot, function)) = rest.split_once('.') else { return false };
    let hex =
        |text: &str, digits: usize| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    domain.len() >= 4 && hex(domain, domain.len()) && hex(bus, 2) && hex(slot, 2) && hex(function, 1)
}

/// A key that sorts nvme2 before nvme10.
fn natural(name: &str) -> (String, u64, String) {
    let digits = name.find(|c: char| c.is_ascii_digit()).unwrap_or(name.len());
    let (head, tail) = name.split_at(digits);
    let end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
    (head.to_owned(), tail[..end].parse().unwrap_or(0), tail[end..].to_owned())
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A tree of files that is gone with the value.
    pub struct Fake {
        root: PathBuf,
    }

    impl Fake {
        pub fn new() -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let name =
                format!("nvlane-probe-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let root = std::env::temp_dir().join(name);
            fs::create_dir(&root).expect("a fresh directory");
            Self { root }
        }

        pub fn tree(&self) -> Tree {
            Tree::new(&self.root)
        }

        pub fn path(&self, path: &str) -> PathBuf {
            self.root.join(path)
        }

        pub fn file(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
            let path = self.root.join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
            fs::write(path, content).expect("a file");
            self
        }

        pub fn files(&self, directory: &str, content: &[(&str, &str)]) -> &Self {
            for (name, text) in content {
                self.file(&format!("{directory}/{name}"), format!("{text}\n"));
            }
            self
        }

        /// A link to a place given from the root, written relative, as sysfs does.
        pub fn link(&self, path: &str, to: &str) -> &Self {
            let up = "../".repeat(path.matches('/').count());
            let link = self.root.join(path);
            fs::create_dir_all(link.parent().expect("a parent")).expect("directories");
            fs::create_dir_all(self.root.join(to)).expect("directories");
            symlink(format!("{up}{to}"), link).expect("a link");
            self
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.root).expect("to remove what the test made");
        }
    }

    #[test]
    fn attributes_lose_their_padding() {
        let fake = Fake::new();
        fake.file("sys/a", "LABDRIVE1           \n").file("sys/n", "0x1b36\n").file("sys/e", "\n");
        let tree = fake.tree();
        assert_eq!(tree.text("sys/a").as_deref(), Some("LABDRIVE1"));
        assert_eq!(tree.number("sys/n"), Some(0x1b36));
        assert_eq!(tree.text("sys/e"), None);
        assert_eq!(tree.text("sys/none"), None);
    }

    #[test]
    fn names_sort_by_their_numbers() {
        let fake = Fake::new();
        for name in ["nvme10", "nvme2", "nvme0"] {
            fake.file(&format!("d/{name}"), "");
        }
        assert_eq!(fake.tree().names("d"), ["nvme0", "nvme2", "nvme10"]);
    }

    #[test]
    fn the_nearest_pci_function_is_found() {
        let fake = Fake::new();
        fake.link("sys/block/vda", "sys/devices/pci0000:00/0000:00:02.0/0000:01:00.0/virtio1/block/vda");
        assert_eq!(fake.tree().pci_above("sys/block/vda").as_deref(), Some("0000:01:00.0"));
        assert!(is_pci_address("10000:00:1f.7"));
        assert!(!is_pci_address("0:0:0:1") && !is_pci_address("pci0000:00"));
    }
}
