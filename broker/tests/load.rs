//! Many tasks at once: nothing is lost, nothing hangs, nothing ends twice.

mod common;

use std::thread;

use common::{Broker, Peer, payload_bytes, ready};
use pinmesh_protocol::command::{Done, FromBroker, Payload, ServiceRef, Submit, ToBroker};
use pinmesh_protocol::id::{AttemptId, ContentType, Epoch, Priority, RequestId, Submission};
use pinmesh_protocol::status::{EndStatus, Role, Status};
use rustix::process::Signal;

const TASKS: u64 = 10_000;
const BATCH: u64 = 200;

fn submit(request: u64, payload: &[u8]) -> ToBroker<'_> {
    ToBroker::Submit(Submit {
        request_id: RequestId(request),
        submission: Submission(1),
        service: ServiceRef::Name("echo"),
        priority: Priority::default(),
        deadline_ns: None,
        content_type: ContentType::RAW,
        options: None,
        payload: Payload::Inline(payload),
    })
}

/// Runs tasks until the broker says GOODBYE; how many there were.
fn work(mut worker: Peer, epoch: Epoch) -> u64 {
    for ran in 0.. {
        let task = worker.expect("TASK or GOODBYE", |command, frames| match command {
            FromBroker::Task(task) => {
                let attempt = AttemptId { epoch, task: task.task, dispatch: task.dispatch };
                Some(Some((attempt, payload_bytes(&task.payload, frames))))
            }
            FromBroker::Goodbye => Some(None),
            _ => None,
        });
        let Some((attempt, payload)) = task else { return ran };
        worker.send(&[ToBroker::Done(Done {
            attempt,
            status: EndStatus::Ok,
            residence_ns: 2,
            service_ns: 1,
            content_type: ContentType::RAW,
            payload: Payload::Inline(&payload),
        })]);
    }
    unreachable!("the loop has no end")
}

#[test]
fn ten_thousand_tasks_end_once_each() {
    let broker = Broker::start(&[]);
    let workers: Vec<_> = (0..2)
        .map(|number| {
            let (mut worker, welcome) = Peer::welcomed(&broker.backend, Role::Worker, 20 + number);
            worker.send(&[ready("echo")]);
            thread::spawn(move || work(worker, welcome.epoch))
        })
        .collect();
    let (mut client, _) = Peer::welcomed(&broker.frontend, Role::Client, 30);
    let payloads: Vec<_> = (0..=TASKS).map(|n| n.to_be_bytes()).collect();
    for first in (1..=TASKS).step_by(BATCH as usize) {
        let batch: Vec<_> =
            (first..first + BATCH).map(|n| submit(n, &payloads[n as usize])).collect();
        client.send(&batch);
    }
    let mut has_ended = vec![false; TASKS as usize + 1];
    for ended in 1..=TASKS {
        let request = client.expect("RESULT", |command, _| match command {
            FromBroker::Result(result) => {
                assert_eq!(result.status, Status::Ok);
                let number = result.request_id.0 as usize;
                assert_eq!(result.payload, Payload::Inline(&payloads[number]));
                Some(number)
            }
            _ => None,
        });
        assert!(!std::mem::replace(&mut has_ended[request], true), "{request} ended twice");
        if ended % BATCH == 0 {
            client.send(&[ToBroker::Ack(ended)]);
        }
    }
    broker.signal(Signal::TERM);
    let (status, errors) = broker.end();
    assert_eq!(status.code(), Some(0), "{errors}");
    assert!(errors.contains("ok: 10000, "), "{errors}");
    let ran: u64 = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
    assert_eq!(ran, TASKS);
}
