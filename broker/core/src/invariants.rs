//! Cross-checks of everything against everything, for tests and the simulator.

use alloc::string::String;
use alloc::{format, vec::Vec};

use crate::broker::Broker;
use crate::dead::{ERROR_BYTES_MAX, LETTER_OVERHEAD_BYTES, Letter};
use crate::event::Body;
use crate::fair::InTurn;
use crate::group::Served;
use crate::list::List;
use crate::shares::CLASSES;
use crate::slab::{Key, TaskKey};
use crate::state::State;
use crate::task::{NO_FLOW, Owner, Task, TaskState};
use crate::worker::WorkerState;

impl<B: Body> Broker<B> {
    /// Everything that is wrong inside; empty in a sound broker. Takes time linear in what is held.
    pub fn violations(&self) -> Vec<String> {
        let mut found = Vec::new();
        let state = &self.state;
        if !state.ledger.is_balanced() {
            found.push(format!("the ledger does not add up: {:?}", state.ledger));
        }
        check_tasks(state, &mut found);
        check_queues(state, &mut found);
        check_turns(state, &mut found);
        check_workers(state, &mut found);
        check_clients(state, &mut found);
        check_dead(state, &mut found);
        found
    }
}

fn check_tasks<B: Body>(state: &State<B>, found: &mut Vec<String>) {
    let mut bytes = state.inherited.kept_bytes() + check_progress(state, found);
    bytes += check_keys(state, found);
    let (mut held, mut delayed) = (0, 0);
    for (key, task) in state.tasks.iter() {
        bytes += task.kept_bytes();
        let has_ended = task.state == TaskState::Ended;
        held += u64::from(!has_ended && !task.is_follower);
        delayed += u64::from(task.state == TaskState::Delayed);
        if task.state == TaskState::Delayed && (task.occupies || task.timer.is_none()) {
            found.push(format!("{key:?}: delayed, and nothing brings it back"));
        }
        let has_body = !has_ended && !task.is_follower;
        if has_ended != task.end.is_some() || has_body != task.body.is_some() {
            found.push(format!("{key:?}: body and end do not fit {:?}", task.state));
        }
        let is_in_ready = task.occupies
            && state.workers.get(task.worker).is_some_and(|w| w.state == WorkerState::Greeting);
        if task.is_listed && !is_in_ready {
            found.push(format!("{key:?}: a mark of READY was left behind"));
        }
        if task.state == TaskState::InFlight && !task.occupies {
            found.push(format!("{key:?}: in flight with no worker"));
        }
        if has_ended && matches!(task.owner, Owner::Nobody(_)) && !task.occupies {
            found.push(format!("{key:?}: nobody needs it any more"));
        }
    }
    if bytes != state.bytes {
        found.push(format!("bytes: {} counted, {bytes} held", state.bytes));
    }
    if delayed != state.delayed {
        found.push(format!("delayed: {} counted, {delayed} held", state.delayed));
    }
    if held != state.ledger.held {
        found.push(format!("held: {} in the ledger, {held} in the store", state.ledger.held));
    }
}

/// The bytes of the updates that are kept.
fn check_progress<B: Body>(state: &State<B>, found: &mut Vec<String>) -> u64 {
    let updates = state.progress.updates.iter();
    let bytes: u64 = updates.map(|(_, update)| update.kept_bytes()).sum();
    let mut waiting = 0;
    for (task, latest) in state.progress.tasks() {
        waiting += latest.map_or(0, |key| state.update_bytes(key));
        let of = state.tasks.get(task).filter(|task| task.state != TaskState::Ended);
        let is_noted = of
            .and_then(|task| state.clients.get(task.client()?))
            .map(|client| client.latest.contains(&task) == latest.is_some());
        if of.is_none() || is_noted == Some(false) {
            found.push(format!("{task:?}: its updates are not as its client has them"));
        }
    }
    let stream: u64 = state.clients.iter().map(|(_, client)| client.stream_bytes).sum();
    if (stream, bytes) != (state.progress.stream_bytes, stream + waiting) {
        found.push(format!("{bytes} bytes of updates, {stream} of them stream, {waiting} wait"));
    }
    let held = state.progress.held();
    for (key, worker) in state.workers.iter() {
        let is_held = worker.conn.is_some_and(|conn| held.iter().any(|(it, _)| *it == conn));
        if worker.is_held_up != is_held {
            found.push(format!("{key:?}: held up without a reason, or not with one"));
        }
    }
    bytes
}

