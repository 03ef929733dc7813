//! A dead letter becomes a task again: with its payload, options and priority, as if it came in now, but
//! without a deadline, and nobody waits for its end.

use alloc::vec::Vec;

use pinmesh_protocol::id::Dispatch;

use crate::dead::{DeadPage, Letter, LetterId, Origin};
use crate::event::Body;
use crate::list::Links;
use crate::on_admin::AdminReply;
use crate::outbox::Outbox;
use crate::slab::{ServiceKey, TaskKey, WorkerKey};
use crate::state::State;
use crate::task::{NO_FLOW, Owner, TASK_OVERHEAD_BYTES, Task, TaskState};
use crate::waiting::Charge;

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
        let service = self.services.asked(&found.service, self.now)?;
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
        let task = self.tasks.insert(Task {
            owner: Owner::Nobody(letter.client_id),
            runs_on: true,
            is_follower: false,
            request_id: letter.request_id,
            submission: letter.submission,
            service,
            account: letter.account,
            flow: NO_FLOW,
            place: 0,
            work: 0,
            is_probe: false,
            charge: Charge::NONE,
            age: self.arrivals,
            has_returned: false,
            priority: letter.priority,
            is_at_most_once: letter.terms.is_at_most_once,
            kills_at_deadline: false,
            cancel: None,
            is_closed: false,
            is_listed: false,
            state: TaskState::Pending,
            occupies: false,
            dispatch: Dispatch(0),
            tries: 0,
            crashes: 0,
            tries_max: letter.terms.tries_max,
            backoff: letter.terms.backoff,
            backoff_max: letter.terms.backoff_max,
            worker: WorkerKey(0),
            received_at: self.now,
            queued_at: self.now,
            start_at: self.now,
            dispatched_at: self.now,
            deadline: None,
            max_runtime: letter.terms.max_runtime,
            timer: None,
            payload_bytes: bytes,
            body: Some(letter.body),
            end: None,
            links: Links::NONE,
        });
        self.origins.insert(task, Origin { letter: id, client: letter.client });
        task
    }
}
