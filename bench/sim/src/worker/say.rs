//! What a handler says while it runs.

use pinmesh_protocol::codec::write_to_broker;
use pinmesh_protocol::command::{Payload, ToBroker, WorkerProgress};
use pinmesh_protocol::id::ContentType;
use pinmesh_protocol::status::ProgressKind;
use pinmesh_session::Time;

use super::{Run, Worker};
use crate::checker::Checker;
use crate::clock::MS;
use crate::counters::Count;
use crate::task::Output;
use crate::world::World;

/// How soon a handler that has to wait with an update tries again, nanoseconds.
const RETRY: u64 = MS;

impl Worker {
    /// The next update, or a look at what has come in while that has to wait. Time until the handler
    /// goes on.
    pub(super) fn say(
        &mut self,
        world: &mut World,
        checker: &mut Checker,
        run: &mut Run,
        ahead: u64,
    ) -> u64 {
        let kind = match run.updates % 3 {
            0 => ProgressKind::Latest,
            _ => ProgressKind::Stream,
        };
        let bytes = Output { key: run.key, token: 0 }.to_payload().len() as u64;
        if kind == ProgressKind::Stream && !self.links[run.link].0.admits_update(bytes) {
            world.counters.add(Count::UpdateWaits);
            self.read_while_busy(world, checker, ahead);
            return RETRY;
        }
        run.updates -= 1;
        run.said += 1;
        let token = checker.on_said(run.attempt, run.key, kind, run.said);
        let payload = Output { key: run.key, token }.to_payload();
        let progress = WorkerProgress {
            attempt: run.attempt,
            sequence: run.said,
            kind,
            content_type: ContentType::RAW,
            payload: Payload::Inline(&payload),
        };
        let mut update = Vec::new();
        write_to_broker(&mut update, &ToBroker::Progress(progress));
        let now = Time(world.now + ahead);
        self.session(world, run.link, |session, io| match kind {
            ProgressKind::Latest => session.latest(now, update, bytes, io),
            ProgressKind::Stream => session.emit(now, update, bytes, io),
        });
        self.links.iter_mut().for_each(|(_, state)| state.flush(world));
        run.pause
    }

    /// ACKs come in while the handler waits for them, and whatever else.
    fn read_while_busy(&mut self, world: &mut World, checker: &mut Checker, ahead: u64) {
        for at in 0..self.links.len() {
            while let Some(socket) = self.links[at].1.socket
                && let Some(bytes) = world.net.read(socket)
            {
                self.read(world, checker, at, (socket, &bytes), ahead);
            }
        }
        self.tick(world, ahead);
        self.links.iter_mut().for_each(|(_, state)| state.flush(world));
    }
}