/// The bytes of the keys.
fn check_keys<B: Body>(state: &State<B>, found: &mut Vec<String>) -> u64 {
    let (bytes, is_sound) = state.keys.sums();
    if !is_sound {
        found.push("the tables of idempotency keys, or their sums, do not agree".into());
    }
    for (key, lead) in state.keys.leads() {
        let shares = |task: &&Task<B>| task.shares() == Some(key);
        let told = state.tasks.iter().map(|(_, task)| task).filter(shares).count();
        let task = state.tasks.get(key);
        let is_its = task.is_some_and(|task| matches!(task.owner, Owner::Key(_)));
        if !is_its || told != lead.told as usize {
            found.push(format!("{key:?}: {told} share its end, {} are counted", lead.told));
        }
        for follower in state.keys.waiting_for(key) {
            let follower = state.tasks.get(follower);
            if follower.is_none_or(|task| task.state != TaskState::Following(key)) {
                found.push(format!("{key:?}: one that waits for it does not follow it"));
            }
        }
    }
    for (key, task) in state.tasks.iter() {
        let is_known = match task.state {
            TaskState::Following(lead) => state.keys.waiting_for(lead).any(|it| it == key),
            _ => task.shares().is_none_or(|lead| state.keys.lead(lead).is_some()),
        };
        if !is_known || matches!(task.owner, Owner::Key(_)) != state.keys.lead(key).is_some() {
            found.push(format!("{key:?}: it is not as the table of keys has it"));
        }
    }
    bytes
}

fn check_queues<B: Body>(state: &State<B>, found: &mut Vec<String>) {
    let mut queued: Vec<TaskKey> = Vec::new();
    for (key, service) in state.services.iter() {
        let of_service = state
            .tasks
            .iter()
            .filter(|(_, task)| task.service == key && task.state != TaskState::Ended)
            .filter(|(_, task)| !task.is_follower);
        let (unended, tasks) = (of_service.count(), service.tasks);
        if unended != tasks as usize {
            found.push(format!("{key:?}: {tasks} tasks counted, {unended} not ended"));
        }
        let mut count = 0;
        for flow in service.waiting.flows(&state.tasks, &state.flows) {
            let keys: Vec<TaskKey> = flow.map(|index| state.tasks.key_at(index)).collect();
            let ages = keys.iter().map(|key| state.tasks.at(key.index()).age);
            if !ages.is_sorted() {
                found.push(format!("{key:?}: a younger task stands before an older one"));
            }
            count += keys.len() as u32;
            queued.extend(keys);
        }
        if count != service.waiting.len() {
            found.push(format!("{key:?}: {count} queued, {} counted", service.waiting.len()));
        }
        let has_wait = service.groups.is_empty() && count > 0;
        if has_wait != service.timer.is_some() {
            found.push(format!("{key:?}: its wait does not fit {count} waiting"));
        }
        let holding = state.tasks.iter().filter(|(_, task)| task.service == key && task.occupies);
        let held = holding.count();
        if held != service.gate.in_flight as usize {
            found.push(format!("{key:?}: {held} in flight, not {}", service.gate.in_flight));
        }
        let unended = state.tasks.iter().filter(|(_, task)| task.service == key);
        let unended =
            unended.filter(|(_, task)| task.state != TaskState::Ended && !task.is_follower);
        let bytes: u64 = unended.map(|(_, task)| task.payload_bytes).sum();
        if bytes != service.bytes {
            found.push(format!("{key:?}: {bytes} bytes of tasks, not {}", service.bytes));
        }
        let is_idle_worker_beside_work = count > 0
            && service.is_in_turn
            && service.groups.iter().filter_map(|it| state.groups.get(it.group)?.best()).any(
                |(worker, _)| {
                    // A worker may stay listed beside a task that does not fit its bytes only if it is
                    // taken off the list at the next offer; after an event none is.
                    state.workers.at(worker).has_credit()
                },
            );
        if is_idle_worker_beside_work {
            found.push(format!("{key:?}: tasks wait beside a worker with credit"));
        }
    }
    queued.sort_unstable();
    let pending: Vec<TaskKey> = state
        .tasks
        .iter()
        .filter(|(_, task)| task.state == TaskState::Pending)
        .map(|(key, _)| key)
        .collect();
    let mut pending = pending;
    pending.sort_unstable();
    if queued != pending {
        found.push(format!("{} queued, {} pending", queued.len(), pending.len()));
    }
}

