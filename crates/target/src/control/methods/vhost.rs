//! vhost-user controllers.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::control::configuration::Controller;
use crate::control::core::Core;
use crate::control::cpumask::CpuMask;
use crate::control::message::{RpcError, code, errno_text};
use crate::control::method::{Method, Outcome, When};
use crate::control::parameters::{Parameters, Refusal, given};
use crate::target::{BlkOptions, ControllerView, KindView, ScsiOptions, SessionView, TargetError};

pub static METHODS: &[Method] = &[
    Method::saving("vhost_create_blk_controller", create_blk),
    Method::saving("vhost_create_scsi_controller", create_scsi),
    Method::saving("vhost_start_scsi_controller", start_scsi),
    Method::saving("vhost_scsi_controller_add_target", add_target),
    Method::saving("vhost_scsi_controller_remove_target", remove_target),
    Method::saving("vhost_delete_controller", delete),
    Method::saving("vhost_controller_set_coalescing", set_coalescing),
    Method::new("vhost_get_controllers", When::Runtime, get_controllers),
    Method::new("virtio_blk_get_transports", When::Runtime, get_transports),
    Method::new("virtio_blk_create_transport", When::Runtime, create_transport),
];

const TRANSPORT: &str = "vhost_user_blk";
/// SPDK's default (`SPDK_VHOST_COALESCING_IOPS_THRESHOLD`).
const SCSI_TARGETS: i32 = 8;

