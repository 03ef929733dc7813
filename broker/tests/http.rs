//! The admin API of a real broker: who may ask, where it listens, and what it answers.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use common::{Broker, LIMIT, Peer, ready, run, text};
use pinmesh_protocol::command::{FromBroker, Payload, ServiceRef, Submit, ToBroker};
use pinmesh_protocol::id::{ContentType, Priority, RequestId, Submission};
use pinmesh_protocol::status::{Role, Status};
use serde_json::Value;

fn http(broker: &Broker) -> &str {
    let (_, http) = broker.ready_line.trim().split_once(" http=").unwrap();
    http
}

/// One request; its status and its body.
fn exchange(mut stream: impl Read + Write, request: &str) -> (u16, Value) {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {answer}")))
}

fn ask_with(broker: &Broker, method: &str, path: &str, headers: &str) -> (u16, Value) {
    let stream = TcpStream::connect(http(broker)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
    exchange(stream, &request)
}

fn ask(broker: &Broker, method: &str, path: &str) -> (u16, Value) {
    ask_with(broker, method, path, "Host: localhost\r\n")
}

fn submit(request: u64) -> ToBroker<'static> {
    ToBroker::Submit(Submit {
        request_id: RequestId(request),
        submission: Submission(1),
        service: ServiceRef::Name("work/1"),
        priority: Priority::default(),
        deadline_ns: None,
        content_type: ContentType::RAW,
        options: None,
        payload: Payload::Inline(b"x"),
    })
}

/// The answer, once it is as wanted.
fn eventually(broker: &Broker, path: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + LIMIT;
    loop {
        let (_, value) = ask(broker, "GET", path);
        if is_wanted(&value) {
            return value;
        }
        assert!(Instant::now() < until, "{path}: {value}");
        std::thread::yield_now();
    }
}

#[test]
fn an_operator_sees_pauses_explains_cancels_and_purges() {
    let broker = Broker::start(&[]);
    let (mut client, _) = Peer::welcomed(&broker.frontend, Role::Client, 1);
    let (mut worker, _) = Peer::welcomed(&broker.backend, Role::Worker, 2);
    worker.send(&[ready("work/1")]);
    let service = "/v1/services/work%2F1";
    eventually(&broker, service, |value| value["workers"] == 1);
    let paused = ask(&broker, "POST", &format!("{service}/pause"));
    assert_eq!((paused.0, &paused.1["was_paused"]), (200, &Value::Bool(false)));
    client.send(&[submit(1), submit(2), submit(3)]);
    let view = eventually(&broker, service, |value| value["pending"] == 3);
    assert_eq!((&view["paused"], &view["pending_by_priority"][4]), (&Value::Bool(true), &3.into()));

    let (_, tasks) = ask(&broker, "GET", "/v1/tasks?service=work%2F1");
    let ids: Vec<_> = tasks["tasks"].as_array().unwrap().iter().collect();
    assert_eq!((ids.len(), &tasks["next_from"]), (3, &Value::Null));
    let id = ids[0]["task"].as_str().unwrap();
    let (_, why) = ask(&broker, "GET", &format!("/v1/tasks/{id}"));
    assert_eq!((&why["state"], &why["service"]), (&"pending".into(), &"work/1".into()));
    assert_eq!(why["waits_for"], serde_json::json!([{ "reason": "paused" }]));

    let cancelled = ask(&broker, "POST", &format!("/v1/tasks/{id}/cancel"));
    assert_eq!((cancelled.0, &cancelled.1["state"]), (200, &"cancelled".into()));
    let (_, purged) = ask(&broker, "POST", &format!("{service}/purge"));
    assert_eq!(purged["purged"], 2);
    for _ in 0..3 {
        let status = client.expect("RESULT", |command, _| match command {
            FromBroker::Result(result) => Some(result.status),
            _ => None,
        });
        assert_eq!(status, Status::Cancelled);
    }
    let (status, gone) = ask(&broker, "POST", &format!("/v1/tasks/{id}/cancel"));
    assert!(status == 409 || status == 404, "{gone}");
    client.send(&[submit(4)]);
    ask(&broker, "POST", &format!("{service}/resume"));
    worker.expect("TASK", |command, _| matches!(command, FromBroker::Task(_)).then_some(()));
    let (_, ledger) = ask(&broker, "GET", "/v1/ledger");
    assert_eq!((&ledger["balanced"], &ledger["cancelled"]), (&Value::Bool(true), &3.into()));
    let (_, workers) = ask(&broker, "GET", "/v1/workers");
    assert_eq!(workers["workers"][0]["in_flight"], 1);
    let (_, clients) = ask(&broker, "GET", "/v1/clients");
    assert_eq!(clients["clients"][0]["name"], "test@here");
    let worker_id = workers["workers"][0]["id"].as_str().unwrap();
    assert_eq!(ask(&broker, "POST", &format!("/v1/workers/{worker_id}/drain")).0, 200);
    worker.expect("DRAIN", |command, _| matches!(command, FromBroker::Drain).then_some(()));
}

