//! NVMe drives under our own driver.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nvlane_bdev::Bdev;
use nvlane_bdev::nvme::NvmeController;
use serde::Deserialize;
use serde_json::{Value, json};

use super::bdevs::bdev_error;
use crate::control::configuration::Call;
use crate::control::core::Core;
use crate::control::drives::{self, ATTACH};
use crate::control::message::RpcError;
use crate::control::method::{Method, Outcome, Wait, When};
use crate::control::parameters::Type::{self, Flag, List, Object, Signed32, Text, Unsigned};
use crate::control::parameters::{Parameters, Refusal, given};

pub static METHODS: &[Method] = &[
    Method::saving(ATTACH, attach),
    Method::saving("bdev_nvme_detach_controller", detach),
    Method::new("bdev_nvme_get_controllers", When::Runtime, get_controllers),
    Method::new("bdev_nvme_reset_controller", When::Runtime, reset),
    Method { saves: true, ..Method::new("bdev_nvme_set_options", When::Always, set_options) },
    Method::new("bdev_nvme_set_hotplug", When::Runtime, set_hotplug),
];

/// For everything that still uses a drive to let it go.
const RELEASE: Duration = Duration::from_secs(10);
/// For a controller to come back from a reset: CAP.TO may say 127.5 s.
const RESET: Duration = Duration::from_secs(130);

/// As in SPDK's schema. Most of it is about fabrics; it is decoded all the same.
const ATTACH_KEYS: &[(&str, Type)] = &[
    ("name", Text),
    ("trtype", Text),
    ("traddr", Text),
    ("adrfam", Text),
    ("trsvcid", Text),
    ("priority", Text),
    ("subnqn", Text),
    ("hostnqn", Text),
    ("hostaddr", Text),
    ("hostsvcid", Text),
    ("prchk_reftag", Flag),
    ("prchk_guard", Flag),
    ("hdgst", Flag),
    ("ddgst", Flag),
    ("fabrics_connect_timeout_us", Unsigned(64)),
    ("multipath", Text),
    ("num_io_queues", Unsigned(32)),
    ("ctrlr_loss_timeout_sec", Signed32),
    ("reconnect_delay_sec", Unsigned(32)),
    ("fast_io_fail_timeout_sec", Unsigned(32)),
    ("psk", Text),
    ("max_bdevs", Unsigned(32)),
    ("dhchap_key", Text),
    ("dhchap_ctrlr_key", Text),
    ("allow_unrecognized_csi", Flag),
    ("multipath_opts", Object),
    ("disable_sq_flow_control", Flag),
];

const DETACH_KEYS: &[(&str, Type)] = &[
    ("name", Text),
    ("trtype", Text),
    ("traddr", Text),
    ("adrfam", Text),
    ("trsvcid", Text),
    ("subnqn", Text),
    ("hostaddr", Text),
    ("hostsvcid", Text),
];

const OPTION_KEYS: &[(&str, Type)] = &[
    ("action_on_timeout", Text),
    ("timeout_us", Unsigned(64)),
    ("timeout_admin_us", Unsigned(64)),
    ("keep_alive_timeout_ms", Unsigned(32)),
    ("arbitration_burst", Unsigned(32)),
    ("low_priority_weight", Unsigned(32)),
    ("medium_priority_weight", Unsigned(32)),
    ("high_priority_weight", Unsigned(32)),
    ("nvme_adminq_poll_period_us", Unsigned(64)),
    ("nvme_ioq_poll_period_us", Unsigned(64)),
    ("io_queue_requests", Unsigned(32)),
    ("delay_cmd_submit", Flag),
    ("transport_retry_count", Unsigned(32)),
    ("bdev_retry_count", Signed32),
    ("transport_ack_timeout", Unsigned(8)),
    ("ctrlr_loss_timeout_sec", Signed32),
    ("reconnect_delay_sec", Unsigned(32)),
    ("fast_io_fail_timeout_sec", Unsigned(32)),
    ("disable_auto_failback", Flag),
    ("generate_uuids", Flag),
    ("transport_tos", Unsigned(8)),
    ("nvme_error_stat", Flag),
    ("rdma_srq_size", Unsigned(32)),
    ("io_path_stat", Flag),
    ("allow_accel_sequence", Flag),
    ("rdma_max_cq_size", Unsigned(32)),
    ("rdma_cm_event_timeout_ms", Unsigned(16)),
    ("dhchap_digests", List),
    ("dhchap_dhgroups", List),
    ("rdma_umr_per_io", Flag),
    ("tcp_connect_timeout_ms", Unsigned(32)),
    ("enable_flush", Flag),
    ("multipath_opts", Object),
];

