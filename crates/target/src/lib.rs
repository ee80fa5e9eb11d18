//! The vhost-user target.

pub mod app;
pub mod control;
pub mod controller;
pub mod device;
pub mod events;
pub mod reactor;
pub mod session;
mod sys;
pub mod target;
