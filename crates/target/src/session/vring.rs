//! One ring as its front end has described it so far.

use std::os::fd::OwnedFd;

use nvlane_vhost_user::VringAddress;

/// How the front end says that there is something in the ring.
#[derive(Debug, Default)]
pub enum Kick {
    /// It has not said: the ring is stopped.
    #[default]
    Unset,
    /// It does not say: the ring is to be polled.
    Poll,
    Event(OwnedFd),
}

/// Whether a reactor has the ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    #[default]
    Here,
    Reactor,
    /// Asked back and not yet drained.
    Returning,
}

#[derive(Debug, Default)]
pub struct Vring {
    pub size: u32,
    pub address: Option<VringAddress>,
    /// Where to go on, as the front end or the last life of the ring has said.
    pub base: Option<u32>,
    pub kick: Kick,
    pub call: Option<OwnedFd>,
    pub err: Option<OwnedFd>,
    pub enabled: bool,
    pub place: Place,
    /// It could not be started as it is; nothing is tried until the front end changes something.
    pub broken: bool,
}

impl Vring {
    /// All has been said that is needed to serve the ring (but the memory it lies in).
    pub fn is_complete(&self) -> bool {
        self.enabled
            && !self.broken
            && self.size > 0
            && self.address.is_some()
            && !matches!(self.kick, Kick::Unset)
    }

    /// Stops it until the next SET_VRING_KICK.
    pub fn stop(&mut self) {
        self.kick = Kick::Unset;
    }

    /// As it was before the front end said anything; notifiers stay, since front ends send them once.
    pub fn reset(&mut self) {
        self.stop();
        self.size = 0;
        self.address = None;
        self.base = None;
        self.enabled = false;
        self.broken = false;
    }
}
