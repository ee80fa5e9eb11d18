//! What RPC clients are told, in SPDK's words (module/bdev/nvme/bdev_nvme.c, bdev_nvme_rpc.c).

use nvlane_nvme::{Controller, Namespace, State};
use serde_json::{Value, json};

use super::NvmeController;

/// The NUMA node of a PCI function; -1 where it has none, or where it is not on PCI.
pub(super) fn numa_node(address: &str) -> i32 {
    let path = format!("/sys/bus/pci/devices/{address}/numa_node");
    std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(-1)
}

fn trid(controller: &Controller) -> Value {
    json!({"trtype": "PCIe", "traddr": controller.info().address})
}

pub(super) fn controller(this: &NvmeController) -> Value {
    let state = match this.controller.state() {
        State::Enabled => "enabled",
        State::Resetting => "resetting",
        State::Failed | State::Gone => "failed",
        State::Detached => "deleting",
    };
    json!({
        "name": this.name,
        "ctrlrs": [{
            "state": state,
            "trid": trid(&this.controller),
            "cntlid": this.controller.info().identify.controller_id,
            "host": {"nqn": "", "addr": "", "svcid": ""},
            "numa_id": this.numa_node,
        }],
    })
}

pub(super) fn namespace(controller: &Controller, namespace: &Namespace) -> Value {
    let info = controller.info();
    let identify = &info.identify;
    json!({
        "nvme": [{
            "pci_address": info.address,
            "trid": trid(controller),
            "ctrlr_data": {
                "cntlid": identify.controller_id,
                "vendor_id": format!("{:#06x}", identify.vendor),
                "model_number": identify.model,
                "serial_number": identify.serial,
                "firmware_revision": identify.firmware,
                "subnqn": identify.subsystem_name,
                "oacs": {
                    "security": u8::from(identify.security),
                    "format": u8::from(identify.format),
                    "firmware": u8::from(identify.firmware_commands),
                    "ns_manage": u8::from(identify.namespace_management),
                },
                "multi_ctrlr": identify.multiple_controllers,
                "ana_reporting": false,
            },
            "vs": {"nvme_version": info.version.to_string()},
            "ns_data": {"id": namespace.id, "can_share": namespace.data.shared},
        }],
        "mp_policy": "active_passive",
    })
}
