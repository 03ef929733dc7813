//! Views as JSON. Numbers of tasks are strings, because 64 bits are more than a number of JavaScript
//! holds; lengths of time are nanoseconds; ids of processes are 32 hexadecimal digits.

use pinmesh_core::{
    AHEAD_MAX, ClientView, Counts, Explanation, HostView, Ledger, LetterView, Obstacle,
    ServiceView, Span, TaskStanding, TaskView, WorkerStanding, WorkerView,
};
use serde_json::{Value, json};

pub(super) fn service(view: &ServiceView) -> Value {
    let rate =
        view.limits.rate.map(|rate| json!({ "interval_ns": rate.interval.0, "burst": rate.burst }));
    json!({
        "name": view.name,
        "pending": view.pending.iter().map(|count| u64::from(*count)).sum::<u64>(),
        "pending_by_priority": view.pending,
        "in_flight": view.in_flight,
        "tasks": view.tasks,
        "bytes": view.bytes,
        "workers": view.workers,
        "oldest_wait_ns": ns(view.oldest_wait),
        "paused": view.is_paused,
        "next_token_ns": ns(view.next_token),
        "limits": {
            "pending_max": view.limits.pending_max,
            "in_flight_max": view.limits.in_flight_max,
            "bytes_max": view.limits.bytes_max,
            "rate": rate,
        },
    })
}

pub(super) fn worker(view: &WorkerView) -> Value {
    json!({
        "id": view.peer_id.to_string(),
        "name": view.name,
        "host": view.host.map(|host| host.to_string()),
        "host_name": view.host_name,
        "slot": view.slot.0,
        "incarnation": view.incarnation.0,
        "cpu": view.cpu,
        "services": view.services,
        "labels": view.labels,
        "window_tasks": view.window_tasks,
        "window_bytes": view.window_bytes,
        "in_flight": view.in_flight,
        "in_flight_bytes": view.in_flight_bytes,
        "state": worker_standing(view.standing),
    })
}

pub(super) fn host(view: &HostView) -> Value {
    json!({
        "id": view.peer_id.to_string(),
        "name": view.name,
        "connected": view.is_connected,
        "has_lease": view.has_lease,
    })
}

pub(super) fn client(view: &ClientView) -> Value {
    json!({
        "id": view.peer_id.to_string(),
        "name": view.name,
        "connected": view.is_connected,
        "tasks": view.tasks,
        "bytes": view.bytes,
        "results": view.results,
    })
}

pub(super) fn task(view: &TaskView) -> Value {
    json!({
        "task": view.task.to_string(),
        "client": view.client_id.map(|id| id.to_string()),
        "request": view.request_id.to_string(),
        "submission": view.submission.0,
        "state": state(view.standing),
        "status": match view.standing {
            TaskStanding::Ended(status) => Some(status.to_string()),
            _ => None,
        },
        "worker": view.worker.map(|id| id.to_string()),
        "dispatches": view.dispatch.0,
        "tries": view.tries,
        "replay_of": view.replay_of.map(|letter| letter.0),
    })
}

pub(super) fn letter(view: &LetterView) -> Value {
    json!({
        "letter": view.letter.0,
        "service": view.service,
        "client": view.client_id.to_string(),
        "client_name": view.client,
        "request": view.request_id.to_string(),
        "priority": view.priority.value(),
        "status": view.cause.status().to_string(),
        "reason": view.cause.reason().name(),
        "detail": view.cause.detail(),
        "tries": view.tries,
        "crashes": view.crashes,
        "error": String::from_utf8_lossy(&view.error.bytes),
        "error_bytes": view.error.of_bytes,
        "content_type": view.content_type.0,
        "bytes": view.bytes,
        "received_ns_ago": view.received.0,
        "died_ns_ago": view.died.0,
        "replay_of": view.replay_of.map(|letter| letter.0),
    })
}

