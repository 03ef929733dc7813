//! A dead letter becomes a task again: with its payload, options and priority, as if it came in now, but
//! without a deadline, and nobody waits for its end.

use alloc::vec::Vec;

use crate::dead::{DeadPage, Letter, LetterId, Origin};
use crate::event::Body;
use crate::on_admin::AdminReply;
use crate::outbox::Outbox;
use crate::slab::{ServiceKey, TaskKey};
use crate::state::State;
use crate::task::{Incoming, Owner, TASK_OVERHEAD_BYTES, Task};

impl<B: Body> State<B> {
    /// Runs the letters of a page again. One that there is no room for stays.
    pub(crate) fn replay(&mut self, page: DeadPage<'_>, out: &mut impl Outbox<B>) -> AdminReply {
        // What dies again meanwhile has a higher number.
        let upto = self.dead.upto(&page);
        let (letters, next) = self.dead.page(page);
        let meant: Vec<LetterId> = letters.map(|(id, _)| id).collect();
        let (mut count, mut busy) = (0, 0);
        for letter in meant {
            match self.service_with_room_for(letter) {
                Some(service) => {
                    count += 1;
                    self.replay_in(letter, service, out);
                }
                None => busy += 1,
            }
        }
        self.ledger.replay_busy += busy;
        AdminReply::Replayed { count, busy, upto, next }
    }

    /// The service of a letter, if its task may come in: bounded as a submission is.
    fn service_with_room_for(&mut self, letter: LetterId) -> Option<ServiceKey> {
        let found = self.dead.get(letter).filter(|_| !self.is_draining)?;
        let (bytes, kept) = (found.body.payload_bytes(), found.body.kept_bytes());
        // It may be known no more.
        let name = found.service.clone();
        let service = self.service_asked(&name)?;
        self.objection_to_bytes(service, bytes, kept).is_none().then_some(service)
    }

    fn replay_in(&mut self, id: LetterId, service: ServiceKey, out: &mut impl Outbox<B>) {
        let Some(letter) = self.dead.remove(id) else { return };
        self.ledger.dead_held -= 1;
        self.ledger.replayed += 1;
        let task = self.admit(id, letter, service);
        self.enqueue(task, out);
    }

    /// The letter's task is held from now on.
    fn admit(&mut self, id: LetterId, letter: Letter<B>, service: ServiceKey) -> TaskKey {
        self.ledger.held += 1;
        self.arrivals += 1;
        let (bytes, kept) = (letter.body.payload_bytes(), letter.body.kept_bytes());
        self.bytes += kept + TASK_OVERHEAD_BYTES;
        let queue = self.services.at_mut(service);
        queue.tasks += 1;
        queue.bytes += bytes;
        let incoming = Incoming {
            owner: Owner::Nobody(letter.client_id),
            request_id: letter.request_id,
            submission: letter.submission,
            service,
            account: letter.account,
            priority: letter.priority,
            terms: letter.terms,
            payload_bytes: bytes,
        };
        let task = self.tasks.insert(Task {
            runs_on: true,
            age: self.arrivals,
            body: Some(letter.body),
            ..Task::new(incoming, self.now)
        });
        self.origins.insert(task, Origin { letter: id, client: letter.client });
        task
    }
}
