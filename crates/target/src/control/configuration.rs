//! What was configured, as the calls that make it again: SPDK's own form of a configuration, so that its client can save
//! and load it, and so that our state file is one, too.

use std::collections::BTreeMap;

use nvlane_bdev::Limits;
use serde_json::{Map, Value, json};

use super::cpumask::CpuMask;

/// A call with its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub method: String,
    pub params: Map<String, Value>,
}

impl Call {
    /// `params` is an object.
    pub fn new(method: &str, params: Value) -> Call {
        let params = match params {
            Value::Object(params) => params,
            _ => Map::new(),
        };
        Call { method: method.to_owned(), params }
    }

    fn to_value(&self) -> Value {
        json!({"method": self.method, "params": self.params})
    }
}

#[derive(Debug)]
struct Device {
    /// The bdevs that the call makes; several for an NVMe controller.
    bdevs: Vec<String>,
    /// What they stand on.
    base: Option<String>,
    call: Call,
}

#[derive(Clone, Debug)]
pub struct Controller {
    pub scsi: bool,
    /// None: all reactors.
    pub cpus: Option<CpuMask>,
    pub read_only: bool,
    pub packed_ring: bool,
    /// Of a block controller.
    pub bdev: Option<String>,
    /// Of a SCSI controller, by target number.
    pub targets: BTreeMap<u8, String>,
    pub started: bool,
    /// Microseconds and requests a second.
    pub coalescing: Option<(u32, u32)>,
}

/// Something that was asked for and could not be made again at the start. It stays in the state file.
#[derive(Clone, Debug)]
pub struct Missing {
    pub subsystem: String,
    pub call: Call,
    pub why: String,
}

#[derive(Debug, Default)]
pub struct Configuration {
    settings: Vec<Call>,
    devices: Vec<Device>,
    limits: BTreeMap<String, Limits>,
    controllers: Vec<(String, Controller)>,
    missing: Vec<Missing>,
}

/// Subsystems with what each needs, in the order in which they start.
pub const SUBSYSTEMS: &[(&str, &[&str])] =
    &[("bdev", &[]), ("scsi", &["bdev"]), ("vhost_blk", &["bdev"]), ("vhost_scsi", &["scsi"])];

impl Configuration {
    /// A setting of the whole program; the latest of a method counts.
    pub fn set(&mut self, call: Call) {
        self.settings.retain(|other| other.method != call.method);
        self.settings.push(call);
    }

    pub fn add_device(&mut self, bdevs: Vec<String>, base: Option<&str>, call: Call) {
        let key = |call: &Call| call.params.get("name").or_else(|| call.params.get("base_name")).cloned();
        let is_new = key(&call);
        self.missing.retain(|missing| missing.call.method != call.method || key(&missing.call) != is_new);
        self.devices.push(Device { bdevs, base: base.map(str::to_owned), call });
    }

    /// Which method made this bdev.
    pub fn maker(&self, bdev: &str) -> Option<&str> {
        self.device(bdev).map(|device| device.call.method.as_str())
    }

    fn device(&self, bdev: &str) -> Option<&Device> {
        self.devices.iter().find(|device| device.bdevs.iter().any(|name| name == bdev))
    }

    /// Changes a parameter of the call that makes a bdev.
    pub fn change(&mut self, bdev: &str, key: &str, value: Value) {
        let device = self.devices.iter_mut().find(|device| device.bdevs.iter().any(|name| name == bdev));
        if let Some(device) = device {
            device.call.params.insert(key.to_owned(), value);
        }
    }

    /// The bdevs that a call with this `name` made: those of an NVMe controller.
    pub fn made_by(&self, method: &str, name: &str) -> Option<&[String]> {
        let ours = |device: &&Device| {
            device.call.method == method && device.call.params.get("name") == Some(&name.into())
        };
        self.devices.iter().find(ours).map(|device| device.bdevs.as_slice())
    }

    /// Another bdev appeared under a call, or one is gone: a namespace was attached or detached.
    pub fn set_bdevs(&mut self, method: &str, name: &str, bdevs: Vec<String>) {
        for device in &mut self.devices {
            if device.call.method == method && device.call.params.get("name") == Some(&name.into()) {
                device.bdevs.clone_from(&bdevs);
            }
        }
    }

    /// The call that made something is taken back.
    pub fn forget_call(&mut self, method: &str, name: &str) {
        self.devices.retain(|device| {
            device.call.method != method || device.call.params.get("name") != Some(&name.into())
        });
    }

    /// What stands on a bdev, the topmost first.
    pub fn stacked_on(&self, bdev: &str) -> Vec<String> {
        let mut all = Vec::new();
        for device in self.devices.iter().filter(|device| device.base.as_deref() == Some(bdev)) {
            for name in &device.bdevs {
                all.extend(self.stacked_on(name));
                all.push(name.clone());
            }
        }
        all
    }

    /// A bdev was deleted, with what was made of it.
    pub fn remove_device(&mut self, bdev: &str) {
        self.devices.retain(|device| !device.bdevs.iter().any(|name| name == bdev));
        self.forget_uses(bdev);
    }

