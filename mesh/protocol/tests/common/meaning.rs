//! A command as JSON: its name and its fields in the order of the wire. Bytes are
//! `{"bin": "<hex>"}`, nested arrays are arrays, everything else is what JSON calls it.

use pinmesh_protocol::TaskOptions;
use pinmesh_protocol::command::*;
use pinmesh_protocol::id::*;
use serde_json::{Value, json};

use super::{Command, hex};

pub type Fields = Vec<(&'static str, Value)>;

/// Name and fields of a command.
pub fn meaning(command: &Command) -> (&'static str, Fields) {
    match command {
        Command::To(command) => meaning_to(command),
        Command::From(command) => meaning_from(command),
    }
}

fn bin(bytes: &[u8]) -> Value {
    json!({ "bin": hex(bytes) })
}

fn service(service: ServiceRef<'_>) -> Value {
    match service {
        ServiceRef::Name(name) => json!(name),
        ServiceRef::Alias(alias) => json!(alias),
    }
}

fn payload(payload: Payload<'_>) -> Value {
    match payload {
        Payload::Inline(bytes) => bin(bytes),
        Payload::Frames(span) => json!([span.first, span.frames, span.bytes]),
    }
}

fn options(options: Option<&[u8]>) -> Value {
    options.map_or(Value::Null, |bytes| {
        let options = TaskOptions::decode(bytes).unwrap();
        let mut value = json!(options);
        if let Some(key) = &options.key {
            value["key"] = bin(key);
        }
        value
    })
}

fn attempt(a: &AttemptId) -> Value {
    json!([a.epoch, a.task, a.dispatch])
}

fn attempts(attempts: &[AttemptId]) -> Value {
    attempts.iter().map(attempt).collect()
}

fn attempt_fields(a: &AttemptId, rest: Fields) -> Fields {
    let mut fields: Fields =
        vec![("epoch", json!(a.epoch)), ("task", json!(a.task)), ("dispatch", json!(a.dispatch))];
    fields.extend(rest);
    fields
}

fn meaning_to(command: &ToBroker<'_>) -> (&'static str, Fields) {
    match command {
        ToBroker::Hello(c) => ("HELLO", hello(c)),
        ToBroker::Refused(c) => ("REFUSED", refused(c)),
        ToBroker::Heartbeat(c) => ("HEARTBEAT", heartbeat(c)),
        ToBroker::Goodbye => ("GOODBYE", vec![]),
        ToBroker::Ack(n) => ("ACK", vec![("n", json!(n))]),
        ToBroker::Window(c) => ("WINDOW", window(c)),
        ToBroker::Service(c) => ("SERVICE", alias(c)),
        ToBroker::Submit(c) => ("SUBMIT", submit(c)),
        ToBroker::Cancel(c) => (
            "CANCEL",
            vec![
                ("request_id", json!(c.request_id)),
                ("submission", json!(c.submission)),
                ("is_hard", json!(c.is_hard)),
            ],
        ),
        ToBroker::Fetch(c) => (
            "FETCH",
            vec![
                ("request_id", json!(c.request_id)),
                ("submission", json!(c.submission)),
                ("key", bin(c.key)),
                ("waits", json!(c.waits)),
            ],
        ),
        ToBroker::Ready(c) => ("READY", ready(c)),
        ToBroker::Done(c) => ("DONE", done(c)),
        ToBroker::Return(a) => ("RETURN", attempt_fields(a, vec![])),
        ToBroker::Progress(c) => ("PROGRESS", worker_progress(c)),
        ToBroker::Host(c) => ("HOST", host(c)),
        ToBroker::Lost(c) => ("LOST", lost(c)),
        ToBroker::Recalled(c) => ("RECALLED", attempt_list(c)),
    }
}

fn meaning_from(command: &FromBroker<'_>) -> (&'static str, Fields) {
    match command {
        FromBroker::Welcome(c) => ("WELCOME", welcome(c)),
        FromBroker::Refused(c) => ("REFUSED", refused(c)),
        FromBroker::NoSession => ("NO_SESSION", vec![]),
        FromBroker::Heartbeat(c) => ("HEARTBEAT", heartbeat(c)),
        FromBroker::Goodbye => ("GOODBYE", vec![]),
        FromBroker::Ack(n) => ("ACK", vec![("n", json!(n))]),
        FromBroker::Window(c) => ("WINDOW", window(c)),
        FromBroker::Service(c) => ("SERVICE", alias(c)),
        FromBroker::Result(c) => ("RESULT", result(c)),
        FromBroker::Accepted(c) => {
            ("ACCEPTED", vec![("request_id", json!(c.request_id)), ("task", json!(c.task))])
        }
        FromBroker::Fetched(c) => {
            let state = ("state", json!(c.state.to_wire()));
            let of = [("request_id", json!(c.request_id)), ("submission", json!(c.submission))];
            ("FETCHED", of.into_iter().chain([state]).collect())
        }
        FromBroker::Progress(c) => ("PROGRESS", client_progress(c)),
        FromBroker::Task(c) => ("TASK", task(c)),
        FromBroker::Drain => ("DRAIN", vec![]),
        FromBroker::Recall(c) => ("RECALL", attempt_list(c)),
        FromBroker::Cancel(c) => {
            let mut fields = vec![("slot", json!(c.slot))];
            fields.extend(attempt_fields(&c.attempt, vec![("is_hard", json!(c.is_hard))]));
            ("CANCEL", fields)
        }
    }
}

fn hello(c: &Hello<'_>) -> Fields {
    vec![
        ("version_min", json!(c.version_min)),
        ("version_max", json!(c.version_max)),
        ("role", json!(c.role.to_wire())),
        ("peer_id", bin(&c.peer_id.0)),
        ("name", json!(c.name)),
        ("nonce", json!(c.nonce)),
        ("features", json!(c.features)),
    ]
}

fn welcome(c: &Welcome) -> Fields {
    vec![
        ("version", json!(c.version)),
        ("nonce", json!(c.nonce)),
        ("epoch", json!(c.epoch)),
        ("heartbeat_ns", json!(c.heartbeat_ns)),
        ("lease_ns", json!(c.lease_ns)),
        ("liveness", json!(c.liveness)),
        ("window_tasks", json!(c.window_tasks)),
        ("window_bytes", json!(c.window_bytes)),
        ("payload_bytes_max", json!(c.payload_bytes_max)),
        ("header_bytes_max", json!(c.header_bytes_max)),
        ("kept_ns", json!(c.kept_ns)),
    ]
}

fn refused(c: &Refused<'_>) -> Fields {
    vec![("code", json!(c.code.to_wire())), ("reason", json!(c.reason))]
}

fn heartbeat(c: &Heartbeat) -> Fields {
    vec![("sequence", json!(c.sequence)), ("silence_ns", json!(c.silence_ns))]
}

fn window(c: &Window) -> Fields {
    vec![("tasks", json!(c.tasks)), ("bytes", json!(c.bytes))]
}

fn alias(c: &ServiceAlias<'_>) -> Fields {
    vec![("alias", json!(c.alias)), ("name", json!(c.name))]
}

fn submit(c: &Submit<'_>) -> Fields {
    vec![
        ("request_id", json!(c.request_id)),
        ("submission", json!(c.submission)),
        ("service", service(c.service)),
        ("priority", json!(c.priority.value())),
        ("deadline_ns", json!(c.deadline_ns)),
        ("content_type", json!(c.content_type)),
        ("options", options(c.options)),
        ("payload", payload(c.payload)),
    ]
}

fn task(c: &Task<'_>) -> Fields {
    vec![
        ("task", json!(c.task)),
        ("dispatch", json!(c.dispatch)),
        ("client_id", bin(&c.client_id.0)),
        ("request_id", json!(c.request_id)),
        ("submission", json!(c.submission)),
        ("service", service(c.service)),
        ("tries", json!(c.tries)),
        ("deadline_ns", json!(c.deadline_ns)),
        ("max_runtime_ns", json!(c.max_runtime_ns)),
        ("content_type", json!(c.content_type)),
        ("options", options(c.options)),
        ("payload", payload(c.payload)),
    ]
}

fn done(c: &Done<'_>) -> Fields {
    attempt_fields(
        &c.attempt,
        vec![
            ("status", json!(c.status.to_wire())),
            ("residence_ns", json!(c.residence_ns)),
            ("service_ns", json!(c.service_ns)),
            ("content_type", json!(c.content_type)),
            ("payload", payload(c.payload)),
        ],
    )
}

fn result(c: &TaskResult<'_>) -> Fields {
    let stages =
        c.stages.map(|s| json!([s.broker_wait_ns, s.transit_ns, s.worker_wait_ns, s.service_ns]));
    vec![
        ("request_id", json!(c.request_id)),
        ("submission", json!(c.submission)),
        ("status", json!(c.status.to_wire())),
        ("tries", json!(c.tries)),
        ("stages", json!(stages)),
        ("content_type", json!(c.content_type)),
        ("payload", payload(c.payload)),
        ("retry_after_ns", json!(c.retry_after_ns)),
    ]
}

fn ready(c: &Ready<'_>) -> Fields {
    let held = c.held.iter().map(|held| {
        let a = held.attempt;
        json!([
            a.epoch,
            a.task,
            a.dispatch,
            bin(&held.client_id.0),
            held.request_id,
            held.submission,
            held.state.to_wire()
        ])
    });
    vec![
        ("host", c.host.map_or(Value::Null, |host| bin(&host.0))),
        ("slot", json!(c.slot)),
        ("incarnation", json!(c.incarnation)),
        ("services", json!(c.services)),
        ("labels", json!(c.labels)),
        ("window_tasks", json!(c.window_tasks)),
        ("window_bytes", json!(c.window_bytes)),
        ("held", held.collect()),
        ("part", json!(c.part)),
        ("parts", json!(c.parts)),
    ]
}

fn worker_progress(c: &WorkerProgress<'_>) -> Fields {
    attempt_fields(
        &c.attempt,
        vec![
            ("sequence", json!(c.sequence)),
            ("kind", json!(c.kind.to_wire())),
            ("content_type", json!(c.content_type)),
            ("payload", payload(c.payload)),
        ],
    )
}

fn client_progress(c: &ClientProgress<'_>) -> Fields {
    vec![
        ("request_id", json!(c.request_id)),
        ("submission", json!(c.submission)),
        ("task", json!(c.task)),
        ("dispatch", json!(c.dispatch)),
        ("sequence", json!(c.sequence)),
        ("kind", json!(c.kind.to_wire())),
        ("content_type", json!(c.content_type)),
        ("payload", payload(c.payload)),
    ]
}

fn host(c: &Host) -> Fields {
    let workers = c.workers.iter().map(|worker| {
        json!([worker.slot, worker.incarnation, worker.cpu, attempts(&worker.claimed)])
    });
    vec![("cpus", json!(c.cpus)), ("workers", workers.collect())]
}

fn lost(c: &Lost) -> Fields {
    vec![
        ("slot", json!(c.slot)),
        ("incarnation", json!(c.incarnation)),
        ("cause", json!(c.cause.to_wire())),
        ("detail", json!(c.detail)),
        ("running", c.running.as_ref().map_or(Value::Null, attempt)),
        ("started", attempts(&c.started)),
    ]
}

fn attempt_list(c: &Attempts) -> Fields {
    vec![("slot", json!(c.slot)), ("attempts", attempts(&c.attempts))]
}
