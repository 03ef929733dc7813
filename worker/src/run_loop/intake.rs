//! What comes in: messages to commands, tasks to their places and slots.

use pinmesh_protocol::batch::BatchReader;
use pinmesh_protocol::command::{FromBroker, Task};
use pinmesh_protocol::status::RefusedCode;
use pinmesh_session::Time;
use pinmesh_session::slots::SlotState;
use pinmesh_session::worker::Event;
use pinmesh_transport::{Frame, TransportError};

use super::wire::Wire;
use super::{Link, MESSAGES_MAX};
use crate::clock;
use crate::page::StatusPage;

impl Wire {
    /// Reads what is there, up to a bound for each broker. Whether every socket was read empty.
    pub(super) fn receive(&mut self) -> Result<bool, TransportError> {
        let mut is_empty = true;
        for index in 0..self.links.len() {
            let mut left = MESSAGES_MAX;
            loop {
                let link = &mut self.links[index];
                let Some(dealer) = &mut link.io.dealer else { break };
                if !dealer.recv(&mut self.message)? {
                    break;
                }
                self.on_message(index, clock::now());
                left -= 1;
                if left == 0 {
                    is_empty = false;
                    break;
                }
            }
        }
        Ok(is_empty)
    }

    fn on_message(&mut self, index: usize, now: Time) {
        let link = &mut self.links[index];
        let was_open = link.session.is_open();
        if let Some(fault) = self.message.fault {
            tracing::warn!(broker = %link.io.endpoint(), %fault, "a message was dropped");
            link.session.handle(now, Event::Malformed(RefusedCode::TooLarge), &mut link.io);
            return;
        }
        let Some((first, frames)) = self.message.frames.split_first_mut() else { return };
        self.frame_lens.clear();
        self.frame_lens.extend(frames.iter().map(|frame| frame.len()));
        self.fresh.clear();
        let mut reader = BatchReader::new(first, &self.frame_lens);
        // A session that ends inside a message has no ear for the rest of it.
        let mut fault = None;
        while link.io.dealer.is_some() {
            match reader.next_from_broker() {
                None => {
                    fault = reader.finish().err();
                    break;
                }
                Some(Ok(FromBroker::Task(task))) => {
                    self.fresh.extend(take(link, self.page.as_deref(), now, &task, frames));
                }
                Some(Ok(command)) => {
                    if let FromBroker::Refused(refused) = &command {
                        let broker = link.io.endpoint();
                        tracing::warn!(%broker, code = %refused.code, reason = refused.reason,
                            "the broker refused this worker");
                    }
                    link.session.handle(now, Event::Received(command), &mut link.io);
                }
                Some(Err(error)) => {
                    fault = Some(error);
                    break;
                }
            }
        }
        if let Some(error) = fault {
            tracing::warn!(broker = %link.io.endpoint(), %error, "not understood");
            link.session.handle(now, Event::Malformed(error.code()), &mut link.io);
        }
        if let Some(page) = &self.page
            && !self.fresh.is_empty()
            && page.settle()
        {
            for &index in &self.fresh {
                if let Some(task) = link.session.task(index) {
                    // The slot is recalled by this, and skipped when its turn comes.
                    page.is_refused(link.io.slot(index), link.io.broker, task.attempt);
                }
            }
        }
        if link.session.is_open() != was_open {
            let is_open = link.session.is_open();
            tracing::debug!(broker = %link.io.endpoint(), is_open, "session");
        }
    }
}

/// TASK: keeps it and shows it on the page. Its index, unless it goes back.
fn take(
    link: &mut Link,
    page: Option<&StatusPage>,
    now: Time,
    task: &Task<'_>,
    frames: &mut [Frame],
) -> Option<u32> {
    if let Some(page) = page
        && !link.session.admits(task.payload.len())
    {
        sweep(link, page);
    }
    let index = link.session.take(now, task, &mut link.io)?;
    link.io.store(index, task.payload, frames);
    if let (Some(page), Some(held)) = (page, link.session.task(index)) {
        page.publish(link.io.slot(index), link.io.broker, held.attempt);
    }
    Some(index)
}

/// Frees what was recalled behind a long task: the broker counts it as gone already.
fn sweep(link: &mut Link, page: &StatusPage) {
    let waiting: Vec<u32> = link.io.queue.iter().map(|ticket| ticket.index).collect();
    for index in waiting {
        if page.word(link.io.slot(index)).state() == SlotState::Recalled {
            link.session.recalled(index, &mut link.io);
        }
    }
}