fn einval(message: String) -> RpcError {
    RpcError::new(-libc::EINVAL, message)
}

fn text<'a>(members: &'a std::collections::BTreeMap<String, Value>, key: &str) -> Option<&'a str> {
    members.get(key).and_then(Value::as_str)
}

fn attach(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let asked = parameters.members(ATTACH_KEYS, Refusal::Internal)?;
    let needed =
        |key: &str| text(&asked, key).ok_or_else(|| Refusal::Internal.error(format!("`{key}` is missing")));
    let (name, transport, place) = (needed("name")?.to_owned(), needed("trtype")?, needed("traddr")?);
    if asked.get("max_bdevs") == Some(&json!(0)) {
        return Err(RpcError::new(-libc::EINVAL, "max_bdevs cannot be zero"));
    }
    if !transport.eq_ignore_ascii_case("PCIe") {
        let fabrics =
            ["TCP", "RDMA", "FC", "VFIOUSER"].iter().any(|known| transport.eq_ignore_ascii_case(known));
        let error = if fabrics {
            RpcError::errno(libc::EIO)
        } else {
            einval(format!("Failed to parse trtype: {transport}"))
        };
        let why =
            "only drives on PCIe are driven here; connect others with nvme-cli and use bdev_uring_create";
        return Err(error.with(why));
    }
    let place = drives::address(place).ok_or_else(|| {
        RpcError::errno(libc::ENODEV).with(format!("`{place}` is no PCI address such as 0000:05:00.0"))
    })?;
    if core.drives.get(&name).is_some() {
        let why = format!("A controller named {name} already exists with the specified network path");
        return Err(RpcError::new(-libc::EALREADY, why));
    }
    let mut options = core.drives.options.clone();
    if let Some(queues) = asked.get("num_io_queues").and_then(Value::as_u64) {
        let bounds = || einval("num_io_queues out of bounds, min: 1 max: 65536".into());
        options.io_queues = u16::try_from(queues.min(65535))
            .ok()
            .filter(|_| (1..=65536).contains(&queues))
            .ok_or_else(bounds)?;
    }
    let mut params = json!({"name": name, "trtype": "PCIe", "traddr": place});
    if let Some(queues) = asked.get("num_io_queues") {
        params["num_io_queues"] = queues.clone();
    }
    let call = Call::new(ATTACH, params);
    let listener = core.drives.listener(&name);
    let allowed = core.allowed_paths();
    Ok(Outcome::Work(Box::new(move || {
        let made = NvmeController::attach(&name, &place, options, listener)
            .map_err(|error| allowed.explain(std::path::Path::new("/dev/vfio"), bdev_error(error)));
        Box::new(move |core| attached(core, made?, call))
    })))
}

fn attached(core: &mut Core, controller: NvmeController, call: Call) -> Result<Value, RpcError> {
    let name = controller.name().to_owned();
    for why in controller.unusable() {
        log::warn!("{name}: {why}");
    }
    let bdevs = controller.bdevs();
    let names: Vec<String> = bdevs.iter().map(|bdev| bdev.info().name.clone()).collect();
    let taken = names.iter().find(|name| core.check_new(name).is_err());
    if let Some(taken) =
        taken.filter(|_| core.drives.get(&name).is_none()).or(core.drives.get(&name).map(|_| &name))
    {
        let why = format!("there is a bdev or controller {taken:?} already");
        drives::let_go(bdevs, controller);
        return Err(RpcError::errno(libc::EEXIST).with(why));
    }
    for bdev in bdevs {
        core.target.add_bdev(bdev, Vec::new()).map_err(crate::control::core::target_error)?;
    }
    core.configuration.add_device(names.clone(), None, call);
    core.drives.insert(controller);
    Ok(json!(names))
}

