//! `malloc` and `null` bdevs.

use std::sync::Arc;

use nvlane_bdev::{BdevError, Info, Malloc, Null, Uuid};
use serde::Deserialize;
use serde_json::json;

use super::bdevs::{bdev_error, delete, resize_to, uuid};
use crate::control::configuration::Call;
use crate::control::core::Core;
use crate::control::message::RpcError;
use crate::control::method::{Method, Outcome};
use crate::control::parameters::{Parameters, Refusal, given};

pub static METHODS: &[Method] = &[
    Method::saving("bdev_malloc_create", malloc_create),
    Method::saving("bdev_malloc_delete", malloc_delete),
    Method::saving("bdev_malloc_resize", malloc_resize),
    Method::saving("bdev_null_create", null_create),
    Method::saving("bdev_null_delete", null_delete),
    Method::saving("bdev_null_resize", null_resize),
];

const MALLOC: &str = "bdev_malloc_create";
const NULL: &str = "bdev_null_create";
const MIB: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MallocCreate {
    #[serde(default, deserialize_with = "given")]
    name: Option<String>,
    num_blocks: u64,
    block_size: u32,
    #[serde(default, deserialize_with = "uuid")]
    uuid: Option<Uuid>,
    #[serde(default)]
    physical_block_size: u32,
    #[serde(default)]
    optimal_io_boundary: u32,
    #[serde(default)]
    md_size: u32,
    #[serde(default)]
    md_interleave: bool,
    #[serde(default)]
    dif_type: i32,
    #[serde(default)]
    dif_is_head_of_md: bool,
    #[serde(default)]
    dif_pi_format: u32,
    #[serde(default, deserialize_with = "given")]
    numa_id: Option<i32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NullCreate {
    name: String,
    num_blocks: u64,
    block_size: u32,
    #[serde(default, deserialize_with = "uuid")]
    uuid: Option<Uuid>,
    #[serde(default)]
    physical_block_size: u32,
    #[serde(default)]
    md_size: u32,
    #[serde(default)]
    dif_type: i32,
    #[serde(default)]
    dif_is_head_of_md: bool,
    #[serde(default)]
    dif_pi_format: u32,
    #[serde(default)]
    preferred_write_granularity: u32,
    #[serde(default)]
    preferred_write_alignment: u32,
    #[serde(default)]
    optimal_write_size: u32,
    #[serde(default)]
    preferred_unmap_granularity: u32,
    #[serde(default)]
    preferred_unmap_alignment: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resize {
    name: String,
    /// MiB, as SPDK's `bdev_null_resize` counts.
    new_size: u64,
}

fn invalid(why: String) -> RpcError {
    RpcError::errno(libc::EINVAL).with(why)
}

/// What both kinds check alike, as SPDK does, with its errors.
fn check(
    block_size: u32,
    physical: u32,
    blocks: u64,
    metadata: u32,
    protection: i32,
) -> Result<(), RpcError> {
    if metadata != 0 || protection != 0 {
        return Err(invalid(
            "metadata and protection information (md_size, dif_type) are not offered".into(),
        ));
    }
    if block_size == 0 || block_size % 512 != 0 || physical % 512 != 0 {
        return Err(invalid(format!("block sizes are multiples of 512, unlike {block_size} or {physical}")));
    }
    if blocks == 0 {
        return Err(invalid("num_blocks is 0".into()));
    }
    if blocks.checked_mul(u64::from(block_size)).is_none_or(|bytes| bytes > i64::MAX as u64) {
        return Err(invalid(format!(
            "{blocks} blocks of {block_size} bytes are more than a device can have"
        )));
    }
    Ok(())
}

fn info(name: &str, uuid: Option<Uuid>, block_size: u32, physical: u32) -> Result<Info, BdevError> {
    let uuid = uuid.map_or_else(Uuid::random, Ok)?;
    let physical_block_size = if physical == 0 { block_size } else { physical };
    Ok(Info { physical_block_size, ..Info::new(name, uuid, block_size) })
}

fn malloc_create(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let asked: MallocCreate = parameters.decode(Refusal::Internal)?;
    check(asked.block_size, asked.physical_block_size, asked.num_blocks, asked.md_size, asked.dif_type)?;
    if asked.numa_id.is_some_and(|node| node > 0) {
        return Err(invalid("memory on a node of one's choice (numa_id) is not offered".into()));
    }
    // Without metadata these have no meaning, as with SPDK, and `optimal_io_boundary` is advice that a copy needs not.
    let _ = (asked.md_interleave, asked.dif_is_head_of_md, asked.dif_pi_format, asked.optimal_io_boundary);
    let name = match asked.name {
        Some(name) => name,
        None => core.free_name("Malloc"),
    };
    core.check_new(&name)?;
    let bytes = asked.num_blocks * u64::from(asked.block_size);
    core.check_memory(bytes)?;
    let info = info(&name, asked.uuid, asked.block_size, asked.physical_block_size).map_err(bdev_error)?;
    let call = Call::new(
        MALLOC,
        json!({
            "name": name,
            "num_blocks": asked.num_blocks,
            "block_size": asked.block_size,
            "physical_block_size": info.physical_block_size,
            "uuid": info.uuid.to_string(),
        }),
    );
    // Memory is zeroed page by page, which takes a third of a second a gigabyte.
    Ok(Outcome::Work(Box::new(move || {
        let made = Malloc::new(info, asked.num_blocks);
        Box::new(move |core| {
            let bdev = made.map_err(bdev_error)?;
            core.add_bdev(Arc::new(bdev), None, call)?;
            Ok(json!(name))
        })
    })))
}

fn malloc_delete(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    delete(core, parameters, MALLOC, Refusal::Internal)
}

/// SPDK has no such method for malloc bdevs; the parameters are those of `bdev_null_resize`.
fn malloc_resize(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let asked: Resize = parameters.decode(Refusal::Internal)?;
    let bdev = core.made_bdev(&asked.name, MALLOC)?;
    let bytes = asked.new_size.checked_mul(MIB).filter(|bytes| *bytes > 0);
    let bytes = bytes.ok_or_else(|| invalid(format!("a size of {} MiB", asked.new_size)))?;
    core.check_memory(bytes.saturating_sub(bdev.bytes()))?;
    resize_to(bdev, bytes)
}

fn null_create(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let asked: NullCreate = parameters.decode(Refusal::Internal)?;
    check(asked.block_size, asked.physical_block_size, asked.num_blocks, asked.md_size, asked.dif_type)?;
    let _ = (asked.dif_is_head_of_md, asked.dif_pi_format);
    let _ =
        (asked.preferred_write_granularity, asked.preferred_write_alignment, asked.preferred_unmap_alignment);
    core.check_new(&asked.name)?;
    let mut info =
        info(&asked.name, asked.uuid, asked.block_size, asked.physical_block_size).map_err(bdev_error)?;
    info.optimal_write_size = asked.optimal_write_size;
    info.unmap_granularity = asked.preferred_unmap_granularity;
    let call = Call::new(
        NULL,
        json!({
            "name": asked.name,
            "num_blocks": asked.num_blocks,
            "block_size": asked.block_size,
            "physical_block_size": info.physical_block_size,
            "uuid": info.uuid.to_string(),
            "optimal_write_size": asked.optimal_write_size,
            "preferred_unmap_granularity": asked.preferred_unmap_granularity,
        }),
    );
    let bdev = Null::new(info, asked.num_blocks).map_err(bdev_error)?;
    core.add_bdev(Arc::new(bdev), None, call)?;
    Ok(json!(asked.name).into())
}

fn null_delete(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    delete(core, parameters, NULL, Refusal::Internal)
}

fn null_resize(core: &mut Core, parameters: &Parameters) -> Result<Outcome, RpcError> {
    let asked: Resize = parameters.decode(Refusal::Internal)?;
    let bdev = core.bdev(&asked.name)?;
    if core.configuration.maker(&bdev.info().name) != Some(NULL) {
        return Err(invalid(format!("{} is no null bdev", asked.name)));
    }
    let bytes = asked.new_size.checked_mul(MIB).filter(|bytes| *bytes > 0 && *bytes <= i64::MAX as u64);
    let bytes = bytes.ok_or_else(|| invalid(format!("a size of {} MiB", asked.new_size)))?;
    if asked.new_size < bdev.bytes() / MIB {
        return Err(invalid("a null bdev cannot shrink".into()));
    }
    resize_to(bdev, bytes)
}