/// Who is in turn is who has tasks, and may send them.
fn check_turns<B: Body>(state: &State<B>, found: &mut Vec<String>) {
    for (key, service) in state.services.iter() {
        if service.is_in_turn != service.gate.is_open(&service.limits) {
            found.push(format!("{key:?}: its gate and its turns differ"));
        }
        for class in 0..CLASSES {
            let is_waiting = service.waiting.has(class) && service.is_in_turn;
            let in_turn = service.groups.iter().filter(|serving| {
                let group = state.groups.get(serving.group);
                group.is_some_and(|group| group.is_ready(serving.place, class))
            });
            let expected = if is_waiting { service.groups.len() } else { 0 };
            if in_turn.count() != expected {
                found.push(format!("{key:?}: class {class} is in turn where it should not be"));
            }
            let ring = service.waiting.ring(class);
            for flow in ring.iter(&state.flows.all) {
                if let Some(fault) = ring.fault(state.flows.all.at(flow).turn()) {
                    found.push(format!("{key:?}: class {class}: {fault}"));
                }
            }
        }
    }
    for (key, group) in state.groups.iter() {
        found.extend(group.faults().map(|fault| format!("{key:?}: {fault}")));
        let is_known = |served: &&Served| state.services.get(served.service).is_some();
        let known = group.served.iter().filter(is_known).count();
        if known + group.vacant() != group.served.len() {
            found.push(format!("{key:?}: a place is neither taken nor vacant"));
        }
    }
    let is_nowhere = |task: &Task<B>| task.state == TaskState::Pending && task.flow == NO_FLOW;
    if state.tasks.iter().any(|(_, task)| is_nowhere(task)) {
        found.push("a task is pending and stands in no flow".into());
    }
}

fn check_workers<B: Body>(state: &State<B>, found: &mut Vec<String>) {
    for (key, worker) in state.workers.iter() {
        let (mut count, mut bytes, mut work) = (0, 0, 0);
        let mut next = worker.in_flight.first();
        while let Some(index) = next {
            let task = state.tasks.at(index);
            if !task.occupies || task.worker != key {
                found.push(format!("{key:?}: holds a task that is not its own"));
            }
            count += 1;
            bytes += task.payload_bytes;
            work += task.work;
            next = List::after(&state.tasks, index);
        }
        let counted = (worker.in_flight.len(), worker.in_flight_bytes, worker.work);
        if (count, bytes, work) != counted {
            found.push(format!("{key:?}: its counts do not fit its list"));
        }
        if worker.beside != state.inherited.count_beside(key) {
            found.push(format!("{key:?}: its attempts of earlier epochs are miscounted"));
        }
        if worker.level.is_some() && !worker.has_credit() {
            found.push(format!("{key:?}: listed without credit"));
        }
        if worker.level.is_some_and(|level| u32::from(level) != worker.held().min(1023)) {
            found.push(format!("{key:?}: listed at the wrong level"));
        }
        if worker.state == WorkerState::Dead && count > 0 {
            found.push(format!("{key:?}: dead and holding {count}"));
        }
        if worker.conn.is_some_and(|conn| state.sessions.get(conn).is_none()) {
            found.push(format!("{key:?}: its session is gone"));
        }
    }
}

fn check_clients<B: Body>(state: &State<B>, found: &mut Vec<String>) {
    for (key, client) in state.clients.iter() {
        let owned = state.tasks.iter().filter(|(_, task)| task.client() == Some(key));
        let (count, bytes) =
            owned.fold((0, 0), |(count, bytes), (_, task)| (count + 1, bytes + task.payload_bytes));
        if (count, bytes) != (client.tasks, client.bytes) {
            found.push(format!(
                "{key:?}: {} tasks and {} bytes counted, {count} and {bytes} held",
                client.tasks, client.bytes
            ));
        }
        if client.conn.is_none() != client.lost_timer.is_some() {
            found.push(format!("{key:?}: its time to be dropped does not fit its session"));
        }
    }
    for (conn, session) in state.sessions.iter() {
        if session.acknowledged > session.taken {
            found.push(format!("{conn:?}: more acknowledged than taken"));
        }
    }
}

fn check_dead<B: Body>(state: &State<B>, found: &mut Vec<String>) {
    let (count, bytes, config) = (state.dead.len() as u64, state.dead.bytes(), &state.config);
    let of_letters: u64 = state.dead.iter().map(|(_, letter)| letter.bytes).sum();
    let as_kept = |letter: &Letter<B>| {
        letter.bytes - letter.body.kept_bytes() >= LETTER_OVERHEAD_BYTES
            && letter.error.bytes.len() <= ERROR_BYTES_MAX
    };
    if bytes != of_letters || !state.dead.iter().all(|(_, letter)| as_kept(letter)) {
        found.push(format!("dead letters: {bytes} bytes counted, {of_letters} held"));
    }
    if count > u64::from(config.dead_letters_max) || bytes > config.dead_bytes_max {
        found.push(format!("{count} dead letters of {bytes} bytes are too many"));
    }
    if count != state.ledger.dead_held {
        found.push(format!("{} dead letters in the ledger, {count} held", state.ledger.dead_held));
    }
    if count > 0 && !state.dead.has_timer() {
        found.push("dead letters are kept for ever".into());
    }
    let is_open = |key| state.tasks.get(key).is_some_and(|task| task.state != TaskState::Ended);
    if !state.origins.keys().all(|key| is_open(*key)) {
        found.push("a replay that has ended is not forgotten".into());
    }
    let died = state.dead.iter().map(|(_, letter)| letter.died_at);
    if !died.is_sorted() {
        found.push("a dead letter stands before an older one".into());
    }
}
