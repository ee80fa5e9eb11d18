//! NVMe controllers that are attached, and what they say by themselves.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use nvlane_bdev::Bdev;
use nvlane_bdev::nvme::{NvmeBdev, NvmeController, NvmeEvent, NvmeOptions};
use serde_json::json;

use super::core::{Core, target_error};
use super::message::{Reply, RpcError};
use crate::sys;

pub const ATTACH: &str = "bdev_nvme_attach_controller";

/// An event and the name of its controller.
type Said = (String, NvmeEvent);

pub struct Drives {
    controllers: BTreeMap<String, Arc<NvmeController>>,
    /// For controllers that are attached from now on.
    pub options: NvmeOptions,
    events: (mpsc::Sender<Said>, mpsc::Receiver<Said>),
    raised: Arc<OwnedFd>,
}

impl AsFd for Drives {
    /// Readable when a controller has said something.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.raised.as_fd()
    }
}

impl Drives {
    pub fn new() -> std::io::Result<Drives> {
        Ok(Drives {
            controllers: BTreeMap::new(),
            options: NvmeOptions::default(),
            events: mpsc::channel(),
            raised: Arc::new(sys::event()?),
        })
    }

    pub fn get(&self, name: &str) -> Option<&Arc<NvmeController>> {
        self.controllers.get(name)
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<NvmeController>> {
        self.controllers.values()
    }

    pub fn insert(&mut self, controller: NvmeController) {
        self.controllers.insert(controller.name().to_owned(), Arc::new(controller));
    }

    /// Forgets all controllers; whoever gets them lets them go, which takes its time.
    pub fn clear(&mut self) -> Vec<Arc<NvmeController>> {
        std::mem::take(&mut self.controllers).into_values().collect()
    }

    /// What a controller calls from its own thread.
    pub fn listener(&self, name: &str) -> Box<dyn Fn(NvmeEvent) + Send> {
        let (sender, raised, name) = (self.events.0.clone(), self.raised.clone(), name.to_owned());
        Box::new(move |event| {
            // Without a receiver the program is about to end.
            let _ = sender.send((name.clone(), event));
            sys::raise(raised.as_fd());
        })
    }

    fn heard(&self) -> Vec<Said> {
        sys::lower(self.raised.as_fd());
        self.events.1.try_iter().collect()
    }
}

/// A PCI address in full, from one that may leave out the domain (`spdk_pci_addr_parse` takes dots for colons, too).
pub fn address(text: &str) -> Option<String> {
    let (front, function) = text.rsplit_once('.')?;
    let parts: Vec<&str> = front.split([':', '.']).collect();
    let (domain, bus, device) = match parts[..] {
        [domain, bus, device] => (domain, bus, device),
        [bus, device] => ("0", bus, device),
        _ => return None,
    };
    let number = |text: &str, most: u32| {
        let digits = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        u32::from_str_radix(text, 16).ok().filter(|number| digits && *number <= most)
    };
    let (domain, bus) = (number(domain, 0xffff_ffff)?, number(bus, 0xff)?);
    let (device, function) = (number(device, 0x1f)?, number(function, 7)?);
    Some(format!("{domain:04x}:{bus:02x}:{device:02x}.{function}"))
}

/// Lets a controller go on a thread of its own: it is shut down with its last user, and that waits for the drive.
pub fn let_go<T: Send + 'static>(bdevs: T, controller: impl Send + 'static) -> Option<JoinHandle<()>> {
    let drop_both = move || {
        drop(bdevs);
        drop(controller);
    };
    std::thread::Builder::new().name("detach".into()).spawn(drop_both).ok()
}

/// A controller on its way out: its bdevs are taken away, their channels close, the drive is shut down.
pub struct Leaving {
    name: String,
    /// The bdevs of its namespaces.
    own: Vec<String>,
    /// Bdevs to remove, from the end.
    left: Vec<String>,
    removed: Vec<Arc<dyn Bdev>>,
    shutdown: Option<JoinHandle<()>>,
}

impl Leaving {
    pub fn new(name: String, own: Vec<String>, left: Vec<String>) -> Leaving {
        Leaving { name, own, left, removed: Vec::new(), shutdown: None }
    }

