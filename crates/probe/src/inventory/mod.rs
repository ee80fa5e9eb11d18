//! What this guest sees, read from sysfs and procfs: no tool is run and nothing is changed.
//!
//! A `null` means that the kernel does not say.

mod block;
mod nvdimm;
mod nvme;
mod pci;

use serde::Serialize;

use crate::exec;
use crate::pmem;
use crate::sysfs::Tree;

pub use block::BlockDevice;
pub use nvme::{Controller, Namespace};

#[derive(Debug, Serialize)]
pub struct Inventory {
    pub nvme: Nvme,
    pub block: Vec<BlockDevice>,
    pub nvdimm: nvdimm::Nvdimm,
    pub pci: Vec<pci::Function>,
    pub memory: Memory,
    pub cpus: u64,
    pub tools: Tools,
}

#[derive(Debug, Serialize)]
pub struct Nvme {
    pub controllers: Vec<Controller>,
    pub namespaces: Vec<Namespace>,
}

#[derive(Debug, Serialize)]
pub struct Memory {
    pub total_bytes: Option<u64>,
}

/// The programs that some requests need, by whether they are here.
#[derive(Debug, Serialize)]
pub struct Tools {
    pub ndctl: bool,
    pub daxctl: bool,
    #[serde(rename = "mkfs.ext4")]
    pub mkfs_ext4: bool,
    #[serde(rename = "mkfs.xfs")]
    pub mkfs_xfs: bool,
    pub libpmem: bool,
}

pub fn read(tree: &Tree) -> Inventory {
    let controllers = nvme::controllers(tree);
    Inventory {
        block: block::devices(tree, &controllers),
        nvme: Nvme { namespaces: nvme::namespaces(tree), controllers },
        nvdimm: nvdimm::read(tree),
        pci: pci::functions(tree),
        memory: Memory { total_bytes: memory_bytes(tree) },
        cpus: cpus(tree),
        tools: Tools {
            ndctl: has_tool("ndctl"),
            daxctl: has_tool("daxctl"),
            mkfs_ext4: has_tool("mkfs.ext4"),
            mkfs_xfs: has_tool("mkfs.xfs"),
            libpmem: pmem::is_here(),
        },
    }
}

/// Whether a program is on the search path.
pub fn has_tool(name: &str) -> bool {
    std::env::split_paths(&exec::search_path()).any(|directory| directory.join(name).is_file())
}

fn memory_bytes(tree: &Tree) -> Option<u64> {
    let text = tree.text("proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

fn cpus(tree: &Tree) -> u64 {
    let is_cpu = |name: &String| name.strip_prefix("cpu").is_some_and(|rest| rest.parse::<u32>().is_ok());
    tree.names("sys/devices/system/cpu").iter().filter(|name| is_cpu(name)).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sysfs::tests::Fake;

    #[test]
    fn an_empty_guest_has_an_empty_inventory() {
        let fake = Fake::new();
        let inventory = read(&fake.tree());
        assert!(
            inventory.block.is_empty() && inventory.pci.is_empty() && inventory.nvme.controllers.is_empty()
        );
        assert_eq!(inventory.memory.total_bytes, None);
    }

    #[test]
    fn memory_and_cpus_are_counted() {
        let fake = Fake::new();
        fake.file("proc/meminfo", "MemTotal:        2014924 kB\nMemFree: 1 kB\n");
        for name in ["cpu0/online", "cpu1/online", "cpufreq/x", "cpuidle/x"] {
            fake.file(&format!("sys/devices/system/cpu/{name}"), "1");
        }
        let inventory = read(&fake.tree());
        assert_eq!(inventory.memory.total_bytes, Some(2014924 * 1024));
        assert_eq!(inventory.cpus, 2);
    }
}
