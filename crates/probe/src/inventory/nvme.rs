//! NVMe controllers and namespaces.
//!
//! With native multipath the kernel shows one head per namespace, `nvme0n1`, below the *subsystem*, and one hidden
//! path per controller, `nvme0c1n1`; without it the namespace stands below its controller
//! (drivers/nvme/host/multipath.c, nvme_set_disk_name). Only heads and plain namespaces are listed here.

use serde::Serialize;

use crate::sysfs::Tree;

#[derive(Debug, Serialize)]
pub struct Controller {
    pub name: String,
    /// The PCI address, or what a fabrics transport has in its place (`traddr=…`).
    pub address: Option<String>,
    pub serial: Option<String>,
    pub model: Option<String>,
    pub firmware: Option<String>,
    pub transport: Option<String>,
    pub state: Option<String>,
    pub vendor: Option<String>,
    pub device: Option<String>,
    pub subsystem_vendor: Option<String>,
    pub subsystem_device: Option<String>,
    pub class: Option<String>,
    pub driver: Option<String>,
    pub subsystem: Option<String>,
    pub subsysnqn: Option<String>,
    pub cntlid: Option<u64>,
    pub numa_node: Option<i64>,
    pub queue_count: Option<u64>,
}

#[derive(Debug, Serialize)]
pub struct Namespace {
    pub name: String,
    pub path: String,
    pub subsystem: Option<String>,
    /// The controllers by which this namespace is reached.
    pub controllers: Vec<String>,
    pub nsid: Option<u64>,
    pub size_bytes: u64,
    pub logical_block_size: Option<u64>,
    pub physical_block_size: Option<u64>,
    pub metadata_bytes: Option<u64>,
    /// The kernel's name of the protection information in use, `T10-DIF-TYPE1-CRC`, or null for none.
    pub pi: Option<String>,
    /// `none`, `host-managed` or `host-aware`.
    pub zoned: String,
    pub zone_bytes: Option<u64>,
    pub nr_zones: Option<u64>,
    pub max_open_zones: Option<u64>,
    pub max_active_zones: Option<u64>,
    pub uuid: Option<String>,
    pub nguid: Option<String>,
    pub eui: Option<String>,
    pub wwid: Option<String>,
}

pub fn controllers(tree: &Tree) -> Vec<Controller> {
    let subsystems = subsystems(tree);
    let read = |name: String| {
        let at = format!("sys/class/nvme/{name}");
        let text = |attribute: &str| tree.text(format!("{at}/{attribute}"));
        Controller {
            address: text("address"),
            serial: text("serial"),
            model: text("model"),
            firmware: text("firmware_rev"),
            transport: text("transport"),
            state: text("state"),
            vendor: text("device/vendor"),
            device: text("device/device"),
            subsystem_vendor: text("device/subsystem_vendor"),
            subsystem_device: text("device/subsystem_device"),
            class: text("device/class"),
            driver: tree.link_name(format!("{at}/device/driver")),
            subsystem: subsystems
                .iter()
                .find(|(_, members)| members.contains(&name))
                .map(|(name, _)| name.clone()),
            subsysnqn: text("subsysnqn"),
            cntlid: tree.number(format!("{at}/cntlid")),
            numa_node: text("numa_node").and_then(|node| node.parse().ok()),
            queue_count: tree.number(format!("{at}/queue_count")),
            name,
        }
    };
    tree.names("sys/class/nvme").into_iter().map(read).collect()
}

pub fn namespaces(tree: &Tree) -> Vec<Namespace> {
    let subsystems = subsystems(tree);
    let names = tree.names("sys/block").into_iter().filter(|name| is_namespace(name));
    names.map(|name| namespace(tree, name, &subsystems)).collect()
}

fn namespace(tree: &Tree, name: String, subsystems: &[(String, Vec<String>)]) -> Namespace {
    let at = format!("sys/block/{name}");
    let text = |attribute: &str| tree.text(format!("{at}/{attribute}"));
    let number = |attribute: &str| tree.number(format!("{at}/{attribute}"));
    let parent = tree.link_name(format!("{at}/device"));
    let (subsystem, controllers) = owners(subsystems, parent);
    let zoned = text("queue/zoned").unwrap_or_else(|| "none".into());
    let is_zoned = zoned != "none";
    let only_zoned = |number: Option<u64>| number.filter(|_| is_zoned);
    Namespace {
        path: format!("/dev/{name}"),
        subsystem,
        controllers,
        nsid: number("nsid"),
        size_bytes: number("size").unwrap_or(0) * 512,
        logical_block_size: number("queue/logical_block_size"),
        physical_block_size: number("queue/physical_block_size"),
        metadata_bytes: number("metadata_bytes"),
        pi: text("integrity/format").filter(|format| !matches!(format.as_str(), "none" | "nop" | "unknown")),
        zone_bytes: only_zoned(number("queue/chunk_sectors").map(|sectors| sectors * 512)),
        nr_zones: only_zoned(number("queue/nr_zones")),
        max_open_zones: only_zoned(number("queue/max_open_zones")),
        max_active_zones: only_zoned(number("queue/max_active_zones")),
        zoned,
        uuid: text("uuid"),
        nguid: text("nguid"),
        eui: text("eui"),
        wwid: text("wwid"),
        name,
    }
}

/// The subsystem and the controllers of a namespace whose parent device is `parent`.
fn owners(subsystems: &[(String, Vec<String>)], parent: Option<String>) -> (Option<String>, Vec<String>) {
    let Some(parent) = parent else { return (None, Vec::new()) };
    if let Some((name, members)) = subsystems.iter().find(|(name, _)| *name == parent) {
        return (Some(name.clone()), members.clone());
    }
    let subsystem = subsystems.iter().find(|(_, members)| members.contains(&parent));
    (subsystem.map(|(name, _)| name.clone()), vec![parent])
}