    /// The next step, if it can be taken; the reply once everything is done.
    pub fn go_on(&mut self, core: &mut Core, expired: bool) -> Option<Reply> {
        if let Some(shutdown) = &self.shutdown {
            return shutdown.is_finished().then(|| Ok(json!(true)));
        }
        while let Some(name) = self.left.last() {
            match core.target.remove_bdev(name) {
                // What stands on a namespace claims it for as long as it is held.
                Ok(bdev) if self.own.contains(name) => self.removed.push(bdev),
                Ok(_) => {}
                // A namespace that has gone by itself.
                Err(error) if error.errno == libc::ENODEV => {}
                Err(error) if error.errno == libc::EBUSY && !expired => return None,
                Err(error) => return Some(Err(target_error(error))),
            }
            core.delays.remove(name);
            core.errors.remove(name);
            core.configuration.remove_device(name);
            self.left.pop();
        }
        // The reactors let go of a bdev when its channels have closed.
        if !expired && self.removed.iter().any(|bdev| Arc::strong_count(bdev) > 1) {
            return None;
        }
        core.configuration.forget_call(ATTACH, &self.name);
        let Some(controller) = core.drives.controllers.remove(&self.name) else {
            let why = format!("{} was detached by somebody else meanwhile", self.name);
            return Some(Err(RpcError::errno(libc::ENODEV).with(why)));
        };
        self.shutdown = let_go(std::mem::take(&mut self.removed), controller);
        if self.shutdown.is_none() { Some(Ok(json!(true))) } else { None }
    }
}

impl Core {
    /// Controllers have said something.
    pub fn hear_drives(&mut self) {
        for (name, event) in self.drives.heard() {
            let bdev_name = |namespace: u32| format!("{name}n{namespace}");
            match event {
                NvmeEvent::Resized { namespace, blocks } => {
                    log::info!("{} has {blocks} blocks now", bdev_name(namespace));
                    if let Some(bdev) = self.target.bdev(&bdev_name(namespace)).cloned() {
                        self.resized(&bdev);
                    }
                }
                NvmeEvent::Added { namespace } => self.namespace_came(&name, namespace),
                NvmeEvent::Removed { namespace } => self.namespace_went(&bdev_name(namespace)),
                NvmeEvent::Reset { reason } => log::warn!("{name} was reset and works again: {reason}"),
                NvmeEvent::Failed(error) => log::error!("{name} does not work any more: {error}"),
                NvmeEvent::Gone => self.drive_gone(&name),
                NvmeEvent::Warning { critical_warning } => {
                    log::warn!("{name} warns (SMART critical warning {critical_warning:#04x})");
                }
                NvmeEvent::Note(note) => log::info!("{name}: {note}"),
            }
        }
    }

    fn namespace_came(&mut self, name: &str, namespace: u32) {
        let Some(bdev) = self.drives.get(name).and_then(|controller| controller.bdev(namespace)) else {
            return;
        };
        let bdev: Arc<NvmeBdev> = bdev;
        match self.target.add_bdev(bdev, Vec::new()) {
            Ok(()) => log::info!("{name}n{namespace} is there now"),
            Err(error) => log::error!("{name}n{namespace} came and cannot be served: {error}"),
        }
        self.list_namespaces(name);
    }

    /// Guests see their disk fail. The configuration keeps what used it: the namespace may come back.
    fn namespace_went(&mut self, bdev: &str) {
        log::warn!("{bdev} is gone");
        for name in self.configuration.stacked_on(bdev).iter().map(String::as_str).chain([bdev]) {
            self.delays.remove(name);
            self.errors.remove(name);
            if let Err(error) = self.target.remove_bdev(name) {
                log::warn!("{error}");
            }
        }
    }

    fn list_namespaces(&mut self, name: &str) {
        let Some(controller) = self.drives.get(name) else { return };
        let names = controller.bdevs().iter().map(|bdev| bdev.info().name.clone()).collect();
        self.configuration.set_bdevs(ATTACH, name, names);
    }

    /// It was pulled, or the system wants it back: it is let go, and stays in the configuration.
    fn drive_gone(&mut self, name: &str) {
        log::error!("the drive of {name} is gone");
        for bdev in self.configuration.made_by(ATTACH, name).unwrap_or_default().to_vec() {
            self.namespace_went(&bdev);
        }
        if let Some(controller) = self.drives.controllers.remove(name) {
            let_go((), controller);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_made_full() {
        for text in ["0000:05:00.0", "05:00.0", "0:5:0.0", "0000.05.00.0"] {
            assert_eq!(address(text).as_deref(), Some("0000:05:00.0"), "{text}");
        }
        assert_eq!(address("10000:e1:1f.7").as_deref(), Some("10000:e1:1f.7"));
        for bad in ["", "x", "05:00", "05:20.0", "05:00.8", "100:05:00:00.0", "05:+0.0", "/sys:00.0"] {
            assert_eq!(address(bad), None, "{bad}");
        }
    }
}
