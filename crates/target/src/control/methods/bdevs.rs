//! Methods of all bdevs, whatever their driver.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nvlane_bdev::{Bdev, BdevError, Limits, Uuid};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::control::core::Core;
use crate::control::message::RpcError;
use crate::control::method::{Method, Outcome, Wait, When};
use crate::control::parameters::{Parameters, Refusal, given};

pub static METHODS: &[Method] = &[
    Method::new("bdev_get_bdevs", When::Runtime, get_bdevs),
    Method::saving("bdev_set_qos_limit", set_qos_limit),
    Method::new("bdev_wait_for_examine", When::Runtime, wait_for_examine),
];

pub fn bdev_error(error: BdevError) -> RpcError {
    RpcError::errno(error.errno).with(error.message)
}

/// An optional UUID; the null UUID is none, as with SPDK.
pub fn uuid<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Uuid>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let uuid: Uuid = text.parse().map_err(|error: BdevError| serde::de::Error::custom(error.message))?;
    Ok(Some(uuid).filter(|uuid| *uuid.bytes() != [0; 16]))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Name {
    pub name: String,
}

/// Deletes a bdev that `maker` made, with what stands on it.
pub fn delete(
    core: &mut Core,
    parameters: &Parameters,
    maker: &str,
    refusal: Refusal,
) -> Result<Outcome, RpcError> {
    let Name { name } = parameters.decode(refusal)?;
    if core.configuration.maker(&name).is_none() && core.configuration.forget_missing("name", &name) {
        return Ok(json!(true).into());
    }
    let bdev = core.made_bdev(&name, maker)?;
    core.delete_bdev(&bdev.info().name.clone())
}

/// Gives a bdev another size, on a worker thread: new memory is zeroed.
pub fn resize_to(bdev: Arc<dyn Bdev>, bytes: u64) -> Result<Outcome, RpcError> {
    let blocks = bytes / u64::from(bdev.info().block_size);
    Ok(Outcome::Work(Box::new(move || {
        let resized = bdev.resize(blocks);
        Box::new(move |core| {
            resized.map_err(bdev_error)?;
            core.resized(&bdev);
            Ok(json!(true))
        })
    })))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct GetBdevs {
    #[serde(default, deserialize_with = "given")]
    name: Option<String>,
    /// Milliseconds to wait for a bdev that is not there.
    #[serde(default)]
    timeout: u64,
}

fn get_bdevs(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let asked: GetBdevs = parameters.decode_or_default(Refusal::Internal)?;
    let Some(name) = asked.name else {
        let bdevs: Vec<Value> = core.bdevs().iter().map(|bdev| bdev.describe()).collect();
        return Ok(Value::from(bdevs).into());
    };
    match core.bdev(&name) {
        Ok(bdev) => Ok(json!([bdev.describe()]).into()),
        Err(error) if asked.timeout == 0 => Err(error),
        Err(_) => {
            let poll = move |core: &mut Core, expired: bool| match core.bdev(&name) {
                Ok(bdev) => Some(Ok(json!([bdev.describe()]))),
                Err(_) if expired => {
                    let why = format!("bdev {name} did not appear within {} ms", asked.timeout);
                    Some(Err(RpcError::errno(libc::ETIMEDOUT).with(why)))
                }
                Err(_) => None,
            };
            // A time that is further away than the clock reaches is for ever.
            let deadline = Instant::now().checked_add(Duration::from_millis(asked.timeout));
            Ok(Outcome::Wait(Wait { deadline, poll: Box::new(poll) }))
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetLimit {
    name: String,
    #[serde(default, deserialize_with = "given")]
    rw_ios_per_sec: Option<u64>,
    #[serde(default, deserialize_with = "given")]
    rw_mbytes_per_sec: Option<u64>,
    #[serde(default, deserialize_with = "given")]
    r_mbytes_per_sec: Option<u64>,
    #[serde(default, deserialize_with = "given")]
    w_mbytes_per_sec: Option<u64>,
}

fn set_qos_limit(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let asked: SetLimit = parameters.decode(Refusal::Internal)?;
    let bdev = core.bdev(&asked.name)?;
    let given =
        [asked.rw_ios_per_sec, asked.rw_mbytes_per_sec, asked.r_mbytes_per_sec, asked.w_mbytes_per_sec];
    if given.iter().all(Option::is_none) {
        return Err(RpcError::new(-libc::EINVAL, "No rate limits specified"));
    }
    // SPDK rounds requests up to a multiple of 1000 a second, and takes what would overflow as the most there can be.
    let ios = asked.rw_ios_per_sec.map(|ios| ios.checked_next_multiple_of(1000).unwrap_or(u64::MAX));
    let mebibytes = |asked: Option<u64>, now| asked.map_or(now, |limit: u64| limit.min(u64::MAX >> 20));
    let now = bdev.limits();
    let limits = Limits {
        rw_ios_per_sec: ios.unwrap_or(now.rw_ios_per_sec),
        rw_mbytes_per_sec: mebibytes(asked.rw_mbytes_per_sec, now.rw_mbytes_per_sec),
        r_mbytes_per_sec: mebibytes(asked.r_mbytes_per_sec, now.r_mbytes_per_sec),
        w_mbytes_per_sec: mebibytes(asked.w_mbytes_per_sec, now.w_mbytes_per_sec),
    };
    bdev.set_limits(limits);
    core.configuration.set_limits(&bdev.info().name, limits);
    Ok(json!(true).into())
}

/// There is nothing to examine: no bdev here makes others by itself.
fn wait_for_examine(_: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    parameters.none("bdev_wait_for_examine requires no parameters")?;
    Ok(json!(true).into())
}
