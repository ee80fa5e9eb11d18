//! Administrative commands of the model.

use super::processor::{CompletionQueue, Processor, SubmissionQueue};
use crate::spec::{Command, PAGE, Status, admin, feature};

/// Asynchronous event requests that wait, and events that wait for one.
#[derive(Default)]
pub(super) struct Events {
    requests: Vec<u16>,
    /// The namespace attribute event is masked until its log page is read (5.2).
    masked: bool,
    pending: bool,
    enabled: bool,
}

type Answer = Option<(Status, u32)>;

impl Processor {
    pub(super) fn admin_command(&mut self, command: &Command) -> Answer {
        if self.faults.admin_silent {
            return None;
        }
        let ok = Some((Status::SUCCESS, 0));
        match command.opcode() {
            admin::IDENTIFY => {
                let page = self.identify(command);
                self.answer_page(command, page)
            }
            admin::CREATE_CQ => Some((self.create_completions(command), 0)),
            admin::CREATE_SQ => Some((self.create_submissions(command), 0)),
            admin::DELETE_SQ => {
                let known = self.submissions.remove(&(command.0[10] as u16)).is_some();
                Some((if known { Status::SUCCESS } else { Status::INVALID_QUEUE }, 0))
            }
            admin::DELETE_CQ => {
                let queue = command.0[10] as u16;
                if self.submissions.values().any(|found| found.completion == queue) {
                    self.complain(format!("completion queue {queue} is deleted before its submission queue"));
                }
                let known = self.completions.remove(&queue).is_some();
                Some((if known { Status::SUCCESS } else { Status::INVALID_QUEUE }, 0))
            }
            admin::SET_FEATURES => match command.0[10] as u8 {
                feature::NUMBER_OF_QUEUES => {
                    let last = u32::from(self.options.io_queues - 1);
                    Some((Status::SUCCESS, last | last << 16))
                }
                feature::ASYNC_EVENTS => {
                    self.events.enabled = command.0[11] & (1 << 8) != 0;
                    ok
                }
                _ => Some((Status::INVALID_FIELD, 0)),
            },
            admin::GET_LOG_PAGE => {
                if command.0[10] as u8 == crate::spec::LOG_CHANGED_NAMESPACES {
                    self.events.masked = false;
                }
                let answer = self.answer_page(command, Some(Box::new([0; PAGE])));
                self.send_events();
                answer
            }
            admin::ASYNC_EVENT => {
                self.events.requests.push(command.identifier());
                self.send_events();
                None
            }
            admin::ABORT => {
                self.counters.aborts += 1;
                if !self.faults.abort_useless {
                    let (queue, identifier) = (command.0[10] as u16, (command.0[10] >> 16) as u16);
                    self.complete(queue, identifier, Status::ABORT_REQUESTED, 0);
                }
                Some((Status::SUCCESS, u32::from(self.faults.abort_useless)))
            }
            admin::DOORBELL_BUFFER if self.options.shadow_doorbells => {
                self.shadows = Some(command.prps());
                ok
            }
            _ => Some((Status::INVALID_OPCODE, 0)),
        }
    }

    fn answer_page(&mut self, command: &Command, page: Option<Box<[u8; PAGE]>>) -> Answer {
        let Some(mut page) = page else { return Some((Status::INVALID_NAMESPACE, 0)) };
        for byte in page.iter_mut() {
            *byte ^= self.faults.noise();
        }
        let (first, second) = command.prps();
        let bytes = match command.opcode() {
            admin::GET_LOG_PAGE => (((command.0[10] >> 16) as usize + 1) * 4).min(PAGE),
            _ => PAGE,
        };
        // One page, and the driver's page begins one.
        if first % PAGE as u64 != 0 || second != 0 || self.reach.write(first, &page[..bytes]).is_none() {
            self.complain(format!("a page cannot be written to {first:#x}"));
            return Some((Status::DATA_TRANSFER_ERROR, 0));
        }
        Some((Status::SUCCESS, 0))
    }

    fn create_completions(&mut self, command: &Command) -> Status {
        let (queue, entries) = (command.0[10] as u16, (command.0[10] >> 16) as u16 + 1);
        let bad = queue == 0 || queue > self.options.io_queues || self.completions.contains_key(&queue);
        if bad || entries > self.options.queue_entries || entries < 2 || command.0[11] & 1 == 0 {
            self.complain(format!("completion queue {queue} with {entries} entries"));
            return Status::INVALID_QUEUE;
        }
        let vector = (command.0[11] & 2 != 0).then_some((command.0[11] >> 16) as u16);
        let base = command.prps().0;
        self.completions
            .insert(queue, CompletionQueue { base, entries, head: 0, tail: 0, phase: true, vector });
        Status::SUCCESS
    }

    fn create_submissions(&mut self, command: &Command) -> Status {
        let (queue, entries) = (command.0[10] as u16, (command.0[10] >> 16) as u16 + 1);
        let completion = (command.0[11] >> 16) as u16;
        let bad = queue == 0
            || self.submissions.contains_key(&queue)
            || !self.completions.contains_key(&completion);
        if bad || entries > self.options.queue_entries || entries < 2 {
            self.complain(format!("submission queue {queue} with {entries} entries"));
            return Status::INVALID_QUEUE;
        }
        let base = command.prps().0;
        self.submissions.insert(queue, SubmissionQueue { base, entries, head: 0, tail: 0, completion });
        Status::SUCCESS
    }

    pub(super) fn namespaces_changed(&mut self) {
        self.events.pending = true;
        self.send_events();
    }

    fn send_events(&mut self) {
        if self.events.pending && self.events.enabled && !self.events.masked {
            if let Some(identifier) = self.events.requests.pop() {
                self.events.pending = false;
                self.events.masked = true;
                // Notice (2), namespace attribute changed (0), its log page.
                let result = 2 | u32::from(crate::spec::LOG_CHANGED_NAMESPACES) << 16;
                self.complete(0, identifier, Status::SUCCESS, result);
            }
        }
    }
}
