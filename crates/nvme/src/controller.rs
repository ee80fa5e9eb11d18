//! A controller, seen from the control thread.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::admin::Admin;
use crate::bringup::{Identity, bring_up, find_namespaces};
use crate::inbox::{Inbox, Message};
use crate::link::Link;
use crate::queue::{Limits, Qpair};
use crate::quiesce::quiesce;
use crate::spec::{Capabilities, IdentifyController, Version};
use crate::supervisor::Supervisor;
use crate::{Device, Event, Namespace, NvmeError, Options};

/// What a controller said of itself when it was attached.
#[derive(Clone, Debug)]
pub struct ControllerInfo {
    pub address: String,
    pub capabilities: Capabilities,
    pub version: Version,
    pub identify: IdentifyController,
    /// I/O queue pairs that it gives.
    pub queues: u16,
    /// Entries of each.
    pub queue_entries: u16,
    pub shadow_doorbells: bool,
    pub vectors: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    Enabled,
    Resetting,
    Failed,
    /// Unplugged, or wanted back by the system.
    Gone,
    Detached,
}

/// What the supervisor and the control thread both look at.
pub(crate) struct Shared {
    pub info: ControllerInfo,
    pub limits: Limits,
    pub namespaces: Mutex<Vec<Arc<Namespace>>>,
    pub unusable: Mutex<Vec<String>>,
    pub inbox: Arc<Inbox>,
    /// Which queue identifiers are taken; index 0 is the admin queue's.
    queues: Mutex<Vec<bool>>,
    state: AtomicU8,
}

impl Shared {
    pub fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            0 => State::Enabled,
            1 => State::Resetting,
            2 => State::Failed,
            3 => State::Gone,
            _ => State::Detached,
        }
    }

    pub fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    fn take_queue(&self) -> Option<u16> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let free = queues.iter().position(|taken| !taken)?;
        queues[free] = true;
        u16::try_from(free).ok()
    }

    pub fn give_queue(&self, queue: u16) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = queues.get_mut(usize::from(queue)) {
            *taken = false;
        }
    }
}

/// A controller that we drive. Dropping it shuts the controller down, as `detach` does.
pub struct Controller {
    shared: Arc<Shared>,
    options: Options,
    supervisor: Option<JoinHandle<()>>,
}

impl Controller {
    /// Takes the device over. It takes as long as the controller needs to get ready (seconds): not for a thread that
    /// others wait for.
    ///
    /// # Errors
    /// Why it cannot be driven; the device is left disabled.
    pub fn attach(
        device: Arc<dyn Device>,
        options: Options,
        listener: Box<dyn Fn(Event) + Send>,
    ) -> Result<Self, NvmeError> {
        let mut admin = Admin::new(device.clone(), &options)?;
        let started = bring_up(&device, &mut admin, &options)
            .and_then(|identity| find_namespaces(&mut admin, &identity).map(|found| (identity, found)));
        let (identity, found) = match started {
            Ok(started) => started,
            Err(error) => {
                // The admin queue's memory must not go before the device has let it go.
                if quiesce(&*device, &options).is_err() {
                    std::mem::forget(admin);
                }
                return Err(error);
            }
        };
        let inbox = Arc::new(Inbox::new()?);
        let shared = Arc::new(Shared {
            info: describe(&*device, &identity, &options),
            limits: identity.queue_limits(&options),
            namespaces: Mutex::new(found.namespaces.into_iter().map(Arc::new).collect()),
            unusable: Mutex::new(found.unusable),
            queues: Mutex::new((0..=identity.queues).map(|queue| queue == 0).collect()),
            inbox,
            state: AtomicU8::new(State::Enabled as u8),
        });
        let supervisor = Supervisor::new(device, admin, identity, shared.clone(), options.clone(), listener);
        let thread = std::thread::Builder::new()
            .name(format!("nvme {}", shared.info.address))
            .spawn(move || supervisor.run())
            .map_err(|error| NvmeError::system("no thread for a controller's supervisor", &error))?;
        Ok(Self { shared, options, supervisor: Some(thread) })
    }

