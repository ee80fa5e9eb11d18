//! Settings of SPDK that have no counterpart here: sizes of its buffer pools, its sockets, its scheduler. A
//! configuration that SPDK has saved is full of them, and it shall load. They are decoded, said in the log to change
//! nothing, and forgotten.

use serde_json::json;

use crate::control::core::Core;
use crate::control::message::RpcError;
use crate::control::method::{Method, Outcome, When};
use crate::control::parameters::Type::{self, Flag, Text, Unsigned};
use crate::control::parameters::{Parameters, Refusal};

macro_rules! setting {
    ($name:literal, $when:ident, $table:expr) => {
        Method::new($name, When::$when, |_: &mut Core, parameters: &Parameters| {
            pass_over($name, $table, parameters)
        })
    };
}

/// Keys and types as in SPDK's schema (schema/schema.yaml).
pub static METHODS: &[Method] = &[
    setting!(
        "bdev_set_options",
        Startup,
        &[
            ("bdev_io_pool_size", Unsigned(32)),
            ("bdev_io_cache_size", Unsigned(32)),
            ("bdev_auto_examine", Flag),
            ("iobuf_small_cache_size", Unsigned(32)),
            ("iobuf_large_cache_size", Unsigned(32)),
        ]
    ),
    setting!(
        "bdev_raid_set_options",
        Always,
        &[("process_window_size_kb", Unsigned(32)), ("process_max_bandwidth_mb_sec", Unsigned(32)),]
    ),
    setting!("bdev_iscsi_set_options", Always, &[("timeout_sec", Unsigned(64)),]),
    setting!(
        "iobuf_set_options",
        Startup,
        &[
            ("small_pool_count", Unsigned(64)),
            ("large_pool_count", Unsigned(64)),
            ("small_bufsize", Unsigned(32)),
            ("large_bufsize", Unsigned(32)),
            ("enable_numa", Flag),
        ]
    ),
    setting!("sock_set_default_impl", Startup, &[("impl_name", Text),]),
    setting!(
        "sock_impl_set_options",
        Startup,
        &[
            ("impl_name", Text),
            ("recv_buf_size", Unsigned(32)),
            ("send_buf_size", Unsigned(32)),
            ("enable_recv_pipe", Flag),
            ("enable_quickack", Flag),
            ("enable_placement_id", Unsigned(32)),
            ("enable_zerocopy_send_server", Flag),
            ("enable_zerocopy_send_client", Flag),
            ("zerocopy_threshold", Unsigned(32)),
            ("tls_version", Unsigned(32)),
            ("enable_ktls", Flag),
        ]
    ),
    setting!(
        "accel_set_options",
        Startup,
        &[
            ("small_cache_size", Unsigned(32)),
            ("large_cache_size", Unsigned(32)),
            ("task_count", Unsigned(32)),
            ("sequence_count", Unsigned(32)),
            ("buf_count", Unsigned(32)),
        ]
    ),
    setting!(
        "framework_set_scheduler",
        Always,
        &[
            ("name", Text),
            ("period", Unsigned(64)),
            ("load_limit", Unsigned(8)),
            ("core_limit", Unsigned(8)),
            ("core_busy", Unsigned(8)),
            ("mappings", Text),
        ]
    ),
    setting!(
        "scheduler_set_options",
        Startup,
        &[("scheduling_core", Unsigned(32)), ("isolated_core_mask", Text),]
    ),
];

fn pass_over(method: &str, table: &[(&str, Type)], parameters: &Parameters) -> Result<Outcome, RpcError> {
    parameters.members(table, Refusal::Internal)?;
    log::debug!("{method} has no counterpart here and changes nothing");
    Ok(json!(true).into())
}
