//! Block devices of every kind, whole disks only.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::nvme::Controller;
use crate::sysfs::Tree;

#[derive(Debug, Serialize)]
pub struct BlockDevice {
    pub name: String,
    pub path: String,
    pub size_bytes: u64,
    pub logical_block_size: Option<u64>,
    pub read_only: bool,
    pub rotational: bool,
    pub removable: bool,
    pub serial: Option<String>,
    pub model: Option<String>,
    pub vendor: Option<String>,
    pub driver: Option<String>,
    /// The nearest PCI function above the device; for an NVMe head, that of its first controller.
    pub pci_address: Option<String>,
    /// host:channel:target:lun of a SCSI disk.
    pub scsi_address: Option<String>,
    pub discard_granularity: Option<u64>,
    pub queues: usize,
}

/// All block devices that have a size. `controllers` gives NVMe namespaces their identity.
pub fn devices(tree: &Tree, controllers: &[Controller]) -> Vec<BlockDevice> {
    let names = tree.names("sys/block").into_iter();
    let shown = names.filter(|name| !tree.flag(format!("sys/block/{name}/hidden")));
    shown.map(|name| device(tree, name, controllers)).filter(|found| found.size_bytes > 0).collect()
}

fn device(tree: &Tree, name: String, controllers: &[Controller]) -> BlockDevice {
    let at = format!("sys/block/{name}");
    let text = |attribute: &str| tree.text(format!("{at}/{attribute}"));
    let number = |attribute: &str| tree.number(format!("{at}/{attribute}"));
    let parent = tree.link_name(format!("{at}/device"));
    let of = |controller: &&Controller| {
        Some(&controller.name) == parent.as_ref() || (parent.is_some() && controller.subsystem == parent)
    };
    let nvme = controllers.iter().find(of);
    let nvme_pci =
        nvme.and_then(|found| found.address.clone()).filter(|address| crate::sysfs::is_pci_address(address));
    BlockDevice {
        path: format!("/dev/{}", name.replace('!', "/")),
        size_bytes: number("size").unwrap_or(0) * 512,
        logical_block_size: number("queue/logical_block_size"),
        read_only: tree.flag(format!("{at}/ro")),
        rotational: tree.flag(format!("{at}/queue/rotational")),
        removable: tree.flag(format!("{at}/removable")),
        serial: serial(tree, &name, &at)
            .or_else(|| unit_serial(&tree.bytes(format!("{at}/device/vpd_pg80"))?))
            .or_else(|| nvme.and_then(|found| found.serial.clone()))
            .or_else(|| usb_serial(tree, &at)),
        model: text("device/model").or_else(|| nvme.and_then(|found| found.model.clone())),
        vendor: text("device/vendor"),
        driver: nvme
            .and_then(|found| found.driver.clone())
            .or_else(|| tree.link_name(format!("{at}/device/driver"))),
        pci_address: tree.pci_above(&at).or(nvme_pci),
        scsi_address: parent.filter(|name| is_scsi_address(name)),
        discard_granularity: number("queue/discard_granularity"),
        queues: tree.names(format!("{at}/mq")).len(),
        name,
    }
}

/// How long a virtio disk may take to tell its serial.
const ANSWER: Duration = Duration::from_secs(1);

/// Disks that are being asked. None is asked twice at once: each question has a thread that waits for the answer.
static ASKED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// The `serial` attribute. That of a virtio disk is a request to its device (drivers/block/virtio_blk.c, serial_show),
/// and where the device's other end is gone, for instance a vhost-user target, the read does not end.
fn serial(tree: &Tree, name: &str, at: &str) -> Option<String> {
    let path = format!("{at}/serial");
    if tree.link_name(format!("{at}/device/driver")).as_deref() != Some("virtio_blk") {
        return tree.text(path);
    }
    let (answer, awaited) = mpsc::channel();
    if !asked().insert(name.to_owned()) {
        return None;
    }
    let (theirs, disk) = (tree.clone(), name.to_owned());
    thread::spawn(move || {
        let text = theirs.text(path);
        asked().remove(&disk);
        answer.send(text)
    });
    awaited.recv_timeout(ANSWER).unwrap_or_default()
}

fn asked() -> MutexGuard<'static, BTreeSet<String>> {
    ASKED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The serial in a SCSI Unit Serial Number page (SPC-5, 7.8.18): four bytes of header, the last two its length.
fn unit_serial(page: &[u8]) -> Option<String> {
    let length = usize::from(u16::from_be_bytes([*page.get(2)?, *page.get(3)?]));
    let serial = page.get(4..(4 + length).min(page.len()))?;
    let text = String::from_utf8_lossy(serial).trim_matches([' ', '\0']).to_owned();
    (!text.is_empty()).then_some(text)
}