fn detach(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let asked = parameters.members(DETACH_KEYS, Refusal::Internal)?;
    let name = text(&asked, "name").ok_or_else(|| Refusal::Internal.error("`name` is missing"))?.to_owned();
    let missing = || RpcError::errno(libc::ENODEV).with(format!("there is no NVMe controller {name:?}"));
    let Some(controller) = core.drives.get(&name) else {
        let forgotten = core.configuration.forget_missing("name", &name);
        return if forgotten { Ok(json!(true).into()) } else { Err(missing()) };
    };
    let other_type = text(&asked, "trtype").is_some_and(|given| !given.eq_ignore_ascii_case("PCIe"));
    let other_place = text(&asked, "traddr")
        .is_some_and(|given| drives::address(given).as_deref() != Some(controller.address()));
    if other_type || other_place {
        return Err(RpcError::errno(libc::ENXIO).with(format!("{name} is at {}", controller.address())));
    }
    let own = core.configuration.made_by(ATTACH, &name).unwrap_or_default().to_vec();
    let mut left = Vec::new();
    for bdev in &own {
        left.extend(core.configuration.stacked_on(bdev));
        left.push(bdev.clone());
    }
    left.reverse();
    let mut leaving = drives::Leaving::new(name, own, left);
    let deadline = Instant::now().checked_add(RELEASE);
    let poll = move |core: &mut Core, expired: bool| leaving.go_on(core, expired);
    Ok(Outcome::Wait(Wait { deadline, poll: Box::new(poll) }))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct OptionalName {
    #[serde(default, deserialize_with = "given")]
    name: Option<String>,
}

fn get_controllers(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let asked: OptionalName = parameters.decode_or_default(Refusal::Internal)?;
    let found: Vec<Value> = match asked.name {
        None => core.drives.all().map(|controller| controller.describe()).collect(),
        Some(name) => {
            let missing = || einval(format!("Controller {name} does not exist"));
            vec![core.drives.get(&name).ok_or_else(missing)?.describe()]
        }
    };
    Ok(Value::from(found).into())
}

fn reset(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let asked = parameters.members(&[("name", Text), ("cntlid", Unsigned(16))], Refusal::Internal)?;
    let name = text(&asked, "name").ok_or_else(|| Refusal::Internal.error("`name` is missing"))?;
    let missing = || RpcError::errno(libc::ENODEV).with(format!("there is no NVMe controller {name:?}"));
    let controller: Arc<NvmeController> = core.drives.get(name).cloned().ok_or_else(missing)?;
    Ok(Outcome::Work(Box::new(move || {
        let reply = controller.reset(RESET).map_err(bdev_error);
        // Before the control thread goes on: it may be the last one that holds it otherwise.
        drop(controller);
        Box::new(move |_| reply.map(|()| json!(true)))
    })))
}

fn set_options(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let asked = parameters.members(OPTION_KEYS, Refusal::Internal)?;
    if core.drives.all().next().is_some() {
        return Err(RpcError::new(-libc::EPERM, "RPC not permitted if nvme controllers already attached"));
    }
    let number = |key: &str| asked.get(key).and_then(Value::as_u64).filter(|number| *number > 0);
    let options = &mut core.drives.options;
    if let Some(time) = number("timeout_us") {
        options.io_timeout = Duration::from_micros(time);
    }
    if let Some(time) = number("timeout_admin_us") {
        options.admin_timeout = Duration::from_micros(time);
    }
    if let Some(count) = asked.get("transport_retry_count").and_then(Value::as_u64) {
        options.retries = u8::try_from(count).unwrap_or(u8::MAX);
    }
    let params = Value::Object(asked.into_iter().collect());
    core.configuration.set(Call::new("bdev_nvme_set_options", params));
    Ok(json!(true).into())
}

fn set_hotplug(_: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let asked = parameters.members(&[("enable", Flag), ("period_us", Unsigned(64))], Refusal::Internal)?;
    match asked.get("enable") {
        None => Err(Refusal::Internal.error("`enable` is missing")),
        Some(Value::Bool(true)) => {
            let why =
                "drives are attached by name here, never because they appeared; unplugging is always noticed";
            Err(RpcError::errno(libc::EOPNOTSUPP).with(why))
        }
        Some(_) => Ok(json!(true).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::sockets::Sockets;
    use crate::reactor::PollPolicy;
    use crate::target::{Options, Target};
    use nvlane_bdev::nvme::NvmeOptions;
    use nvlane_nvme::emulated::{Emulated, EmulatedOptions};
    use serde_json::value::RawValue;

    fn core() -> Core {
        let set = rustix::thread::sched_getaffinity(None).unwrap();
        let cpus = (0..rustix::thread::CpuSet::MAX_CPU).find(|&cpu| set.is_set(cpu)).into_iter().collect();
        let target = Target::new(&Options { cpus, poll: PollPolicy::Adaptive }).unwrap();
        let directory = tempfile::tempdir().unwrap().keep();
        let mut core = Core::new(target, Sockets { directory, ..Sockets::default() }).unwrap();
        core.running = true;
        core
    }

    fn call(core: &mut Core, method: &str, params: Value) -> Result<Value, RpcError> {
        let text = RawValue::from_string(params.to_string()).unwrap();
        core.call_and_wait(method, Parameters::new(Some(text)))
    }

    /// As `bdev_nvme_attach_controller` does, with a modelled drive in the place of one on VFIO.
    fn attach_model(core: &mut Core) -> Arc<Emulated> {
        let device = Emulated::new(EmulatedOptions::default()).unwrap();
        let options = NvmeOptions { tick: Duration::from_millis(5), ..NvmeOptions::default() };
        let listener = core.drives.listener("Nvme0");
        let controller = NvmeController::attach_device("Nvme0", device.clone(), options, listener).unwrap();
        let params = json!({"name": "Nvme0", "trtype": "PCIe", "traddr": "0000:05:00.0"});
        let names = attached(core, controller, Call::new(ATTACH, params)).unwrap();
        assert_eq!(names[0], "Nvme0n1");
        device
    }

    fn until(core: &mut Core, what: &str, mut done: impl FnMut(&mut Core) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !done(core) {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(2));
            core.hear_drives();
            core.target.turn().unwrap();
        }
    }

    #[test]
    fn a_drive_comes_is_used_and_goes() {
        let mut core = core();
        attach_model(&mut core);
        let found = call(&mut core, "bdev_nvme_get_controllers", json!({"name": "Nvme0"})).unwrap();
        assert_eq!(
            (&found[0]["name"], &found[0]["ctrlrs"][0]["state"]),
            (&json!("Nvme0"), &json!("enabled"))
        );
        call(&mut core, "vhost_create_blk_controller", json!({"ctrlr": "b0", "dev_name": "Nvme0n1"}))
            .unwrap();
        call(&mut core, "bdev_error_create", json!({"base_name": "Nvme0n1"})).unwrap();
        let saved = core.configuration_text();
        assert!(saved.contains("bdev_nvme_attach_controller") && saved.contains("0000:05:00.0"));
        let elsewhere = json!({"name": "Nvme0", "trtype": "PCIe", "traddr": "06:00.0"});
        assert_eq!(call(&mut core, "bdev_nvme_detach_controller", elsewhere).unwrap_err().code, -libc::ENXIO);
        let again = json!({"name": "Nvme0", "trtype": "PCIe", "traddr": "0000:05:00.0"});
        assert_eq!(call(&mut core, ATTACH, again).unwrap_err().code, -libc::EALREADY);
        assert_eq!(call(&mut core, "bdev_nvme_reset_controller", json!({"name": "Nvme0"})), Ok(json!(true)));
        assert_eq!(call(&mut core, "bdev_nvme_detach_controller", json!({"name": "Nvme0"})), Ok(json!(true)));
        assert!(core.target.bdevs().is_empty() && core.drives.all().next().is_none());
        assert!(!core.configuration_text().contains("Nvme0"));
        assert_eq!(
            call(&mut core, "bdev_nvme_detach_controller", json!({"name": "Nvme0"})).unwrap_err().code,
            -libc::ENODEV
        );
    }

    #[test]
    fn what_a_drive_does_by_itself_is_followed() {
        let mut core = core();
        let device = attach_model(&mut core);
        device.resize(1, 1024);
        until(&mut core, "another size", |core| core.bdev("Nvme0n1").is_ok_and(|bdev| bdev.blocks() == 1024));
        device.request_removal();
        until(&mut core, "the drive is wanted back", |core| core.drives.all().next().is_none());
        assert!(core.bdev("Nvme0n1").is_err());
        assert!(core.configuration_text().contains("0000:05:00.0"), "it is looked for at the next start");
        assert_eq!(call(&mut core, "bdev_nvme_get_controllers", json!({})), Ok(json!([])));
    }
}
