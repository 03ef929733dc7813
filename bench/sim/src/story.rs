//! What happens, in words: for scenarios, and for the report of a failure.

use pinmesh_protocol::command::{FromBroker, ToBroker};
use pinmesh_protocol::id::{AttemptId, Epoch, RequestId};
use pinmesh_session::client::Outcome;

use crate::checker::Checker;
use crate::net::Owner;
use crate::record::{Effect, Said, Sent};
use crate::task::{Key, client_of};

fn attempts(attempts: &[AttemptId], checker: &Checker) -> String {
    let names: Vec<_> = attempts.iter().map(|attempt| checker.attempt_name(*attempt)).collect();
    names.join(" ")
}

/// The name of a client's request.
fn request(owner: Option<Owner>, request: RequestId, checker: &Checker) -> String {
    match owner {
        Some(Owner::Client(number)) => checker.key_name(Key { client: number as u32, request }),
        _ => request.to_string(),
    }
}

/// A command to a broker; `None`: not worth a line.
pub fn to_broker(command: &ToBroker<'_>, from: Owner, checker: &Checker) -> Option<String> {
    let name = |attempt| checker.attempt_name(attempt);
    let request = |id| request(Some(from), id, checker);
    Some(match command {
        ToBroker::Hello(_) => "HELLO".into(),
        ToBroker::Heartbeat(_) => return None,
        ToBroker::Ack(count) => format!("ACK {count}"),
        ToBroker::Submit(submit) => {
            format!("SUBMIT {} s{}", request(submit.request_id), submit.submission)
        }
        ToBroker::Cancel(cancel) => {
            let how = if cancel.is_hard { " hard" } else { "" };
            format!("CANCEL {} s{}{how}", request(cancel.request_id), cancel.submission)
        }
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
            let started = match &lost.started[..] {
                [] => String::new(),
                started => format!(" started {}", attempts(started, checker)),
            };
            let place = (lost.slot, lost.incarnation);
            format!("LOST {}#{} {} running {running}{started}", place.0, place.1, lost.cause)
        }
        ToBroker::Recalled(recalled) => {
            format!("RECALLED {}", attempts(&recalled.attempts, checker))
        }
        ToBroker::Window(window) => format!("WINDOW {}", window.tasks),
        ToBroker::Service(service) => format!("SERVICE {} {}", service.alias, service.name),
        ToBroker::Goodbye => "GOODBYE".into(),
        ToBroker::Refused(refused) => format!("REFUSED {} {}", refused.code, refused.reason),
        ToBroker::Fetch(_) => "FETCH".into(),
        ToBroker::Progress(progress) => {
            format!("PROGRESS {} {} #{}", name(progress.attempt), progress.kind, progress.sequence)
        }
    })
}

/// A command from a broker; `None`: not worth a line.
pub fn from_broker(command: &FromBroker<'_>, to: Owner, checker: &Checker) -> Option<String> {
    if !checker.is_told {
        return None;
    }
    let name = |attempt| checker.attempt_name(attempt);
    let request = |id| request(Some(to), id, checker);
    Some(match command {
        FromBroker::Welcome(welcome) => format!("WELCOME e{}", welcome.epoch),
        FromBroker::Heartbeat(_) => return None,
        FromBroker::Ack(count) => format!("ACK {count}"),
        FromBroker::Task(task) => {
            let key = Key { client: client_of(task.client_id), request: task.request_id };
            format!("TASK {} d{}", checker.key_name(key), task.dispatch)
        }
        FromBroker::Result(result) => {
            let (id, submission, status) = (result.request_id, result.submission, result.status);
            format!("RESULT {} s{submission} {status}", request(id))
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
        FromBroker::Accepted(accepted) => format!("ACCEPTED {}", request(accepted.request_id)),
        FromBroker::Drain => "DRAIN".into(),
        FromBroker::Service(_) => "SERVICE".into(),
        FromBroker::Fetched(fetched) => format!("FETCHED {:?}", fetched.state),
        FromBroker::Progress(progress) => {
            let (id, kind) = (request(progress.request_id), progress.kind);
            format!("PROGRESS {id} d{} {kind} #{}", progress.dispatch, progress.sequence)
        }
    })
}

/// An effect of a broker's machine that no peer's line repeats; `owner`: whose a socket is.
pub fn effect(
    effect: &Effect,
    checker: &Checker,
    epoch: Epoch,
    owner: impl Fn(pinmesh_core::Conn) -> Option<Owner>,
) -> Option<String> {
    match effect {
        Effect::Task { to, head, .. } => {
            let attempt = AttemptId { epoch, task: head.task, dispatch: head.dispatch };
            let to = owner(*to).map_or_else(String::new, |owner| checker.owner_name(owner));
            Some(format!("sends {} to {to}", checker.attempt_name(attempt)))
        }
        Effect::Result { to, head, said } => {
            let words = match said {
                Said::Handler(_) => String::new(),
                Said::Text(text) => format!(" ({text})"),
            };
            let name = request(owner(*to), head.request_id, checker);
            Some(format!("answers {name} s{} {}{words}", head.submission, head.status))
        }
        Effect::Send { command: Sent::Cancel(cancel), .. } => {
            let how = if cancel.is_hard { "hard" } else { "soft" };
            Some(format!("cancels {} {how}", checker.attempt_name(cancel.attempt)))
        }
        Effect::Progress { .. } | Effect::Send { .. } | Effect::Close(_) | Effect::Stages(_) => {
            None
        }
    }
}

/// How a request ended.
pub fn outcome(outcome: &Outcome<'_>) -> String {
    match outcome {
        Outcome::Result(result) => result.status.to_string(),
        Outcome::Local(end) => format!("{} here", format!("{end:?}").to_uppercase()),
    }
}

/// Whether a line begins with the first of these words and has the others behind it, in this
/// order. The name of a worker fits each of its lives.
pub fn fits(line: &str, words: &[String]) -> bool {
    let mut told = line.split_whitespace().map(|word| word.trim_matches(['(', ')', ',']));
    let Some((first, rest)) = words.split_first() else { return false };
    told.next().is_some_and(|word| is_word(word, first))
        && rest.iter().all(|wanted| told.by_ref().any(|word| is_word(word, wanted)))
}

fn is_word(word: &str, wanted: &str) -> bool {
    word == wanted || word.split_once('#').is_some_and(|(place, _)| place == wanted)
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_line_fits_words_in_their_order_and_a_worker_in_each_life() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let line = "a hears DONE job d1 OK from h0.1#2";
        assert!(fits(line, &words("a hears DONE job from h0.1")));
        assert!(fits(line, &words("a hears DONE job d1 from h0.1#2")));
        assert!(!fits(line, &words("a hears DONE job from h0.1#3")));
        assert!(!fits(line, &words("a hears DONE job from h0")));
        assert!(!fits(line, &words("a hears job DONE")));
        assert!(!fits(line, &words("hears DONE")));
    }
}
