//! PCI functions.

use serde::Serialize;

use crate::sysfs::Tree;

#[derive(Debug, Serialize)]
pub struct Function {
    pub address: String,
    pub vendor: Option<String>,
    pub device: Option<String>,
    pub class: Option<String>,
    pub driver: Option<String>,
}

pub fn functions(tree: &Tree) -> Vec<Function> {
    let read = |address: String| {
        let at = format!("sys/bus/pci/devices/{address}");
        Function {
            vendor: tree.text(format!("{at}/vendor")),
            device: tree.text(format!("{at}/device")),
            class: tree.text(format!("{at}/class")),
            driver: tree.link_name(format!("{at}/driver")),
            address,
        }
    };
    tree.names("sys/bus/pci/devices").into_iter().map(read).collect()
}