#[test]
fn what_cannot_be_done_is_told_as_json_with_the_remedy() {
    let broker = Broker::start(&[]);
    for (method, path, code) in [
        ("GET", "/", 404),
        ("GET", "/v1/services/nobody", 404),
        ("POST", "/v1/services/nobody/pause", 404),
        ("POST", "/v1/services/nobody/purge", 404),
        ("GET", "/v1/tasks/18446744073709551615", 404),
        ("GET", "/v1/tasks/x", 400),
        ("GET", "/v1/workers?page=1", 400),
        ("GET", "/v1/workers?from=-1", 400),
        ("POST", "/v1/workers/12/drain", 400),
        ("POST", "/v1/hosts/00000000000000000000000000000000/drain", 404),
        ("POST", "/v1/hosts/00000000000000000000000000000000/workers/x/drain", 400),
        ("POST", "/v1/services", 405),
        ("GET", "/v1/drain", 405),
        ("DELETE", "/v1/tasks/1", 405),
    ] {
        let (status, told) = ask(&broker, method, path);
        assert_eq!(status, code, "{method} {path}: {told}");
        let is_text = |key: &str| told[key].as_str().is_some_and(|text| !text.is_empty());
        assert!(is_text("error") && is_text("remedy"), "{method} {path}: {told}");
    }
}

#[test]
fn no_web_page_can_make_its_browser_ask() {
    let broker = Broker::start(&[]);
    let own = format!("Host: {}\r\n", http(&broker));
    for headers in [
        "Host: evil.example\r\n".to_owned(),
        format!("{own}Origin: http://evil.example\r\n"),
        format!("{own}Origin: null\r\n"),
        format!("{own}Sec-Fetch-Site: cross-site\r\n"),
    ] {
        for (method, path) in [("POST", "/v1/drain"), ("GET", "/v1/tasks")] {
            let (status, told) = ask_with(&broker, method, path, &headers);
            assert_eq!(status, 403, "{method} {headers}: {told}");
        }
    }
    let own_page = format!("{own}Origin: http://{}\r\n", http(&broker));
    assert_eq!(ask_with(&broker, "GET", "/v1/tasks", &own_page).0, 200);
}

#[test]
fn a_unix_socket_is_for_its_user_only_and_one_left_behind_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("http");
    // Bound, and nobody listens any more.
    drop(UnixListener::bind(&path).unwrap());
    let listen = format!("unix:{}", path.display());
    let broker = Broker::start(&["--http", &listen]);
    assert_eq!(http(&broker), listen);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let stream = UnixStream::connect(&path).unwrap();
    let (status, _) =
        exchange(stream, "GET /v1/ledger HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(status, 200);
    let second = run(&[
        "--http",
        &listen,
        "--frontend",
        "tcp://127.0.0.1:0",
        "--backend",
        "tcp://127.0.0.1:0",
    ]);
    assert_eq!(second.status.code(), Some(1));
    let told = text(&second.stderr);
    assert!(told.contains("--http unix:") && told.contains("taken"), "{told}");
    broker.signal(rustix::process::Signal::TERM);
    assert!(broker.end().0.success());
    assert!(!path.exists(), "it is taken away at the end");
}

#[test]
fn a_taken_port_and_an_address_of_others_are_refused_with_the_remedy() {
    let broker = Broker::start(&[]);
    let ports = ["--frontend", "tcp://127.0.0.1:0", "--backend", "tcp://127.0.0.1:0"];
    let start = |listen: &str| run(&[&ports[..], &["--http", listen]].concat());
    let taken = start(http(&broker));
    let told = text(&taken.stderr);
    assert_eq!(taken.status.code(), Some(1), "{told}");
    assert!(told.contains("--http 127.0.0.1:") && told.contains("--http off"), "{told}");
    let open = start("0.0.0.0:5557");
    let told = text(&open.stderr);
    assert_eq!(open.status.code(), Some(2), "{told}");
    assert!(told.contains("--http 0.0.0.0:5557") && told.contains("ssh -L"), "{told}");
}

#[test]
fn without_it_nothing_listens_and_its_drain_is_a_signals() {
    let off = Broker::start(&["--http", "off"]);
    assert!(!off.ready_line.contains("http="), "{}", off.ready_line);
    let broker = Broker::start(&[]);
    assert_eq!(ask(&broker, "POST", "/v1/drain").0, 200);
    let (status, errors) = broker.end();
    assert!(status.success() && errors.contains("drained"), "{errors}");
}

#[test]
fn a_connection_that_says_nothing_keeps_nobody_out() {
    let broker = Broker::start(&[]);
    let idle: Vec<_> = (0..20).map(|_| TcpStream::connect(http(&broker)).unwrap()).collect();
    let stream = TcpStream::connect(http(&broker)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(9))).unwrap();
    let request = "GET /v1/ledger HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(exchange(stream, request).0, 200);
    drop(idle);
}
