//! What happens, in words: for scenarios, and for the report of a failure.

use pinmesh_protocol::command::{FromBroker, Payload, ToBroker};
use pinmesh_protocol::id::{AttemptId, Epoch};
use pinmesh_session::client::Outcome;

use crate::checker::Checker;
use crate::record::{Effect, Sent};
use crate::task::{Key, client_of};

fn attempts(attempts: &[AttemptId], checker: &Checker) -> String {
    let names: Vec<_> = attempts.iter().map(|attempt| checker.attempt_name(*attempt)).collect();
    names.join(" ")
}

/// A command to a broker; `None`: not worth a line.
pub fn to_broker(command: &ToBroker<'_>, checker: &Checker) -> Option<String> {
    let name = |attempt| checker.attempt_name(attempt);
    Some(match command {
        ToBroker::Hello(_) => "HELLO".into(),
        ToBroker::Heartbeat(_) => return None,
        ToBroker::Ack(count) => format!("ACK {count}"),
        ToBroker::Submit(submit) => format!("SUBMIT {} s{}", submit.request_id, submit.submission),
        ToBroker::Cancel(cancel) => format!("CANCEL {} s{}", cancel.request_id, cancel.submission),
        ToBroker::Ready(ready) => {
            let held: Vec<_> = ready
                .held
                .iter()
                .map(|held| format!(" {} {}", name(held.attempt), held.state))
                .collect();
            format!("READY{}", held.concat())
        }
        ToBroker::Done(done) => format!("DONE {} {}", name(done.attempt), done.status),
        ToBroker::Return(attempt) => format!("RETURN {}", name(*attempt)),
        ToBroker::Host(host) => {
            let workers: Vec<_> = host
                .workers
                .iter()
                .map(|worker| format!(" {}#{}", worker.slot, worker.incarnation))
                .collect();
            format!("HOST{}", workers.concat())
        }
        ToBroker::Lost(lost) => {
            let running = lost.running.map_or_else(|| "nothing".into(), name);
            let started = attempts(&lost.started, checker);
            format!(
                "LOST {}#{} {}, running {running}, started [{started}]",
                lost.slot, lost.incarnation, lost.cause
            )
        }
        ToBroker::Recalled(recalled) => {
            format!("RECALLED {}", attempts(&recalled.attempts, checker))
        }
        ToBroker::Window(window) => format!("WINDOW {}", window.tasks),
        ToBroker::Service(service) => format!("SERVICE {} {}", service.alias, service.name),
        ToBroker::Goodbye => "GOODBYE".into(),
        ToBroker::Refused(refused) => format!("REFUSED {} {}", refused.code, refused.reason),
        ToBroker::Fetch(_) => "FETCH".into(),
        ToBroker::Progress(_) => "PROGRESS".into(),
    })
}

/// A command from a broker; `None`: not worth a line.
pub fn from_broker(command: &FromBroker<'_>, checker: &Checker) -> Option<String> {
    if !checker.is_told {
        return None;
    }
    let name = |attempt| checker.attempt_name(attempt);
    Some(match command {
        FromBroker::Welcome(welcome) => format!("WELCOME e{}", welcome.epoch),
        FromBroker::Heartbeat(_) => return None,
        FromBroker::Ack(count) => format!("ACK {count}"),
        FromBroker::Task(task) => {
            let request = task.request_id;
            let key = Key { client: client_of(task.client_id), request };
            format!("TASK {key} d{}", task.dispatch)
        }
        FromBroker::Result(result) => {
            let text = match result.payload {
                Payload::Inline(bytes) if bytes.len() != 20 => String::from_utf8_lossy(bytes),
                Payload::Inline(_) | Payload::Frames(_) => "a handler's output".into(),
            };
            format!(
                "RESULT {} s{} {} ({text})",
                result.request_id, result.submission, result.status
            )
        }
        FromBroker::Cancel(cancel) => {
            let how = if cancel.is_hard { "hard" } else { "soft" };
            format!("CANCEL {} {how}", name(cancel.attempt))
        }
        FromBroker::Recall(recall) => format!("RECALL {}", attempts(&recall.attempts, checker)),
        FromBroker::NoSession => "NO_SESSION".into(),
        FromBroker::Refused(refused) => format!("REFUSED {} {}", refused.code, refused.reason),
        FromBroker::Goodbye => "GOODBYE".into(),
        FromBroker::Window(window) => format!("WINDOW {}", window.tasks),
        FromBroker::Accepted(accepted) => format!("ACCEPTED {}", accepted.request_id),
        FromBroker::Drain => "DRAIN".into(),
        FromBroker::Service(_) => "SERVICE".into(),
        FromBroker::Fetched(fetched) => format!("FETCHED {:?}", fetched.state),
        FromBroker::Progress(_) => "PROGRESS".into(),
    })
}

/// An effect of a broker's machine that no peer's line repeats.
pub fn effect(effect: &Effect, checker: &Checker, epoch: Epoch) -> Option<String> {
    match effect {
        Effect::Task { head, .. } => {
            let attempt = AttemptId { epoch, task: head.task, dispatch: head.dispatch };
            Some(format!("sends {}", checker.attempt_name(attempt)))
        }
        Effect::Result { head, .. } => {
            Some(format!("answers {} s{} {}", head.request_id, head.submission, head.status))
        }
        Effect::Send { command: Sent::Cancel(cancel), .. } => {
            Some(format!("asks to stop {}", checker.attempt_name(cancel.attempt)))
        }
        Effect::Send { .. } | Effect::Close(_) | Effect::Stages(_) => None,
    }
}

/// How a request ended.
pub fn outcome(outcome: &Outcome<'_>) -> String {
    match outcome {
        Outcome::Result(result) => result.status.to_string(),
        Outcome::Local(end) => format!("here: {end:?}"),
    }
}
