//! What a session needs of the device behind its socket and of the reactors.

use std::os::fd::OwnedFd;

use nvlane_ring::Queue;
use nvlane_vhost_user::features::protocol;

use crate::reactor::Log;

/// The most configuration space that a device has (VHOST_USER_MAX_CONFIG_SIZE).
pub const CONFIG_SIZE: usize = nvlane_vhost_user::MAX_CONFIG;

/// The device that a session connects a guest to.
///
/// Nothing here waits. A queue that was asked back with [`Owner::detach`] comes back by [`super::Session::detached`],
/// when all its requests have ended, however long that takes.
pub trait Owner {
    /// Features of the device, and RING_PACKED if packed rings may be used. What belongs to rings in general and to
    /// vhost-user is added by the session.
    fn features(&self) -> u64;

    /// Protocol features of the device.
    fn protocol_features(&self) -> u64 {
        protocol::STORAGE
    }

    /// How many queues a front end may use at most.
    fn queues(&self) -> u16;

    /// The configuration space as it is now. What is left of [`CONFIG_SIZE`] reads as zeroes.
    fn config(&self) -> Vec<u8>;

    /// The guest, or with `migration` its front end, writes to the configuration space. False: not there.
    fn set_config(&mut self, offset: u32, bytes: &[u8], migration: bool) -> bool;

    /// Has a queue served from now on.
    ///
    /// # Errors
    /// A sentence that says why not.
    fn attach(&mut self, queue: u16, parts: QueueParts) -> Result<(), String>;

    /// Takes nothing more from a queue and gives it back when it is drained.
    fn detach(&mut self, queue: u16);

    /// Changes the notifiers of a queue that is served.
    fn set_call(&mut self, queue: u16, call: Option<OwnedFd>);
    fn set_err(&mut self, queue: u16, err: Option<OwnedFd>);

    /// No queue of a session that has ended is still being drained. Until then another session may not take up the
    /// in-flight record of that one: what it would submit again may yet end.
    fn is_quiet(&self) -> bool;
}

/// All that makes a queue.
pub struct QueueParts {
    pub ring: Queue,
    /// What was agreed on.
    pub features: u64,
    /// None: the front end does not kick, the queue has to be polled.
    pub kick: Option<OwnedFd>,
    pub call: Option<OwnedFd>,
    pub err: Option<OwnedFd>,
    pub log: Option<Log>,
}