pub(super) fn explanation(explanation: &Explanation) -> Value {
    let mut value = task(&explanation.view);
    let more = json!({
        "service": explanation.service,
        "priority": explanation.priority.value(),
        "bytes": explanation.bytes,
        "age_ns": explanation.age.0,
        "sent_ns_ago": ns(explanation.sent),
        "deadline_ns": ns(explanation.deadline),
        "max_runtime_ns": explanation.max_runtime.0,
        "ahead": explanation.ahead,
        "ahead_is_at_least": explanation.ahead == Some(AHEAD_MAX),
        "waits_for": explanation.obstacles.iter().map(obstacle).collect::<Vec<_>>(),
    });
    if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
        value.extend(more);
    }
    value
}

fn obstacle(obstacle: &Obstacle) -> Value {
    match obstacle {
        Obstacle::Paused => json!({ "reason": "paused" }),
        Obstacle::InFlightMax(max) => json!({ "reason": "in_flight_max", "max": max }),
        Obstacle::Rate(wait) => json!({ "reason": "rate", "next_token_ns": wait.0 }),
        Obstacle::Delayed(left) => json!({ "reason": "delayed", "start_ns": left.0 }),
        Obstacle::NoWorker => json!({ "reason": "no_worker" }),
        Obstacle::NoFreeWorker(standings) => {
            let counts = standings.iter().map(|(standing, count)| {
                (worker_standing(*standing).to_owned(), Value::from(*count))
            });
            json!({ "reason": "no_free_worker", "workers": Value::Object(counts.collect()) })
        }
    }
}

fn state(standing: TaskStanding) -> &'static str {
    match standing {
        TaskStanding::Pending => "pending",
        TaskStanding::Delayed(_) => "delayed",
        TaskStanding::InFlight => "in_flight",
        TaskStanding::AwaitingEnd => "awaiting_end",
        TaskStanding::Ended(_) => "ended",
    }
}

fn worker_standing(standing: WorkerStanding) -> &'static str {
    match standing {
        WorkerStanding::Free => "free",
        WorkerStanding::Busy => "busy",
        WorkerStanding::Greeting => "greeting",
        WorkerStanding::NoLease => "no_lease",
        WorkerStanding::Blocked => "blocked",
        WorkerStanding::Parked => "parked",
        WorkerStanding::Away => "away",
        WorkerStanding::Closed => "closed",
        WorkerStanding::Dead => "dead",
    }
}

pub(super) fn ledger(ledger: &Ledger, counts: &Counts) -> Value {
    json!({
        "balanced": ledger.is_balanced(),
        "submitted": ledger.submitted,
        "busy": ledger.busy,
        "refused": ledger.refused,
        "joined": ledger.joined,
        "ignored": ledger.ignored,
        "stale": ledger.stale,
        "accepted": ledger.accepted,
        "ok": ledger.ok,
        "failed": ledger.failed,
        "expired": ledger.expired,
        "timed_out": ledger.timed_out,
        "crashed": ledger.crashed,
        "cancelled": ledger.cancelled,
        "lost": ledger.lost,
        "no_service": ledger.no_service,
        "held": ledger.held,
        "dispatched": ledger.dispatched,
        "adopted": ledger.adopted,
        "requeued": ledger.requeued,
        "retried": ledger.retried,
        "stale_ends": ledger.stale_ends,
        "foreign_ends": ledger.foreign_ends,
        "malformed": ledger.malformed,
        "no_session": ledger.no_session,
        "updates": ledger.updates,
        "stale_updates": ledger.stale_updates,
        "held_up": ledger.held_up,
        "dead": ledger.dead,
        "dead_dropped": ledger.dead_dropped,
        "dead_purged": ledger.dead_purged,
        "replayed": ledger.replayed,
        "replay_busy": ledger.replay_busy,
        "dead_held": ledger.dead_held,
        "now": now(counts),
    })
}

fn now(counts: &Counts) -> Value {
    json!({
        "sessions": counts.sessions,
        "clients": counts.clients,
        "workers": counts.workers,
        "hosts": counts.hosts,
        "pending": counts.pending,
        "delayed": counts.delayed,
        "in_flight": counts.in_flight,
        "tasks": counts.tasks,
        "bytes": counts.bytes,
        "dead": counts.dead,
        "dead_bytes": counts.dead_bytes,
    })
}

fn ns(span: Option<Span>) -> Option<u64> {
    span.map(|span| span.0)
}
