//! `error` and `delay` bdevs, which stand on others, for tests.
//!
//! SPDK takes a base that is not there for one that will come; here it has to be there, so that a wrong name is seen.

use std::sync::Arc;

use nvlane_bdev::delay::{Delay, Latencies, LatencyKind};
use nvlane_bdev::error::{ErrorBdev, Fault, Injection};
use nvlane_bdev::{Bdev, Kind, Uuid};
use serde::Deserialize;
use serde_json::{Value, json};

use super::bdevs::{Name, bdev_error, delete, uuid};
use crate::control::configuration::Call;
use crate::control::core::Core;
use crate::control::message::{RpcError, code};
use crate::control::method::{Method, Outcome, When};
use crate::control::parameters::{Parameters, Refusal};

pub static METHODS: &[Method] = &[
    Method::saving("bdev_error_create", error_create),
    Method::saving("bdev_error_delete", error_delete),
    Method::new("bdev_error_inject_error", When::Runtime, inject),
    Method::new("bdev_error_resume_pending", When::Runtime, resume),
    Method::saving("bdev_delay_create", delay_create),
    Method::saving("bdev_delay_delete", delay_delete),
    Method::saving("bdev_delay_update_latency", update_latency),
];

const ERROR: &str = "bdev_error_create";
const DELAY: &str = "bdev_delay_create";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ErrorCreate {
    base_name: String,
    #[serde(default, deserialize_with = "uuid")]
    uuid: Option<Uuid>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DelayCreate {
    name: String,
    base_bdev_name: String,
    avg_read_latency: u64,
    p99_read_latency: u64,
    avg_write_latency: u64,
    p99_write_latency: u64,
    #[serde(default, deserialize_with = "uuid")]
    uuid: Option<Uuid>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LatencyType {
    AvgRead,
    P99Read,
    AvgWrite,
    P99Write,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateLatency {
    delay_bdev_name: String,
    latency_type: LatencyType,
    latency_us: u64,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum IoType {
    Clear,
    Read,
    Write,
    Unmap,
    Flush,
    All,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ErrorType {
    Failure,
    Pending,
    CorruptData,
    #[serde(rename = "nomem")]
    NoMemory,
    NvmeFailure,
}

fn one() -> u64 {
    1
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Inject {
    name: String,
    io_type: IoType,
    error_type: ErrorType,
    #[serde(default = "one")]
    num: u64,
    #[serde(default)]
    queue_depth: u64,
    #[serde(default)]
    corrupt_offset: u64,
    #[serde(default)]
    corrupt_value: u8,
    #[serde(default)]
    nvme_sct: u32,
    #[serde(default)]
    nvme_sc: u32,
}

fn error_create(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let asked: ErrorCreate = parameters.decode(Refusal::Invalid)?;
    let base = core.bdev(&asked.base_name)?;
    let base_name = base.info().name.clone();
    core.check_new(&format!("EE_{base_name}"))?;
    let uuid = asked.uuid.map_or_else(Uuid::random, Ok).map_err(bdev_error)?;
    let bdev = Arc::new(ErrorBdev::new(base, uuid).map_err(bdev_error)?);
    let call = Call::new(ERROR, json!({"base_name": base_name, "uuid": uuid.to_string()}));
    core.add_bdev(bdev.clone(), Some(&base_name), call)?;
    core.errors.insert(bdev.info().name.clone(), bdev);
    Ok(json!(true).into())
}

fn error_delete(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    delete(core, parameters, ERROR, Refusal::Invalid)
}

fn error_bdev(core: &mut Core, name: &str) -> Result<Arc<ErrorBdev>, RpcError> {
    let name = core.bdev(name)?.info().name.clone();
    let why = || RpcError::errno(libc::ENODEV).with(format!("{name} is no error bdev"));
    core.errors.get(&name).cloned().ok_or_else(why)
}

fn inject(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let asked: Inject = parameters.decode(Refusal::Invalid)?;
    let bdev = error_bdev(core, &asked.name)?;
    let fault = match asked.error_type {
        ErrorType::NvmeFailure => {
            let why = "an NVMe status (nvme_failure) means nothing to a virtio guest: use failure";
            return Err(RpcError::errno(libc::EINVAL).with(why));
        }
        _ if asked.nvme_sct != 0 || asked.nvme_sc != 0 => {
            return Err(RpcError::new(-libc::EINVAL, "nvme_sct and nvme_sc are for error type nvme_failure"));
        }
        ErrorType::Failure => Fault::Failure,
        ErrorType::Pending => Fault::Pending,
        ErrorType::NoMemory => Fault::NoMemory,
        ErrorType::CorruptData => Fault::Corrupt { offset: asked.corrupt_offset, value: asked.corrupt_value },
    };
    let all = Kind::ALL;
    let kinds: &[Kind] = match asked.io_type {
        IoType::Clear => &[],
        IoType::Read => &[Kind::Read],
        IoType::Write => &[Kind::Write],
        IoType::Unmap => &[Kind::Unmap],
        IoType::Flush => &[Kind::Flush],
        IoType::All if matches!(fault, Fault::Corrupt { .. }) => &[Kind::Read],
        IoType::All => &all,
    };
    if asked.io_type == IoType::Clear || asked.num == 0 {
        bdev.clear();
    } else {
        let injection = Injection { fault, count: asked.num, queue_depth: asked.queue_depth };
        bdev.inject(kinds, injection).map_err(bdev_error)?;
    }
    Ok(json!(true).into())
}

fn resume(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let Name { name } = parameters.decode(Refusal::Invalid)?;
    error_bdev(core, &name)?.resume();
    Ok(json!(true).into())
}

fn delay_create(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let asked: DelayCreate = parameters.decode(Refusal::Internal)?;
    if asked.p99_read_latency < asked.avg_read_latency || asked.p99_write_latency < asked.avg_write_latency {
        return Err(RpcError::errno(libc::EINVAL).with("a 99th percentile cannot lie below the average"));
    }
    core.check_new(&asked.name)?;
    let base = core.bdev(&asked.base_bdev_name)?;
    let base_name = base.info().name.clone();
    let uuid = asked.uuid.map_or_else(Uuid::random, Ok).map_err(bdev_error)?;
    let latencies = Latencies {
        avg_read: asked.avg_read_latency,
        p99_read: asked.p99_read_latency,
        avg_write: asked.avg_write_latency,
        p99_write: asked.p99_write_latency,
    };
    let bdev = Arc::new(Delay::new(base, &asked.name, uuid, latencies).map_err(bdev_error)?);
    let call = Call::new(
        DELAY,
        json!({
            "name": asked.name,
            "base_bdev_name": base_name,
            "uuid": uuid.to_string(),
            "avg_read_latency": asked.avg_read_latency,
            "p99_read_latency": asked.p99_read_latency,
            "avg_write_latency": asked.avg_write_latency,
            "p99_write_latency": asked.p99_write_latency,
        }),
    );
    core.add_bdev(bdev.clone(), Some(&base_name), call)?;
    core.delays.insert(asked.name.clone(), bdev);
    Ok(json!(asked.name).into())
}

fn delay_delete(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    delete(core, parameters, DELAY, Refusal::Internal)
}

fn update_latency(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let asked: UpdateLatency = parameters.decode(Refusal::Internal)?;
    let Ok(bdev) = core.bdev(&asked.delay_bdev_name) else {
        return Err(RpcError::new(code::INVALID_PARAMS, "The requested bdev does not exist."));
    };
    let name = bdev.info().name.clone();
    let Some(delay) = core.delays.get(&name) else {
        return Err(RpcError::new(code::INVALID_REQUEST, "The requested bdev is not a delay bdev."));
    };
    let (kind, key) = match asked.latency_type {
        LatencyType::AvgRead => (LatencyKind::AvgRead, "avg_read_latency"),
        LatencyType::P99Read => (LatencyKind::P99Read, "p99_read_latency"),
        LatencyType::AvgWrite => (LatencyKind::AvgWrite, "avg_write_latency"),
        LatencyType::P99Write => (LatencyKind::P99Write, "p99_write_latency"),
    };
    delay.update(kind, asked.latency_us);
    core.configuration.change(&name, key, asked.latency_us.into());
    Ok(Value::Bool(true).into())
}
