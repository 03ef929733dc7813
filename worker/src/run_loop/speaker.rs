//! What a handler says while it runs, on its way to the broker.

use pinmesh_protocol::command::{Payload, WorkerProgress};
use pinmesh_protocol::id::{AttemptId, ContentType};
use pinmesh_protocol::status::ProgressKind;
use pinmesh_transport::TransportError;

use super::wire::Wire;
use crate::clock;
use crate::handler::{Say, UpdateError};

/// How long a handler that waits for an ACK sleeps at most before it looks at its cancel flag again.
const LOOK_NS: u64 = 20_000_000;

/// The voice of one attempt.
pub(super) struct Speaker<'a> {
    pub(super) wire: &'a mut Wire,
    /// The link of its broker.
    pub(super) link: usize,
    pub(super) attempt: AttemptId,
    /// Its slot on the page, where there is one.
    pub(super) slot: usize,
    /// Updates so far.
    pub(super) sequence: u64,
    pub(super) payload_bytes_max: u64,
}

impl Say for Speaker<'_> {
    fn say(
        &mut self,
        kind: ProgressKind,
        content_type: ContentType,
        payload: &[u8],
    ) -> Result<(), UpdateError> {
        let (bytes, bytes_max) = (payload.len() as u64, self.payload_bytes_max);
        if bytes > bytes_max {
            return Err(UpdateError::TooLong { bytes, bytes_max });
        }
        match kind {
            // The socket is full: this one is older than the one that will fit.
            ProgressKind::Latest if self.wire.links[self.link].io.is_blocked() => return Ok(()),
            ProgressKind::Latest => {}
            ProgressKind::Stream => self.wait_for_room(bytes)?,
        }
        self.sequence += 1;
        let link = &mut self.wire.links[self.link];
        let progress = WorkerProgress {
            attempt: self.attempt,
            sequence: self.sequence,
            kind,
            content_type,
            payload: Payload::Inline(&[]),
        };
        let update = link.io.encode_update(progress, payload);
        let now = clock::now();
        match kind {
            ProgressKind::Latest => link.session.latest(now, update, bytes, &mut link.io),
            ProgressKind::Stream => link.session.emit(now, update, bytes, &mut link.io),
        }
        link.io.flush();
        Ok(())
    }
}

impl Speaker<'_> {
    /// Waits until so long an update may be emitted.
    fn wait_for_room(&mut self, bytes: u64) -> Result<(), UpdateError> {
        while !self.wire.links[self.link].session.admits_update(bytes) {
            if self.is_to_stop() {
                return Err(UpdateError::Cancelled);
            }
            if let Err(error) = self.let_time_pass() {
                self.wire.failure.get_or_insert(error);
                return Err(UpdateError::Cancelled);
            }
        }
        Ok(())
    }

    fn is_to_stop(&self) -> bool {
        match &self.wire.page {
            Some(page) => page.is_cancelled(self.slot),
            // Nobody else ends a handler that waits for a broker that is away.
            None => self.wire.leave_by.is_some(),
        }
    }

    fn let_time_pass(&mut self) -> Result<(), TransportError> {
        let is_empty = self.wire.receive()?;
        self.wire.is_in_handler = true;
        let ticked = self.wire.tick(clock::now(), is_empty);
        self.wire.is_in_handler = false;
        ticked?;
        self.wire.flush()?;
        if is_empty { self.wire.sleep(LOOK_NS) } else { Ok(()) }
    }
}