    /// Controllers lose it; a block controller goes on without a bdev and is not made again, as with SPDK.
    pub fn forget_uses(&mut self, bdev: &str) {
        self.limits.remove(bdev);
        for (_, controller) in &mut self.controllers {
            if controller.bdev.as_deref() == Some(bdev) {
                controller.bdev = None;
            }
            controller.targets.retain(|_, name| name != bdev);
        }
    }

    pub fn set_limits(&mut self, bdev: &str, limits: Limits) {
        if limits == Limits::default() {
            self.limits.remove(bdev);
        } else {
            self.limits.insert(bdev.to_owned(), limits);
        }
    }

    pub fn add_controller(&mut self, name: &str, controller: Controller) {
        self.missing.retain(|missing| missing.call.params.get("ctrlr") != Some(&name.into()));
        self.controllers.push((name.to_owned(), controller));
    }

    pub fn remove_controller(&mut self, name: &str) {
        self.controllers.retain(|(other, _)| other != name);
    }

    pub fn controller(&self, name: &str) -> Option<&Controller> {
        self.controllers.iter().find(|(other, _)| other == name).map(|(_, controller)| controller)
    }

    pub fn controller_mut(&mut self, name: &str) -> Option<&mut Controller> {
        self.controllers.iter_mut().find(|(other, _)| other == name).map(|(_, controller)| controller)
    }

    pub fn add_missing(&mut self, missing: Missing) {
        self.missing.push(missing);
    }

    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// What was missing and is given up: a controller or device of this name is deleted.
    pub fn forget_missing(&mut self, key: &str, name: &str) -> bool {
        let before = self.missing.len();
        self.missing.retain(|missing| missing.call.params.get(key) != Some(&name.into()));
        self.missing.len() != before
    }

    /// The calls of one subsystem. None: there is no such subsystem; `null`: it has nothing to configure.
    pub fn subsystem(&self, name: &str) -> Option<Value> {
        let calls = match name {
            "bdev" => self.bdev_calls(),
            "vhost_blk" => self.controller_calls(false),
            "vhost_scsi" => self.controller_calls(true),
            "scsi" => return Some(Value::Null),
            _ => return None,
        };
        let missing =
            self.missing.iter().filter(|missing| missing.subsystem == name).map(|missing| &missing.call);
        let mut calls: Vec<Value> = calls.iter().chain(missing).map(Call::to_value).collect();
        if name == "bdev" {
            // SPDK ends with it, so that everything is there for the subsystems that follow.
            calls.push(json!({"method": "bdev_wait_for_examine"}));
        }
        Some(calls.into())
    }

    /// The whole of it: what SPDK's `save_config` writes.
    pub fn to_text(&self) -> String {
        let subsystems: Vec<Value> = SUBSYSTEMS
            .iter()
            .map(|(name, _)| json!({"subsystem": name, "config": self.subsystem(name)}))
            .collect();
        // Maps with string keys and plain values: there is nothing that could fail.
        let mut text = serde_json::to_string_pretty(&json!({"subsystems": subsystems})).unwrap_or_default();
        text.push('\n');
        text
    }

    fn bdev_calls(&self) -> Vec<Call> {
        let mut calls = self.settings.clone();
        calls.extend(self.devices.iter().map(|device| device.call.clone()));
        calls.extend(self.limits.iter().map(|(name, limits)| {
            let mut params = Map::from_iter([("name".to_owned(), json!(name))]);
            for (key, limit) in [
                ("rw_ios_per_sec", limits.rw_ios_per_sec),
                ("rw_mbytes_per_sec", limits.rw_mbytes_per_sec),
                ("r_mbytes_per_sec", limits.r_mbytes_per_sec),
                ("w_mbytes_per_sec", limits.w_mbytes_per_sec),
            ] {
                if limit > 0 {
                    params.insert(key.to_owned(), json!(limit));
                }
            }
            Call { method: "bdev_set_qos_limit".to_owned(), params }
        }));
        calls
    }

    fn controller_calls(&self, scsi: bool) -> Vec<Call> {
        let mut calls = Vec::new();
        for (name, controller) in self.controllers.iter().filter(|(_, controller)| controller.scsi == scsi) {
            let mut params = Map::from_iter([("ctrlr".to_owned(), json!(name))]);
            if scsi {
                params.extend(cpumask(controller));
                params.insert("delay".to_owned(), json!(true));
                calls.push(Call { method: "vhost_create_scsi_controller".to_owned(), params });
                calls.extend(controller.targets.iter().map(|(number, bdev)| {
                    let params = json!({"ctrlr": name, "scsi_target_num": number, "bdev_name": bdev});
                    Call::new("vhost_scsi_controller_add_target", params)
                }));
                if controller.started {
                    calls.push(Call::new("vhost_start_scsi_controller", json!({"ctrlr": name})));
                }
            } else {
                // Without a bdev it cannot be made.
                let Some(bdev) = &controller.bdev else { continue };
                params.insert("dev_name".to_owned(), json!(bdev));
                params.extend(cpumask(controller));
                params.insert("readonly".to_owned(), json!(controller.read_only));
                params.insert("packed_ring".to_owned(), json!(controller.packed_ring));
                params.insert("transport".to_owned(), json!("vhost_user_blk"));
                calls.push(Call { method: "vhost_create_blk_controller".to_owned(), params });
            }
            if let Some((delay, threshold)) = controller.coalescing.filter(|(delay, _)| *delay > 0) {
                let params = json!({"ctrlr": name, "delay_base_us": delay, "iops_threshold": threshold});
                calls.push(Call::new("vhost_controller_set_coalescing", params));
            }
        }
        calls
    }
}

