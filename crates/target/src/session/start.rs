//! Rings that have all they need are handed to a reactor.

use nvlane_ring::{Addresses, Log as RingLog, Queue, QueueConfig, VringBase};
use nvlane_vhost_user::features;

use super::owner::{Owner, QueueParts};
use super::state::{State, duplicate};
use super::vring::{Kick, Place, Vring};
use crate::reactor::Log;
use crate::sys;

impl State {
    /// Starts every queue that is complete and not served. A queue that cannot be started says so on its error
    /// descriptor and is left alone until the front end changes something.
    ///
    /// # Errors
    /// The last queue's reason.
    pub fn start(&mut self, owner: &mut dyn Owner) -> Result<(), String> {
        let mut result = Ok(());
        if self.memory.regions().is_empty() {
            return result;
        }
        for index in 0..self.vrings.len() {
            let vring = &self.vrings[index];
            if vring.place != Place::Here || !vring.is_complete() {
                continue;
            }
            let queue = index as u16;
            match self.parts(queue).and_then(|parts| owner.attach(queue, parts)) {
                Ok(()) => self.vrings[index].place = Place::Reactor,
                Err(why) => {
                    let vring = &mut self.vrings[index];
                    vring.broken = true;
                    if let Some(err) = &vring.err {
                        sys::raise(std::os::fd::AsFd::as_fd(err));
                    }
                    result = Err(format!("queue {queue} is not started: {why}"));
                }
            }
        }
        result
    }

    fn parts(&self, queue: u16) -> Result<QueueParts, String> {
        let vring = &self.vrings[usize::from(queue)];
        let config = self.config(queue, vring)?;
        let logs = config.log.is_some();
        let ring = Queue::new(config).map_err(|error| error.to_string())?;
        let kick = match &vring.kick {
            Kick::Event(event) => {
                Some(event.try_clone().map_err(|error| format!("no descriptor is left: {error}"))?)
            }
            Kick::Poll | Kick::Unset => None,
        };
        let log = self.log.as_ref().filter(|_| logs);
        Ok(QueueParts {
            ring,
            features: self.features,
            kick,
            call: duplicate(&vring.call)?,
            err: duplicate(&vring.err)?,
            log: log.map(|pages| Log { pages: pages.clone(), memory: self.memory.clone() }),
        })
    }

    fn config(&self, queue: u16, vring: &Vring) -> Result<QueueConfig, String> {
        let agreed = |feature: u64| self.features & feature != 0;
        let address = vring.address.ok_or("its addresses were not sent")?;
        let layout = self.layout();
        let guest = |user: u64| {
            let guest = self.memory.user_to_guest(user);
            guest.ok_or_else(|| format!("the ring address {user:#x} is in no memory region"))
        };
        let log = self.log.as_ref().filter(|_| agreed(features::LOG_ALL)).map(|log| RingLog {
            log: log.clone(),
            used_address: (address.flags & features::VRING_LOG != 0).then_some(address.log),
        });
        let size = u16::try_from(vring.size).map_err(|_| format!("its size {} is too large", vring.size))?;
        let inflight = match &self.inflight {
            Some(record) => Some(record.queue(queue).ok_or("the in-flight record has no place for it")?),
            None => None,
        };
        Ok(QueueConfig {
            layout,
            size,
            addresses: Addresses {
                descriptors: guest(address.descriptor)?,
                driver: guest(address.available)?,
                device: guest(address.used)?,
            },
            event_idx: agreed(features::EVENT_IDX),
            indirect: agreed(features::INDIRECT_DESC),
            memory: self.memory.clone(),
            inflight,
            log,
            base: vring.base.map_or(VringBase::start(layout), VringBase),
        })
    }
}
