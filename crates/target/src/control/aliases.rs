//! Names from before SPDK 22.05. They were dropped there, and old guides still use them.
//!
//! The keys in brackets are older still: `scsi_dev_num` and `lun_name` up to 18.01, `fname` up to 17.10.

use super::method::Alias;

const fn alias(old: &'static str, method: &'static str) -> Alias {
    Alias { old, method, keys: &[] }
}

const fn renamed(
    old: &'static str,
    method: &'static str,
    keys: &'static [(&'static str, &'static str)],
) -> Alias {
    Alias { old, method, keys }
}

pub static ALIASES: &[Alias] = &[
    alias("construct_malloc_bdev", "bdev_malloc_create"),
    alias("delete_malloc_bdev", "bdev_malloc_delete"),
    alias("construct_null_bdev", "bdev_null_create"),
    alias("delete_null_bdev", "bdev_null_delete"),
    renamed("construct_aio_bdev", "bdev_aio_create", &[("fname", "filename")]),
    alias("delete_aio_bdev", "bdev_aio_delete"),
    alias("construct_error_bdev", "bdev_error_create"),
    alias("delete_error_bdev", "bdev_error_delete"),
    alias("bdev_inject_error", "bdev_error_inject_error"),
    alias("construct_nvme_bdev", "bdev_nvme_attach_controller"),
    alias("delete_nvme_controller", "bdev_nvme_detach_controller"),
    alias("get_nvme_controllers", "bdev_nvme_get_controllers"),
    alias("set_bdev_nvme_options", "bdev_nvme_set_options"),
    alias("set_bdev_nvme_hotplug", "bdev_nvme_set_hotplug"),
    alias("set_bdev_options", "bdev_set_options"),
    alias("set_bdev_qos_limit", "bdev_set_qos_limit"),
    alias("get_bdevs", "bdev_get_bdevs"),
    // One name until 26.01, a list since.
    renamed("get_bdevs_iostat", "bdev_get_iostat", &[("name", "names[]")]),
    alias("construct_vhost_scsi_controller", "vhost_create_scsi_controller"),
    renamed(
        "add_vhost_scsi_lun",
        "vhost_scsi_controller_add_target",
        &[("scsi_dev_num", "scsi_target_num"), ("lun_name", "bdev_name")],
    ),
    alias("remove_vhost_scsi_target", "vhost_scsi_controller_remove_target"),
    renamed(
        "remove_vhost_scsi_dev",
        "vhost_scsi_controller_remove_target",
        &[("scsi_dev_num", "scsi_target_num")],
    ),
    alias("construct_vhost_blk_controller", "vhost_create_blk_controller"),
    alias("remove_vhost_controller", "vhost_delete_controller"),
    alias("get_vhost_controllers", "vhost_get_controllers"),
    alias("set_vhost_controller_coalescing", "vhost_controller_set_coalescing"),
    alias("get_subsystems", "framework_get_subsystems"),
    alias("get_subsystem_config", "framework_get_config"),
    alias("start_subsystem_init", "framework_start_init"),
    alias("wait_subsystem_init", "framework_wait_init"),
    alias("get_rpc_methods", "rpc_get_methods"),
    alias("get_spdk_version", "spdk_get_version"),
    alias("kill_instance", "spdk_kill_instance"),
    alias("get_log_level", "log_get_level"),
    alias("set_log_level", "log_set_level"),
    alias("get_log_print_level", "log_get_print_level"),
    alias("set_log_print_level", "log_set_print_level"),
    alias("get_log_flags", "log_get_flags"),
    alias("set_log_flag", "log_set_flag"),
    alias("clear_log_flag", "log_clear_flag"),
];
