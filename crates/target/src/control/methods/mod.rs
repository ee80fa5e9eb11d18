//! The methods, by subject.

use super::method::Method;

mod bdevs;
mod files;
mod framework;
mod logging;
mod memory;
mod nvme;
mod settings;
mod stacked;
mod statistics;
mod vhost;

/// In the order in which `rpc_get_methods` lists them.
pub static TABLES: &[&[Method]] = &[
    framework::METHODS,
    logging::METHODS,
    settings::METHODS,
    bdevs::METHODS,
    memory::METHODS,
    files::METHODS,
    stacked::METHODS,
    nvme::METHODS,
    statistics::METHODS,
    vhost::METHODS,
];
