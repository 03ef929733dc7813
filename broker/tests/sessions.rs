//! A broker process and its peers: sessions, strangers, tasks, and the end.

mod common;

use common::{Broker, Peer, hello, payload_bytes, ready};
use pinmesh_protocol::command::{
    Done, FromBroker, Heartbeat, Refused, ServiceRef, Submit, ToBroker,
};
use pinmesh_protocol::id::{AttemptId, ContentType, Priority, RequestId, Submission};
use pinmesh_protocol::status::{EndStatus, RefusedCode, Role, Status};
use rustix::process::Signal;

fn submit(peer: &mut Peer, request: u64, payload: &[u8]) {
    peer.send_with(payload, |payload| {
        ToBroker::Submit(Submit {
            request_id: RequestId(request),
            submission: Submission(1),
            service: ServiceRef::Name("echo"),
            priority: Priority::default(),
            deadline_ns: None,
            content_type: ContentType::RAW,
            options: None,
            payload,
        })
    });
}

fn expect_refused(peer: &mut Peer) -> RefusedCode {
    peer.expect("REFUSED", |command, _| match command {
        FromBroker::Refused(refused) => Some(refused.code),
        _ => None,
    })
}

/// The next task of this worker, and its payload.
fn expect_task(worker: &mut Peer) -> (AttemptId, Vec<u8>) {
    worker.expect("TASK", |command, frames| match command {
        FromBroker::Task(task) => {
            assert_eq!(task.service, ServiceRef::Alias(0));
            let attempt =
                AttemptId { task: task.task, dispatch: task.dispatch, ..AttemptId::default() };
            Some((attempt, payload_bytes(&task.payload, frames)))
        }
        _ => None,
    })
}

#[test]
fn the_readiness_line_names_the_ports_that_were_bound() {
    let broker = Broker::start(&[]);
    assert!(broker.ready_line.starts_with("pinmesh-broker ready frontend=tcp://127.0.0.1:"));
    assert_ne!(broker.frontend.port(), Some(0));
    assert_ne!(broker.backend.port(), Some(0));
    assert_ne!(broker.frontend, broker.backend);
}

#[test]
fn peers_that_refuse_the_broker_again_and_again_do_not_fill_its_log() {
    const TIMES: usize = 2_000;
    let broker = Broker::start(&[]);
    let mut peer = Peer::connect(&broker.frontend);
    let reason = "r".repeat(200);
    let refused = Refused { code: RefusedCode::Malformed, reason: &reason };
    for _ in 0..TIMES {
        peer.send(&[hello(Role::Client, 1), ToBroker::Refused(refused)]);
    }
    let mut welcomes = 0;
    peer.expect("a WELCOME for each HELLO", |command, _| {
        welcomes += usize::from(matches!(command, FromBroker::Welcome(_)));
        (welcomes == TIMES).then_some(())
    });
    broker.signal(Signal::TERM);
    let (status, log) = broker.end();
    assert_eq!(status.code(), Some(0), "{log}");
    let told = log.lines().filter(|line| line.contains("refused the broker")).count();
    assert!((1..200).contains(&told), "{told} lines");
}

#[test]
fn bytes_that_are_no_command_are_refused_and_the_broker_lives_on() {
    let broker = Broker::start(&[]);
    let mut stranger = Peer::connect(&broker.frontend);
    stranger.send_bytes(b"\xc1 this is not a command");
    assert_eq!(expect_refused(&mut stranger), RefusedCode::Malformed);

    let (mut client, _) = Peer::welcomed(&broker.frontend, Role::Client, 1);
    client.send_bytes(&[0x91, 0x7f]);
    assert_eq!(expect_refused(&mut client), RefusedCode::UnknownOp);
    client.send(&[ToBroker::Heartbeat(Heartbeat { sequence: 1, silence_ns: None })]);
    client.expect_no_session();

    let _ = Peer::welcomed(&broker.frontend, Role::Client, 2);
}

#[test]
fn commands_before_hello_are_answered_no_session_and_hello_still_works() {
    let broker = Broker::start(&[]);
    let mut worker = Peer::connect(&broker.backend);
    worker.send(&[ready("echo")]);
    worker.expect_no_session();
    worker.send(&[hello(Role::Worker, 3)]);
    worker.expect("WELCOME", |c, _| matches!(c, FromBroker::Welcome(_)).then_some(()));
}

#[test]
fn a_client_at_the_backend_is_refused() {
    let broker = Broker::start(&[]);
    let mut lost = Peer::connect(&broker.backend);
    lost.send(&[hello(Role::Client, 4)]);
    assert_eq!(expect_refused(&mut lost), RefusedCode::NotAllowed);
}

