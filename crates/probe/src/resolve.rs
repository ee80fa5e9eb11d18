//! From what the host knows of a disk (its place, its serial) to the device in this guest.
//!
//! Names are never used for that: `/dev/sda` and `/dev/nvme0n1` are given out in the order of probing, which races.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::inventory::{self, BlockDevice, Inventory, Namespace};
use crate::methods::milliseconds;
use crate::protocol::{Answer, Code, Fault, params};
use crate::sysfs::Tree;
use crate::uevent::Uevents;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resolve {
    by: By,
    #[serde(default)]
    deadline_ms: u64,
}

/// All that is given must hold.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct By {
    /// The PCI function that the disk is behind, or an NVMe namespace's controller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pci: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scsi_target: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scsi_lun: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nvme_serial: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nsid: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// A persistent-memory namespace: its block device, or its DAX device.
    #[serde(skip_serializing_if = "Option::is_none")]
    nvdimm: Option<String>,
}

/// `resolve {by: {…}, deadline_ms}`: the one device for which everything in `by` holds, waited for until the deadline.
pub fn resolve(given: Map<String, Value>) -> Answer {
    let wanted: Resolve = params(given)?;
    let deadline = Instant::now() + milliseconds(wanted.deadline_ms);
    let events = Uevents::listen().map_err(|error| Fault::io("listen for uevents", error))?;
    loop {
        match find(&wanted.by, &inventory::read(&Tree::system()))? {
            Some(found) => return Ok(found),
            None => {
                match events.next(Some(deadline)).map_err(|error| Fault::io("wait for uevents", error))? {
                    Some(_) => {}
                    None => return Err(nothing(&wanted)),
                }
            }
        }
    }
}

fn nothing(wanted: &Resolve) -> Fault {
    Fault::new(
        Code::NotFound,
        format!("no device with {} appeared within {} ms", json!(wanted.by), wanted.deadline_ms),
    )
}

fn find(by: &By, inventory: &Inventory) -> Result<Option<Value>, Fault> {
    if let Some(name) = &by.nvdimm {
        let namespace = inventory.nvdimm.namespaces.iter().find(|namespace| namespace.name == *name);
        let device =
            namespace.and_then(|namespace| namespace.blockdev.as_ref().or(namespace.chardev.as_ref()));
        return Ok(device.map(|device| json!({"path": format!("/dev/{device}"), "name": device})));
    }
    let fits: Vec<&BlockDevice> = inventory.block.iter().filter(|block| by.fits(block, inventory)).collect();
    match fits[..] {
        [] => Ok(None),
        // The disk may be announced before devtmpfs has its node.
        [block] if std::path::Path::new(&block.path).exists() => {
            Ok(Some(json!({"path": block.path, "name": block.name, "block": block})))
        }
        [_] => Ok(None),
        ref many => {
            let names: Vec<&str> = many.iter().map(|block| block.name.as_str()).collect();
            Err(Fault::new(Code::BadRequest, format!("{} fits {}: say more", json!(by), names.join(" and "))))
        }
    }
}

impl By {
    fn fits(&self, block: &BlockDevice, inventory: &Inventory) -> bool {
        let nvme = inventory.nvme.namespaces.iter().find(|namespace| namespace.name == block.name);
        let scsi = |place: usize| block.scsi_address.as_ref()?.split(':').nth(place)?.parse::<u64>().ok();
        holds(&self.pci, |pci| {
            block.pci_address.as_ref() == Some(pci)
                || paths(nvme, inventory).any(|path| path.address.as_ref() == Some(pci))
        }) && holds(&self.scsi_target, |target| scsi(2) == Some(*target))
            && holds(&self.scsi_lun, |lun| scsi(3) == Some(*lun))
            && holds(&self.serial, |serial| block.serial.as_ref() == Some(serial))
            && holds(&self.nvme_serial, |serial| {
                paths(nvme, inventory).any(|path| path.serial.as_ref() == Some(serial))
            })
            && holds(&self.nsid, |nsid| nvme.is_some_and(|namespace| namespace.nsid == Some(*nsid)))
            && holds(&self.name, |name| block.name == *name)
    }
}

fn holds<T>(wanted: &Option<T>, test: impl FnOnce(&T) -> bool) -> bool {
    wanted.as_ref().is_none_or(test)
}

/// The controllers by which a namespace is reached.
fn paths<'a>(
    nvme: Option<&'a Namespace>,
    inventory: &'a Inventory,
) -> impl Iterator<Item = &'a inventory::Controller> {
    let names = nvme.map_or(&[][..], |namespace| namespace.controllers.as_slice());
    inventory.nvme.controllers.iter().filter(|controller| names.contains(&controller.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sysfs::tests::Fake;

    /// Two disks that are really called /dev/null and /dev/zero, so that their nodes exist.
    fn two_disks() -> Inventory {
        let fake = Fake::new();
        for (name, pci, serial) in [("null", "0000:00:04.0", "A"), ("zero", "0000:00:05.0", "B")] {
            fake.link(
                &format!("sys/block/{name}"),
                &format!("sys/devices/pci0000:00/{pci}/virtio0/block/{name}"),
            );
            fake.files(&format!("sys/block/{name}"), &[("size", "8"), ("serial", serial)]);
        }
        inventory::read(&fake.tree())
    }

    fn by(given: Value) -> By {
        serde_json::from_value(given).expect("a By")
    }

    #[test]
    fn a_disk_is_found_by_its_place_or_its_serial() {
        let found = find(&by(json!({"pci": "0000:00:05.0"})), &two_disks()).expect("one").expect("there");
        assert_eq!(found["path"], "/dev/zero");
        let found = find(&by(json!({"serial": "A"})), &two_disks()).expect("one").expect("there");
        assert_eq!(found["path"], "/dev/null");
    }

    #[test]
    fn everything_must_hold_and_two_are_too_many() {
        assert!(
            find(&by(json!({"serial": "A", "pci": "0000:00:05.0"})), &two_disks()).expect("none").is_none()
        );
        assert!(find(&by(json!({"serial": "A", "nsid": 1})), &two_disks()).expect("none").is_none());
        let fault = find(&by(json!({})), &two_disks()).expect_err("both");
        assert!(fault.message.contains("null and zero"), "{}", fault.message);
    }

    #[test]
    fn what_does_not_appear_is_said_at_the_deadline() {
        let given = json!({"by": {"serial": "no disk has this"}, "deadline_ms": 30});
        let fault = resolve(given.as_object().expect("an object").clone()).expect_err("nothing");
        assert_eq!(fault.code, Code::NotFound);
    }
}
