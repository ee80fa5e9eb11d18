//! The control plane: JSON-RPC 2.0 on a UNIX socket, with SPDK's methods, parameters, replies and error codes, so that
//! SPDK's client and people's scripts drive this target.
//!
//! A byte's way in: [`server`] reads, [`inbox`] cuts the stream into texts with [`scan`], [`message`] makes calls of
//! them, [`method`] finds what is called, one of [`methods`] decodes its [`parameters`] and does it. Whatever it comes
//! to goes out through the [`client`] that asked, at once or when a worker or an event has it.

mod aliases;
mod client;
pub mod configuration;
pub mod core;
pub mod cpumask;
pub mod drives;
pub mod fuzz;
pub mod inbox;
pub mod load;
pub mod message;
pub mod method;
mod methods;
pub mod metrics;
pub mod parameters;
pub mod saver;
pub mod scan;
pub mod server;
pub mod sockets;

/// All methods, and the aliases of those that have some.
pub fn methods() -> method::Methods {
    method::Methods::new(methods::TABLES, aliases::ALIASES)
}

/// All methods and their old names.
pub fn table() -> method::Methods {
    method::Methods::new(methods::TABLES, aliases::ALIASES)
}