/// The serial of the USB device above a disk: USB mass storage need not have the SCSI page.
fn usb_serial(tree: &Tree, at: &str) -> Option<String> {
    let real = tree.real(at)?;
    let usb = real.ancestors().find(|part| part.join("idVendor").is_file())?;
    tree.text(usb.join("serial"))
}

fn is_scsi_address(name: &str) -> bool {
    name.split(':').count() == 4 && name.split(':').all(|part| part.parse::<u64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sysfs::tests::Fake;

    #[test]
    fn a_virtio_disk_is_read() {
        let fake = Fake::new();
        let at = "sys/devices/pci0000:00/0000:00:04.0/virtio1/block/vda";
        fake.link("sys/block/vda", at);
        fake.link(&format!("{at}/device"), "sys/devices/pci0000:00/0000:00:04.0/virtio1");
        fake.link("sys/devices/pci0000:00/0000:00:04.0/virtio1/driver", "sys/bus/virtio/drivers/virtio_blk");
        fake.files(at, &[("size", "2048"), ("serial", "disk-1"), ("ro", "1")]);
        fake.file(&format!("{at}/mq/0/cpu_list"), "0").file(&format!("{at}/mq/1/cpu_list"), "1");
        let found = &devices(&fake.tree(), &[])[0];
        assert_eq!((found.size_bytes, found.read_only, found.queues), (1 << 20, true, 2));
        assert_eq!(found.serial.as_deref(), Some("disk-1"));
        assert_eq!(found.driver.as_deref(), Some("virtio_blk"));
        assert_eq!(found.pci_address.as_deref(), Some("0000:00:04.0"));
        assert_eq!(found.scsi_address, None);
    }

    #[test]
    fn a_disk_whose_target_is_gone_has_no_serial_and_holds_nobody_up() {
        let fake = Fake::new();
        let at = "sys/devices/pci0000:00/0000:00:06.0/virtio3/block/vdz";
        fake.link("sys/block/vdz", at);
        fake.link(&format!("{at}/device"), "sys/devices/pci0000:00/0000:00:06.0/virtio3");
        fake.link("sys/devices/pci0000:00/0000:00:06.0/virtio3/driver", "sys/bus/virtio/drivers/virtio_blk");
        fake.files(at, &[("size", "2048")]);
        // A FIFO without a writer is read for ever, as that attribute is.
        let serial = fake.path(&format!("{at}/serial"));
        rustix::fs::mkfifoat(rustix::fs::CWD, &serial, rustix::fs::Mode::RWXU).unwrap();
        let begun = std::time::Instant::now();
        assert_eq!(devices(&fake.tree(), &[])[0].serial, None);
        assert_eq!(devices(&fake.tree(), &[])[0].size_bytes, 1 << 20);
        assert!(begun.elapsed() < 2 * ANSWER, "it was asked a second time");
        std::fs::write(&serial, "disk-9").unwrap();
    }

    #[test]
    fn a_scsi_disk_has_an_address_and_the_serial_of_its_page() {
        let fake = Fake::new();
        let host = "sys/devices/pci0000:00/0000:00:05.0/virtio2/host0/target0:0:0/0:0:0:3";
        fake.link("sys/block/sda", &format!("{host}/block/sda"));
        fake.link(&format!("{host}/block/sda/device"), host);
        fake.file(&format!("{host}/block/sda/size"), "4096");
        fake.file(&format!("{host}/vpd_pg80"), b"\0\x80\0\x06SERIAL");
        fake.files(host, &[("model", "QEMU HARDDISK   "), ("vendor", "QEMU    ")]);
        let found = &devices(&fake.tree(), &[])[0];
        assert_eq!(found.scsi_address.as_deref(), Some("0:0:0:3"));
        assert_eq!(found.serial.as_deref(), Some("SERIAL"));
        assert_eq!(found.vendor.as_deref(), Some("QEMU"));
    }

    #[test]
    fn hidden_and_empty_devices_are_left_out() {
        let fake = Fake::new();
        fake.files("sys/block/nvme0c0n1", &[("size", "8"), ("hidden", "1")]);
        fake.files("sys/block/loop0", &[("size", "0")]);
        assert!(devices(&fake.tree(), &[]).is_empty());
    }

    #[test]
    fn a_cut_serial_page_is_no_serial() {
        assert_eq!(unit_serial(b"\0\x80\0\x06SER").as_deref(), Some("SER"));
        assert_eq!(unit_serial(b"\0\x80"), None);
        assert_eq!(unit_serial(b"\0\x80\0\x02  "), None);
        for page in crate::pattern::rubbish(b"\0\x01\x02\x10\xffA ") {
            assert!(unit_serial(&page).is_none_or(|serial| !serial.is_empty()));
        }
    }
}
