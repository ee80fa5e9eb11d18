//! The methods, by subject.

use super::method::Method;

mod framework;
mod logging;

/// In the order in which `rpc_get_methods` lists them.
pub static TABLES: &[&[Method]] = &[framework::METHODS, logging::METHODS];