fn cpumask(controller: &Controller) -> Option<(String, Value)> {
    // Left out, the controller runs wherever the program may: also after a start with another mask.
    controller.cpus.as_ref().map(|cpus| ("cpumask".to_owned(), json!(cpus.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(configuration: &mut Configuration, name: &str, base: Option<&str>) {
        let call = Call::new("bdev_malloc_create", json!({"name": name, "num_blocks": 8, "block_size": 512}));
        configuration.add_device(vec![name.to_owned()], base, call);
    }

    fn methods(configuration: &Configuration, subsystem: &str) -> Vec<String> {
        let calls = configuration.subsystem(subsystem).unwrap();
        calls.as_array().unwrap().iter().map(|call| call["method"].as_str().unwrap().to_owned()).collect()
    }

    fn controller(scsi: bool) -> Controller {
        Controller {
            scsi,
            cpus: None,
            read_only: false,
            packed_ring: true,
            bdev: (!scsi).then(|| "a".to_owned()),
            targets: if scsi { BTreeMap::from([(0, "a".into()), (2, "b".into())]) } else { BTreeMap::new() },
            started: true,
            coalescing: Some((10, 60000)),
        }
    }

    #[test]
    fn it_is_written_as_spdk_writes_it() {
        let mut configuration = Configuration::default();
        device(&mut configuration, "a", None);
        device(&mut configuration, "b", Some("a"));
        configuration.set_limits("a", Limits { rw_ios_per_sec: 1000, ..Limits::default() });
        configuration.add_controller("blk0", controller(false));
        configuration.add_controller("scsi0", controller(true));
        assert_eq!(
            methods(&configuration, "bdev"),
            ["bdev_malloc_create", "bdev_malloc_create", "bdev_set_qos_limit", "bdev_wait_for_examine"]
        );
        assert_eq!(
            methods(&configuration, "vhost_blk"),
            ["vhost_create_blk_controller", "vhost_controller_set_coalescing"]
        );
        assert_eq!(
            methods(&configuration, "vhost_scsi"),
            [
                "vhost_create_scsi_controller",
                "vhost_scsi_controller_add_target",
                "vhost_scsi_controller_add_target",
                "vhost_start_scsi_controller",
                "vhost_controller_set_coalescing"
            ]
        );
        assert_eq!(configuration.subsystem("scsi"), Some(Value::Null));
        assert_eq!(configuration.subsystem("nvmf"), None);
        let text: Value = serde_json::from_str(&configuration.to_text()).unwrap();
        assert_eq!(text["subsystems"].as_array().unwrap().len(), SUBSYSTEMS.len());
    }

    #[test]
    fn what_is_deleted_is_forgotten_everywhere() {
        let mut configuration = Configuration::default();
        device(&mut configuration, "a", None);
        device(&mut configuration, "b", Some("a"));
        device(&mut configuration, "c", Some("b"));
        assert_eq!(configuration.stacked_on("a"), ["c", "b"]);
        assert_eq!(configuration.maker("c"), Some("bdev_malloc_create"));
        configuration.add_controller("blk0", controller(false));
        configuration.add_controller("scsi0", controller(true));
        configuration.set_limits("a", Limits { rw_ios_per_sec: 1000, ..Limits::default() });
        configuration.remove_device("a");
        assert_eq!(methods(&configuration, "bdev").len(), 3);
        assert_eq!(methods(&configuration, "vhost_blk"), Vec::<String>::new());
        assert_eq!(methods(&configuration, "vhost_scsi").len(), 4);
        configuration.remove_controller("scsi0");
        assert!(configuration.controller("scsi0").is_none());
    }

    #[test]
    fn what_is_missing_stays_until_it_is_made_or_given_up() {
        let mut configuration = Configuration::default();
        let missing = |name: &str| Missing {
            subsystem: "bdev".into(),
            call: Call::new("bdev_malloc_create", json!({"name": name})),
            why: "gone".into(),
        };
        configuration.add_missing(missing("x"));
        configuration.add_missing(missing("y"));
        assert_eq!(methods(&configuration, "bdev").len(), 3);
        device(&mut configuration, "x", None);
        assert_eq!(configuration.missing().len(), 1);
        assert!(configuration.forget_missing("name", "y"));
        assert!(!configuration.forget_missing("name", "y"));
        assert_eq!(methods(&configuration, "bdev").len(), 2);
    }
}