#[test]
fn a_payload_of_any_size_goes_to_the_worker_and_back_unchanged() {
    let broker = Broker::start(&[]);
    let (mut worker, _) = Peer::welcomed(&broker.backend, Role::Worker, 5);
    worker.send(&[ready("echo")]);
    let (mut client, welcome) = Peer::welcomed(&broker.frontend, Role::Client, 6);
    for (request, size) in [0, 64, 5_000, 40_000, 3_000_000].into_iter().enumerate() {
        let request = request as u64 + 1;
        let sent: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        submit(&mut client, request, &sent);
        let (mut attempt, received) = expect_task(&mut worker);
        assert!(received == sent, "{size} bytes differ at the worker");
        attempt.epoch = welcome.epoch;
        worker.send_with(&received, |payload| {
            ToBroker::Done(Done {
                attempt,
                status: EndStatus::Ok,
                residence_ns: 2,
                service_ns: 1,
                content_type: ContentType::RAW,
                payload,
            })
        });
        let got = client.expect("RESULT", |command, frames| match command {
            FromBroker::Result(result) => {
                assert_eq!((result.request_id, result.status), (RequestId(request), Status::Ok));
                Some(payload_bytes(&result.payload, frames))
            }
            _ => None,
        });
        assert!(got == sent, "{size} bytes differ at the client");
        client.send(&[ToBroker::Ack(request)]);
    }
    broker.signal(Signal::TERM);
    let (status, errors) = broker.end();
    assert_eq!(status.code(), Some(0), "{errors}");
}

#[test]
fn sigterm_drains_says_goodbye_and_ends_with_zero() {
    let broker = Broker::start(&[]);
    let (mut client, _) = Peer::welcomed(&broker.frontend, Role::Client, 7);
    broker.signal(Signal::TERM);
    client.expect("GOODBYE", |c, _| matches!(c, FromBroker::Goodbye).then_some(()));
    let (status, errors) = broker.end();
    assert_eq!(status.code(), Some(0), "{errors}");
    assert!(errors.contains("drained") && errors.contains("traffic: in"), "{errors}");
}

#[test]
fn a_broker_whose_log_nobody_reads_any_more_serves_on_and_drains() {
    let mut broker = Broker::start(&[]);
    broker.close_stderr();
    // Its report is several lines of the log.
    broker.signal(Signal::USR1);
    let (mut client, _) = Peer::welcomed(&broker.frontend, Role::Client, 11);
    client.send(&[ToBroker::Heartbeat(Heartbeat { sequence: 1, silence_ns: None })]);
    client.expect("its heartbeat", |c, _| matches!(c, FromBroker::Heartbeat(_)).then_some(()));
    broker.signal(Signal::TERM);
    client.expect("GOODBYE", |c, _| matches!(c, FromBroker::Goodbye).then_some(()));
    assert_eq!(broker.end_unheard().code(), Some(0));
}

#[test]
fn a_drain_that_lasts_too_long_ends_with_three_and_says_what_was_left() {
    let broker = Broker::start(&["--drain-time", "100ms"]);
    let (mut client, _) = Peer::welcomed(&broker.frontend, Role::Client, 8);
    submit(&mut client, 1, b"for nobody");
    client.send(&[ToBroker::Heartbeat(Heartbeat { sequence: 1, silence_ns: None })]);
    client.expect("its heartbeat", |c, _| matches!(c, FromBroker::Heartbeat(_)).then_some(()));
    broker.signal(Signal::TERM);
    let (status, errors) = broker.end();
    assert_eq!(status.code(), Some(3), "{errors}");
    assert!(errors.contains("cut short"), "{errors}");
}

#[test]
fn a_second_signal_ends_the_drain() {
    let broker = Broker::start(&["--drain-time", "1h"]);
    let (mut client, _) = Peer::welcomed(&broker.frontend, Role::Client, 9);
    submit(&mut client, 1, b"for nobody");
    client.send(&[ToBroker::Heartbeat(Heartbeat { sequence: 1, silence_ns: None })]);
    client.expect("its heartbeat", |c, _| matches!(c, FromBroker::Heartbeat(_)).then_some(()));
    broker.signal(Signal::INT);
    broker.signal(Signal::TERM);
    let (status, errors) = broker.end();
    assert_eq!(status.code(), Some(3), "{errors}");
}

#[test]
fn the_event_loop_is_pinned_where_it_was_asked_to_be() {
    let cpu = pinmesh_host::allowed().unwrap().lowest().unwrap().to_string();
    let broker = Broker::start(&["--cpu", &cpu]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("Cpus_allowed_list:")).unwrap();
    assert_eq!(line.split_whitespace().nth(1), Some(cpu.as_str()));
}

#[test]
fn the_latency_log_holds_what_was_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.hlog");
    let broker = Broker::start(&["--latency-log", path.to_str().unwrap()]);
    let (mut worker, welcome) = Peer::welcomed(&broker.backend, Role::Worker, 10);
    worker.send(&[ready("echo")]);
    let (mut client, _) = Peer::welcomed(&broker.frontend, Role::Client, 11);
    submit(&mut client, 1, b"x");
    let (mut attempt, payload) = expect_task(&mut worker);
    attempt.epoch = welcome.epoch;
    worker.send_with(&payload, |payload| {
        ToBroker::Done(Done {
            attempt,
            status: EndStatus::Ok,
            residence_ns: 2_000,
            service_ns: 1_000,
            content_type: ContentType::RAW,
            payload,
        })
    });
    client.expect("RESULT", |c, _| matches!(c, FromBroker::Result(_)).then_some(()));
    client.send(&[ToBroker::Ack(1)]);
    broker.signal(Signal::TERM);
    let (status, errors) = broker.end();
    assert_eq!(status.code(), Some(0), "{errors}");
    let log = pinmesh_histogram::read_log(&path).unwrap();
    assert_eq!(log.summary(pinmesh_histogram::Stage::Service).map(|s| s.count), Some(1));
}
