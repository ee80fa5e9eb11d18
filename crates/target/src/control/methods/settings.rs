//! Settings of SPDK that have no counterpart here: sizes of its buffer pools, its sockets, its scheduler. A
//! configuration that SPDK has saved is full of them, and it shall load. They are decoded, said in the log to change
//! nothing, and forgotten.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::control::core::Core;
use crate::control::message::RpcError;
use crate::control::method::{Method, Outcome, When};
use crate::control::parameters::{Parameters, Refusal};

macro_rules! setting {
    ($name:literal, $when:ident, $keys:expr) => {
        Method::new($name, When::$when, |_: &mut Core, parameters: &Parameters| {
            pass_over($name, $keys, parameters)
        })
    };
}

pub static METHODS: &[Method] = &[
    setting!(
        "bdev_set_options",
        Startup,
        &[
            "bdev_io_pool_size",
            "bdev_io_cache_size",
            "bdev_auto_examine",
            "iobuf_small_cache_size",
            "iobuf_large_cache_size"
        ]
    ),
    setting!("bdev_raid_set_options", Always, &["process_window_size_kb", "process_max_bandwidth_mb_sec"]),
    setting!("bdev_iscsi_set_options", Always, &["timeout_sec"]),
    setting!(
        "iobuf_set_options",
        Startup,
        &["small_pool_count", "large_pool_count", "small_bufsize", "large_bufsize", "enable_numa"]
    ),
    setting!("sock_set_default_impl", Startup, &["impl_name"]),
    setting!(
        "sock_impl_set_options",
        Startup,
        &[
            "impl_name",
            "recv_buf_size",
            "send_buf_size",
            "enable_recv_pipe",
            "enable_quickack",
            "enable_placement_id",
            "enable_zerocopy_send_server",
            "enable_zerocopy_send_client",
            "zerocopy_threshold",
            "tls_version",
            "enable_ktls"
        ]
    ),
    setting!(
        "accel_set_options",
        Startup,
        &["small_cache_size", "large_cache_size", "task_count", "sequence_count", "buf_count"]
    ),
    setting!(
        "framework_set_scheduler",
        Always,
        &["name", "period", "load_limit", "core_limit", "core_busy", "mappings"]
    ),
    setting!("scheduler_set_options", Startup, &["scheduling_core", "isolated_core_mask"]),
];

fn pass_over(method: &str, keys: &[&str], parameters: &Parameters) -> Result<Outcome, RpcError> {
    let given: BTreeMap<String, Value> = parameters.decode(Refusal::Internal)?;
    if let Some(unknown) = given.keys().find(|key| !keys.contains(&key.as_str())) {
        return Err(Refusal::Internal.error(format!("{method} has no parameter {unknown}")));
    }
    log::debug!("{method} has no counterpart here and changes nothing");
    Ok(json!(true).into())
}
