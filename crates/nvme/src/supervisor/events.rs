//! What a controller says by itself: asynchronous events (5.2), and namespaces that are not as they were.

use std::sync::{Arc, PoisonError};

use super::Supervisor;
use crate::bringup::{Found, find_namespaces};
use crate::spec::{AsyncEvent, Command, EventKind, HealthLog, LOG_CHANGED_NAMESPACES, LOG_HEALTH};
use crate::{Event, Namespace, NvmeError};

const EVENTS_AT_ONCE: usize = 16;

impl Supervisor {
    pub(super) fn look_for_events(&mut self) {
        // Not for ever: a device may send one after the other, and others want something too.
        for _ in 0..EVENTS_AT_ONCE {
            let Ok(Some(result)) = self.admin(|live| live.admin.take_event()) else { return };
            let event = AsyncEvent::parse(result);
            let handled = match event.kind {
                EventKind::NamespaceAttributeChanged => self.namespaces_changed(),
                EventKind::Health(_) => self.health_changed(),
                // Reading the page re-enables the event (5.2).
                kind => self
                    .admin(|live| {
                        let command = Command::get_log_page(event.log_page, live.admin.data(), 512);
                        live.admin.read_page("Get Log Page", &command)
                    })
                    .map(|_| self.note(format!("the controller reports {kind:?}"))),
            };
            if let Err(error) = handled {
                self.note(error.message);
            }
            if let Some(live) = &mut self.live {
                live.admin.arm_events(live.identity.controller.event_limit);
            }
        }
    }

    fn health_changed(&mut self) -> Result<(), NvmeError> {
        let page = self.admin(|live| {
            let command = Command::get_log_page(LOG_HEALTH, live.admin.data(), 512);
            live.admin.read_page("Get Log Page, SMART", &command)
        })?;
        let mut log = [0; 512];
        log.copy_from_slice(&page[..512]);
        let critical_warning = HealthLog::parse(&log).critical_warning;
        (self.listener)(Event::Warning { critical_warning });
        Ok(())
    }

    fn namespaces_changed(&mut self) -> Result<(), NvmeError> {
        self.admin(|live| {
            let command = Command::get_log_page(LOG_CHANGED_NAMESPACES, live.admin.data(), 4096);
            live.admin.read_page("Get Log Page, Changed Namespaces", &command)
        })?;
        // Which ones is asked of the namespaces themselves: the list may have overflowed.
        let found = self.admin(|live| find_namespaces(&mut live.admin, &live.identity))?;
        self.compare(found);
        Ok(())
    }

    /// Compares the namespaces with those that were there.
    pub(super) fn compare(&mut self, found: Found) {
        let mut events = Vec::new();
        let mut known = self.shared.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|old| {
            let stays = found.namespaces.iter().any(|new| same(old, new));
            if !stays {
                old.set_gone();
                events.push(Event::Removed { namespace: old.id });
            }
            stays
        });
        for new in found.namespaces {
            match known.iter().find(|old| old.id == new.id) {
                Some(old) if old.set_blocks(new.blocks()) => {
                    events.push(Event::Resized { namespace: new.id, blocks: new.blocks() });
                }
                Some(_) => {}
                None => {
                    events.push(Event::Added { namespace: new.id });
                    known.push(Arc::new(new));
                }
            }
        }
        drop(known);
        *self.shared.unusable.lock().unwrap_or_else(PoisonError::into_inner) = found.unusable;
        events.into_iter().for_each(|event| (self.listener)(event));
    }
}

/// The same namespace, apart from its size.
fn same(old: &Namespace, new: &Namespace) -> bool {
    old.id == new.id && old.block_shift == new.block_shift && old.identifiers == new.identifiers
}