/// SPDK passes over what it does not know here, unlike elsewhere (`spdk_json_decode_object_relaxed`).
#[derive(Deserialize)]
struct CreateBlk {
    ctrlr: String,
    dev_name: String,
    #[serde(default, deserialize_with = "given")]
    cpumask: Option<String>,
    #[serde(default)]
    readonly: bool,
    /// SPDK offers packed rings only when told to; a driver that does not want them loses nothing.
    #[serde(default, deserialize_with = "given")]
    packed_ring: Option<bool>,
    #[serde(default, deserialize_with = "given")]
    transport: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateScsi {
    ctrlr: String,
    #[serde(default, deserialize_with = "given")]
    cpumask: Option<String>,
    #[serde(default)]
    delay: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddTarget {
    ctrlr: String,
    scsi_target_num: i32,
    bdev_name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveTarget {
    ctrlr: String,
    scsi_target_num: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetCoalescing {
    ctrlr: String,
    delay_base_us: u32,
    iops_threshold: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    ctrlr: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Name {
    #[serde(default, deserialize_with = "given")]
    name: Option<String>,
}

fn vhost_error(error: TargetError) -> RpcError {
    RpcError::vhost(error.errno).with(error.message)
}

fn invalid(why: impl Into<String>) -> RpcError {
    RpcError::vhost(libc::EINVAL).with(why)
}

fn cpus(text: Option<&str>) -> Result<Option<CpuMask>, RpcError> {
    text.map(CpuMask::parse).transpose().map_err(invalid)
}

fn list(cpus: Option<&CpuMask>) -> Option<Vec<usize>> {
    cpus.map(|cpus| cpus.cpus().to_vec())
}

/// The name becomes a file's in the directory of sockets.
fn check_name(name: &str) -> Result<(), RpcError> {
    let file = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
    if file {
        Ok(())
    } else {
        Err(invalid(format!("a controller called {name:?} could have no socket of that name")))
    }
}

fn create_blk(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let asked: CreateBlk = parameters.decode(Refusal::Vhost)?;
    if asked.transport.as_deref().is_some_and(|transport| !transport.eq_ignore_ascii_case(TRANSPORT)) {
        return Err(invalid(format!("there is one transport, {TRANSPORT}")));
    }
    let mask = cpus(asked.cpumask.as_deref())?;
    check_name(&asked.ctrlr)?;
    let packed_ring = asked.packed_ring.unwrap_or(true);
    let options = BlkOptions {
        name: asked.ctrlr.clone(),
        bdev: asked.dev_name.clone(),
        cpus: list(mask.as_ref()),
        read_only: asked.readonly,
        packed_ring,
    };
    core.target.check_blk_controller(&options).map_err(vhost_error)?;
    let socket = core.sockets.controller(&asked.ctrlr)?;
    let bdev = core.target.bdev(&asked.dev_name).map(|bdev| bdev.info().name.clone());
    core.target.create_blk_controller(options, socket).map_err(vhost_error)?;
    let controller = Controller {
        scsi: false,
        cpus: mask,
        read_only: asked.readonly,
        packed_ring,
        bdev,
        targets: BTreeMap::new(),
        started: true,
        coalescing: None,
    };
    core.configuration.add_controller(&asked.ctrlr, controller);
    Ok(json!(true).into())
}

fn create_scsi(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let asked: CreateScsi = parameters.decode(Refusal::Vhost)?;
    let mask = cpus(asked.cpumask.as_deref())?;
    check_name(&asked.ctrlr)?;
    let options = ScsiOptions { name: asked.ctrlr.clone(), cpus: list(mask.as_ref()), delay: asked.delay };
    core.target.check_scsi_controller(&options).map_err(vhost_error)?;
    let socket = core.sockets.controller(&asked.ctrlr)?;
    core.target.create_scsi_controller(options, socket).map_err(vhost_error)?;
    let controller = Controller {
        scsi: true,
        cpus: mask,
        read_only: false,
        packed_ring: true,
        bdev: None,
        targets: BTreeMap::new(),
        started: !asked.delay,
        coalescing: None,
    };
    core.configuration.add_controller(&asked.ctrlr, controller);
    Ok(json!(true).into())
}

fn start_scsi(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let Named { ctrlr } = parameters.decode(Refusal::Vhost)?;
    core.target.start_scsi_controller(&ctrlr).map_err(vhost_error)?;
    if let Some(controller) = core.configuration.controller_mut(&ctrlr) {
        controller.started = true;
    }
    Ok(json!(true).into())
}

fn add_target(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let asked: AddTarget = parameters.decode(Refusal::Vhost)?;
    let controller = core.target.controller(&asked.ctrlr).ok_or_else(|| missing(&asked.ctrlr))?;
    let number = match asked.scsi_target_num {
        -1 => None,
        number @ 0..SCSI_TARGETS => u8::try_from(number).ok(),
        number => {
            return Err(invalid(format!(
                "SCSI target {number}: there are 0 to 7, and -1 for the first free one"
            )));
        }
    };
    // SPDK looks at the target before it looks for the bdev.
    if let (KindView::Scsi { targets }, Some(number)) = (&controller.kind, number) {
        if targets.iter().any(|target| target.number == number) {
            let why = format!("SCSI target {number} of {} is taken", asked.ctrlr);
            return Err(RpcError::vhost(libc::EEXIST).with(why));
        }
    }
    let number = core.target.add_scsi_target(&asked.ctrlr, number, &asked.bdev_name).map_err(vhost_error)?;
    let bdev = core.target.bdev(&asked.bdev_name).map(|bdev| bdev.info().name.clone());
    if let (Some(controller), Some(bdev)) = (core.configuration.controller_mut(&asked.ctrlr), bdev) {
        controller.targets.insert(number, bdev);
    }
    Ok(json!(number).into())
}

fn remove_target(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let asked: RemoveTarget = parameters.decode(Refusal::Vhost)?;
    let number = u8::try_from(asked.scsi_target_num).ok().filter(|number| i32::from(*number) < SCSI_TARGETS);
    let number =
        number.ok_or_else(|| invalid(format!("SCSI target {}: there are 0 to 7", asked.scsi_target_num)))?;
    core.target.remove_scsi_target(&asked.ctrlr, number).map_err(vhost_error)?;
    if let Some(controller) = core.configuration.controller_mut(&asked.ctrlr) {
        controller.targets.remove(&number);
    }
    Ok(json!(true).into())
}

fn delete(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let Named { ctrlr } = parameters.decode(Refusal::Vhost)?;
    if core.target.controller(&ctrlr).is_none() && core.configuration.forget_missing("ctrlr", &ctrlr) {
        return Ok(json!(true).into());
    }
    core.target.delete_controller(&ctrlr).map_err(vhost_error)?;
    core.configuration.remove_controller(&ctrlr);
    Ok(json!(true).into())
}

fn set_coalescing(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let asked: SetCoalescing = parameters.decode(Refusal::Vhost)?;
    let controller = core.target.controller(&asked.ctrlr).ok_or_else(|| missing(&asked.ctrlr))?;
    // As SPDK's vhost_user_set_coalescing: a threshold of 0 would divide by it.
    if asked.iops_threshold == 0 {
        return Err(invalid("iops_threshold is 1 at least"));
    }
    core.target
        .set_coalescing(&controller.name, asked.delay_base_us, asked.iops_threshold)
        .map_err(vhost_error)?;
    if let Some(controller) = core.configuration.controller_mut(&asked.ctrlr) {
        controller.coalescing = Some((asked.delay_base_us, asked.iops_threshold));
    }
    Ok(json!(true).into())
}

fn missing(name: &str) -> RpcError {
    RpcError::vhost(libc::ENODEV).with(format!("there is no controller {name:?}"))
}

fn get_controllers(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let internal = |errno, why: String| RpcError::new(code::INTERNAL_ERROR, errno_text(errno)).with(why);
    let asked: Name = parameters
        .decode_or_default(Refusal::Vhost)
        .map_err(|error| internal(libc::EINVAL, error.detail.unwrap_or_default()))?;
    let controllers = match asked.name {
        None => core.target.controllers(),
        Some(name) => {
            let controller = core.target.controller(&name);
            vec![
                controller
                    .ok_or_else(|| internal(libc::ENODEV, format!("there is no controller {name:?}")))?,
            ]
        }
    };
    Ok(Value::from(controllers.iter().map(describe).collect::<Vec<_>>()).into())
}

fn describe(controller: &ControllerView) -> Value {
    let backend = match &controller.kind {
        KindView::Blk { bdev, read_only, .. } => {
            json!({"block": {"readonly": read_only, "bdev": bdev, "transport": TRANSPORT}})
        }
        KindView::Scsi { targets } => {
            let targets: Vec<Value> = targets
                .iter()
                .map(|target| {
                    json!({
                        "scsi_dev_num": target.number,
                        "id": target.number,
                        "target_name": format!("Target {}", target.number),
                        "luns": [{"id": 0, "bdev_name": target.bdev}],
                    })
                })
                .collect();
            json!({"scsi": targets})
        }
    };
    let session = |session: &SessionView| {
        json!({
            "vid": session.number,
            "id": session.number,
            "name": format!("{}s{}", controller.name, session.number),
            "started": session.queues != 0,
            "max_queues": controller.max_queues,
        })
    };
    let sessions: Vec<Value> = controller.sessions.iter().map(session).collect();
    json!({
        "ctrlr": controller.name,
        "cpumask": format!("0x{}", CpuMask::from_cpus(controller.cpus.iter().copied())),
        "delay_base_us": controller.coalescing.delay_us,
        "iops_threshold": controller.coalescing.threshold,
        "socket": controller.socket,
        "sessions": sessions,
        "backend_specific": backend,
    })
}

fn get_transports(_: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let asked: Name = parameters.decode_or_default(Refusal::Plain)?;
    match asked.name {
        Some(name) if !name.eq_ignore_ascii_case(TRANSPORT) => {
            Err(RpcError::errno(libc::ENODEV).with(format!("there is one transport, {TRANSPORT}")))
        }
        _ => Ok(json!([{"name": TRANSPORT}]).into()),
    }
}

#[derive(Deserialize)]
struct Transport {
    name: String,
}

fn create_transport(_: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let asked: Transport = parameters.decode(Refusal::Plain).map_err(|error| RpcError {
        code: -libc::EINVAL,
        ..RpcError::errno(libc::EINVAL).with(error.detail.unwrap_or_default())
    })?;
    let errno = if asked.name.eq_ignore_ascii_case(TRANSPORT) { libc::EEXIST } else { libc::ENOENT };
    Err(RpcError::errno(errno)
        .with(format!("there is one transport, {TRANSPORT}, and it is there from the start")))
}
