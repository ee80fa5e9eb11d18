//! The vhost-user target.

pub mod app;
pub mod control;