/// Every subsystem with its controllers.
fn subsystems(tree: &Tree) -> Vec<(String, Vec<String>)> {
    let members = |name: &String| {
        let inside = tree.names(format!("sys/class/nvme-subsystem/{name}"));
        inside.into_iter().filter(|entry| is_controller(entry)).collect()
    };
    let names = tree.names("sys/class/nvme-subsystem");
    names.into_iter().map(|name| (name.clone(), members(&name))).collect()
}

fn is_controller(name: &str) -> bool {
    name.strip_prefix("nvme").is_some_and(|rest| rest.parse::<u32>().is_ok())
}

/// `nvme0n1`, and neither `nvme0c0n1` nor `nvme0n1p1`.
fn is_namespace(name: &str) -> bool {
    let Some((one, two)) = name.strip_prefix("nvme").and_then(|rest| rest.split_once('n')) else {
        return false;
    };
    one.parse::<u32>().is_ok() && two.parse::<u32>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sysfs::tests::Fake;

    fn controller(fake: &Fake, name: &str, pci: &str, serial: &str) {
        let device = format!("sys/devices/pci0000:00/{pci}");
        fake.link(&format!("sys/class/nvme/{name}"), &format!("{device}/nvme/{name}"));
        fake.link(&format!("{device}/nvme/{name}/device"), &device);
        fake.link(&format!("{device}/driver"), "sys/bus/pci/drivers/nvme");
        fake.files(&device, &[("vendor", "0x1b36"), ("device", "0x0010"), ("class", "0x010802")]);
        let attributes =
            [("serial", serial), ("model", "QEMU NVMe Ctrl   "), ("address", pci), ("transport", "pcie")];
        fake.files(&format!("{device}/nvme/{name}"), &attributes);
        fake.files(
            &format!("{device}/nvme/{name}"),
            &[("cntlid", "0"), ("queue_count", "3"), ("numa_node", "-1")],
        );
    }

    #[test]
    fn a_controller_is_read_with_its_pci_identity() {
        let fake = Fake::new();
        controller(&fake, "nvme0", "0000:00:03.0", "LABDRIVE1");
        let found = &controllers(&fake.tree())[0];
        assert_eq!(found.serial.as_deref(), Some("LABDRIVE1"));
        assert_eq!(found.model.as_deref(), Some("QEMU NVMe Ctrl"));
        assert_eq!(found.vendor.as_deref(), Some("0x1b36"));
        assert_eq!(found.driver.as_deref(), Some("nvme"));
        assert_eq!((found.cntlid, found.queue_count, found.numa_node), (Some(0), Some(3), Some(-1)));
    }

    #[test]
    fn a_plain_namespace_belongs_to_its_controller() {
        let fake = Fake::new();
        controller(&fake, "nvme0", "0000:00:03.0", "A");
        let at = "sys/devices/pci0000:00/0000:00:03.0/nvme/nvme0/nvme0n2";
        fake.link("sys/block/nvme0n2", at);
        fake.link(&format!("{at}/device"), "sys/devices/pci0000:00/0000:00:03.0/nvme/nvme0");
        fake.files(at, &[("size", "2097152"), ("nsid", "2"), ("wwid", "nvme.1b36-41-1")]);
        fake.files(
            &format!("{at}/queue"),
            &[("logical_block_size", "4096"), ("zoned", "none"), ("nr_zones", "0")],
        );
        let found = &namespaces(&fake.tree())[0];
        assert_eq!(found.controllers, ["nvme0"]);
        assert_eq!((found.nsid, found.size_bytes, found.logical_block_size), (Some(2), 1 << 30, Some(4096)));
        assert_eq!((found.zoned.as_str(), found.nr_zones), ("none", None));
    }

    #[test]
    fn a_multipath_head_names_every_controller_and_paths_are_hidden() {
        let fake = Fake::new();
        controller(&fake, "nvme0", "0000:00:03.0", "A");
        controller(&fake, "nvme1", "0000:00:04.0", "B");
        let subsystem = "sys/devices/virtual/nvme-subsystem/nvme-subsys0";
        fake.link("sys/class/nvme-subsystem/nvme-subsys0", subsystem);
        fake.link(&format!("{subsystem}/nvme0"), "sys/devices/pci0000:00/0000:00:03.0/nvme/nvme0");
        fake.link(&format!("{subsystem}/nvme1"), "sys/devices/pci0000:00/0000:00:04.0/nvme/nvme1");
        fake.link("sys/block/nvme0n1", &format!("{subsystem}/nvme0n1"));
        fake.link(&format!("{subsystem}/nvme0n1/device"), subsystem);
        fake.file("sys/block/nvme0c0n1/size", "8");
        fake.file("sys/block/nvme0c1n1/size", "8");
        fake.files(
            &format!("{subsystem}/nvme0n1/queue"),
            &[("zoned", "host-managed"), ("chunk_sectors", "131072")],
        );
        let found = namespaces(&fake.tree());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].controllers, ["nvme0", "nvme1"]);
        assert_eq!(found[0].zone_bytes, Some(64 << 20));
        assert_eq!(controllers(&fake.tree())[1].subsystem.as_deref(), Some("nvme-subsys0"));
    }

    #[test]
    fn names_are_told_apart() {
        assert!(is_namespace("nvme10n3"));
        for other in ["nvme0", "nvme0c0n1", "nvme0n1p1", "nvmen1", "sda", "nvme-subsys0"] {
            assert!(!is_namespace(other), "{other}");
        }
    }
}
