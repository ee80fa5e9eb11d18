//! The vhost-user target.

pub mod app;
pub mod control;
pub mod device;
pub mod events;
pub mod reactor;
mod sys;