    pub fn info(&self) -> &ControllerInfo {
        &self.shared.info
    }

    pub fn state(&self) -> State {
        self.shared.state()
    }

    /// The namespaces that can be served now.
    pub fn namespaces(&self) -> Vec<Arc<Namespace>> {
        self.shared.namespaces.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why others cannot: a sentence for each.
    pub fn unusable(&self) -> Vec<String> {
        self.shared.unusable.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A queue pair for a namespace, for one reactor. It waits for the controller to make it.
    ///
    /// # Errors
    /// ENODEV without such a namespace; EBUSY when all queues are in use; what the controller says.
    pub fn open(&self, namespace: u32) -> Result<Qpair, NvmeError> {
        let address = &self.shared.info.address;
        let found = self.namespaces().into_iter().find(|each| each.id == namespace).ok_or_else(|| {
            NvmeError::new(libc::ENODEV, format!("{address} has no namespace {namespace} that can be served"))
        })?;
        let queue = self.shared.take_queue().ok_or_else(|| {
            NvmeError::new(
                libc::EBUSY,
                format!("all {} I/O queues of {address} are in use", self.shared.info.queues),
            )
        })?;
        let vector = Some(queue).filter(|&vector| vector < self.shared.info.vectors);
        let made = Link::new(queue, self.shared.info.queue_entries, vector, self.shared.inbox.clone())
            .and_then(|link| {
                let link = Arc::new(link);
                Qpair::new(link.clone(), found, self.shared.limits).map(|qpair| (link, qpair))
            });
        // From here on dropping the queue pair gives everything back.
        let (link, mut qpair) = made.inspect_err(|_| self.shared.give_queue(queue))?;
        let (reply, answer) = sync_channel(1);
        self.shared.inbox.send(Message::Open { link, reply });
        // The supervisor may be in the middle of a reset, of which each step has its own deadline.
        let limit = 4 * self.options.admin_timeout;
        answer.recv_timeout(limit).unwrap_or_else(|_| {
            Err(NvmeError::new(libc::ETIMEDOUT, format!("{address}: no I/O queue within {limit:?}")))
        })?;
        qpair.listen();
        Ok(qpair)
    }

    /// Resets the controller under its queues: what is in flight is sent again.
    ///
    /// # Errors
    /// When it did not come back; requests fail then.
    pub fn reset(&self, limit: Duration) -> Result<(), NvmeError> {
        let (reply, answer) = sync_channel(1);
        self.shared.inbox.send(Message::Reset { reply });
        answer.recv_timeout(limit).unwrap_or_else(|_| {
            Err(NvmeError::new(
                libc::ETIMEDOUT,
                format!("{}: the reset was not over within {limit:?}", self.shared.info.address),
            ))
        })
    }

    /// Deletes the queues, tells the controller to shut down, lets the device go. Queue pairs that still exist fail
    /// what they are asked. It waits for the controller: up to `Options::shutdown` and more.
    pub fn detach(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(thread) = self.supervisor.take() {
            self.shared.inbox.send(Message::Detach);
            // A panic there was printed by its own thread.
            let _ = thread.join();
        }
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.end();
    }
}

fn describe(device: &dyn Device, identity: &Identity, options: &Options) -> ControllerInfo {
    let entries = identity.capabilities.max_queue_entries().min(u32::from(options.queue_entries.max(4)));
    ControllerInfo {
        address: device.address().to_owned(),
        capabilities: identity.capabilities,
        version: identity.version,
        identify: identity.controller.clone(),
        queues: identity.queues,
        queue_entries: u16::try_from(entries).unwrap_or(u16::MAX),
        shadow_doorbells: identity.shadows.is_some(),
        vectors: device.vectors(),
    }
}
