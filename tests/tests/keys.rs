//! Who gets in and who does not, with the programs as they are shipped.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use pinmesh_client::Client;
use pinmesh_tests::{
    Broker, FAST, Finished, KeyRing, LIMIT, Process, Supervisor, command, eventually, run, turn,
};
use pinmesh_worker::Worker;
use rustix::process::Signal;

/// A broker with the keys of a ring.
fn broker(ring: &KeyRing) -> Broker {
    let flags = ring.broker_flags();
    let mut arguments: Vec<&str> = flags.iter().map(String::as_str).collect();
    arguments.extend(FAST);
    Broker::start(&arguments)
}

/// A mesh in which `farm` works.
fn mesh(ring: &KeyRing) -> (Broker, Supervisor) {
    let broker = broker(ring);
    let flags = ring.peer_flags("farm");
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let supervisor = Supervisor::start(&broker.backend, 1, &flags);
    (broker, supervisor)
}

/// `pinmesh call echo x`, which gives up soon.
fn call(broker: &Broker, flags: &[String]) -> Finished {
    let mut command = command("pinmesh", ["call", "echo", "x", "--connect-timeout", "2s"]);
    command.args(["--broker", &broker.frontend]).args(flags);
    Process::start(command).wait()
}

#[track_caller]
fn assert_gets_nowhere(finished: &Finished) {
    assert_eq!((finished.code, &*finished.stdout), (3, ""), "{}", finished.stderr);
}

/// What the broker says of its keys when it is asked: handshakes accepted and refused.
fn handshakes(broker: &Broker) -> (u64, u64) {
    let mark = broker.process.log_mark();
    broker.process.signal(Signal::USR1);
    broker.process.log_line(mark, "report of the keys", |line| {
        let (_, counts) = line.split_once(" authorized, ")?;
        let (accepted, rest) = counts.split_once(" handshakes accepted, ")?;
        Some((accepted.parse().ok()?, rest.strip_suffix(" refused")?.parse().ok()?))
    })
}

fn set_mode(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn listed_keys_work_for_the_command_the_library_and_an_embedded_worker() {
    let ring = KeyRing::new();
    let (broker, supervisor) = mesh(&ring);
    let key = fs::read_to_string(ring.path("broker.pub")).unwrap();
    let key = key.lines().last().unwrap();
    broker.process.log_line(0, "word of the keys", |line| {
        (line.contains("keys are on") && line.contains(key) && line.contains("authorized=2"))
            .then_some(())
    });
    let finished = call(&broker, &ring.peer_flags("batch"));
    assert_eq!((finished.code, finished.stdout.trim()), (0, "x"), "{}", finished.stderr);
    let mut by_environment = command("pinmesh", ["call", "echo", "y"]);
    by_environment.env("PINMESH_BROKER", &broker.frontend);
    by_environment.env("PINMESH_KEY", ring.file("batch.key")).env("PINMESH_BROKER_KEY", key);
    let finished = Process::start(by_environment).wait();
    assert_eq!((finished.code, finished.stdout.trim()), (0, "y"), "{}", finished.stderr);

    let worker = Worker::new().service("twice", |n: u64| Ok::<_, String>(2 * n));
    let worker = worker.keys(ring.peer("farm")).embed(&[&broker.backend]).unwrap();
    let client = ring.client("batch", &broker.frontend).connect().unwrap();
    assert_eq!(client.call::<_, u64>("twice", &21).unwrap(), 42);
    worker.stop().unwrap();
    // Two commands, the library, and the host with its worker and the embedded one.
    let (accepted, refused) = handshakes(&broker);
    assert!(accepted >= 6 && refused == 0, "{accepted} accepted, {refused} refused");
    drop((client, supervisor));
    assert_eq!(broker.drain().count("ok"), 3);
}

#[test]
fn an_unlisted_key_and_no_key_and_another_brokers_key_get_nowhere() {
    let ring = KeyRing::new();
    ring.make("stranger", "client");
    let (broker, supervisor) = mesh(&ring);
    let mark = broker.process.log_mark();
    let finished = call(&broker, &ring.peer_flags("stranger"));
    assert_gets_nowhere(&finished);
    assert!(finished.stderr.contains("authorized_keys does not list"), "{}", finished.stderr);
    broker.process.log_line(mark, "word of the refusal", |line| {
        (line.contains("refused") && line.contains("the key is not listed")).then_some(())
    });
    assert!(handshakes(&broker).1 > 0);
    assert_gets_nowhere(&call(&broker, &[]));
    // With somebody else's key for the broker's, nothing is said to whoever answers there.
    let [key, file, flag, _] = ring.peer_flags("batch");
    let wrong = KeyRing::new().make("broker-2", "broker");
    assert_gets_nowhere(&call(&broker, &[key, file, flag, wrong.trim().into()]));
    assert_eq!(broker.ledger().count("submitted"), 0);

    let finished = call(&broker, &ring.peer_flags("batch"));
    assert_eq!((finished.code, finished.stdout.trim()), (0, "x"), "{}", finished.stderr);
    drop(supervisor);
    assert_eq!(broker.drain().count("submitted"), 1);
}

#[test]
fn a_worker_without_a_listed_key_never_serves() {
    let ring = KeyRing::new();
    ring.make("stranger", "worker");
    let broker = broker(&ring);
    for flags in [&ring.peer_flags("stranger")[..], &[]] {
        let mut command = command("pinmesh-worker", ["--workers", "1", "--backend"]);
        command.arg(&broker.backend).args(flags);
        let worker = Process::start(command);
        worker.log_line(0, "word of the silence", |line| {
            line.contains(&format!("no answer from {}", broker.backend)).then_some(())
        });
        // Nobody serves, so the task waits.
        let client = ring.client("batch", &broker.frontend).connect().unwrap();
        let handle = client.submit_raw("echo", b"x".to_vec()).unwrap();
        eventually("the task is held", LIMIT, || broker.ledger().count("held") == 1);
        handle.cancel();
        assert!(handle.wait().is_err());
        eventually("the task is gone", LIMIT, || broker.ledger().count("held") == 0);
    }
    assert_eq!(broker.ledger().count("ok"), 0);
}

#[test]
fn a_key_opens_the_side_of_its_role_only() {
    let ring = KeyRing::new();
    let (broker, supervisor) = mesh(&ring);
    let mark = broker.process.log_mark();
    // A worker's key at the frontend.
    assert_gets_nowhere(&call(&broker, &ring.peer_flags("farm")));
    let refusal = |name: &str| {
        let words = format!("`{name}` may not connect here");
        broker.process.log_line(mark, &words, |line| line.contains(&words).then_some(()));
    };
    refusal("farm");
    // A client's key at the backend.
    let mut command = command("pinmesh-worker", ["--workers", "1", "--backend"]);
    command.arg(&broker.backend).args(ring.peer_flags("batch"));
    let worker = Process::start(command);
    refusal("batch");
    drop((worker, supervisor));
    assert_eq!(broker.drain().count("submitted"), 0);
}

#[test]
fn a_name_in_the_list_stands_beside_the_hello_in_the_log() {
    let ring = KeyRing::new();
    let mut command = command("pinmesh-broker", ring.broker_flags());
    command.args([
        "--http",
        "127.0.0.1:0",
        "--frontend",
        "tcp://127.0.0.1:0",
        "--backend",
        "tcp://127.0.0.1:0",
    ]);
    command.env("PINMESH_LOG", "debug");
    let broker = Broker::run(command);
    let _client = ring.client("batch", &broker.frontend).name("any-name").connect().unwrap();
    broker.process.log_line(0, "HELLO", |line| {
        let has = |words: &str| line.contains(words);
        (has("HELLO") && has("any-name") && has("authorized_as=\"batch\"")).then_some(())
    });
}

#[test]
fn files_that_others_can_read_or_change_are_refused_with_the_remedy() {
    let ring = KeyRing::new();
    let flags = ring.broker_flags();
    let check = |extra: &str| run("pinmesh-broker", flags.iter().chain([&extra.to_owned()]));
    assert_eq!(check("--check-config").code, 0);
    for (file, mode, good, remedy) in [
        ("broker.key", 0o640, 0o600, "chmod 600"),
        ("broker.key", 0o604, 0o600, "chmod 600"),
        ("authorized_keys", 0o664, 0o644, "chmod 644"),
    ] {
        set_mode(ring.path(file), mode);
        for finished in [check("--check-config"), run("pinmesh-broker", &flags)] {
            assert_eq!((finished.code, &*finished.stdout), (2, ""), "{}", finished.stderr);
            assert!(finished.stderr.contains(remedy), "{}", finished.stderr);
            assert!(finished.stderr.contains(&ring.file(file)), "{}", finished.stderr);
        }
        set_mode(ring.path(file), good);
    }
    set_mode(ring.path("farm.key"), 0o644);
    set_mode(ring.path("batch.key"), 0o640);
    let worker = run("pinmesh-worker", ring.peer_flags("farm"));
    let mut ping = command("pinmesh", ["ping"]);
    ping.args(ring.peer_flags("batch"));
    for finished in [worker, Process::start(ping).wait()] {
        assert_eq!((finished.code, &*finished.stdout), (2, ""), "{}", finished.stderr);
        assert!(finished.stderr.contains("chmod 600"), "{}", finished.stderr);
    }
}

#[test]
fn the_flags_of_keys_go_together() {
    let ring = KeyRing::new();
    for (program, arguments, words) in [
        ("pinmesh-broker", vec!["--key", "broker.key"], "--authorized-keys"),
        ("pinmesh-broker", vec!["--authorized-keys", "authorized_keys"], "--key"),
        ("pinmesh-worker", vec!["--key", "farm.key"], "--broker-key"),
        ("pinmesh-worker", vec!["--broker-key", "broker.pub"], "--key"),
        ("pinmesh", vec!["ping", "--key", "batch.key"], "--broker-key"),
        ("pinmesh", vec!["ping", "--broker-key", "broker.pub"], "--key"),
    ] {
        let mut command = command(program, arguments);
        command.current_dir(ring.path(""));
        let finished = Process::start(command).wait();
        assert_eq!((finished.code, &*finished.stdout), (2, ""), "{}", finished.stderr);
        assert!(finished.stderr.contains(words), "{}", finished.stderr);
    }
}

/// Sends SIGHUP and waits for what the broker says of it.
fn reload(broker: &Broker) -> String {
    let mark = broker.process.log_mark();
    broker.process.signal(Signal::HUP);
    let is_it = |line: &str| line.contains("SIGHUP: ").then(|| line.to_owned());
    broker.process.log_line(mark, "word of the reload", is_it)
}

#[test]
fn sighup_reads_the_list_again_and_a_bad_one_changes_nothing() {
    let ring = KeyRing::new();
    let (broker, supervisor) = mesh(&ring);
    let late = ring.make("late", "client");
    let list = fs::read_to_string(ring.path("authorized_keys")).unwrap();

    // It is refused, and goes on trying.
    let client = ring.client("late", &broker.frontend).start().unwrap();
    eventually("the unlisted key is refused", LIMIT, || handshakes(&broker).1 > 0);
    ring.list(&[list.trim(), "nonsense"]);
    let said = reload(&broker);
    assert!(said.contains("line 3") && said.contains("kept=2"), "{said}");
    ring.list(&[list.trim(), &late]);
    let said = reload(&broker);
    assert!(said.contains("authorized=3 added=1 changed=0 removed=0"), "{said}");
    client.wait_connected(LIMIT).unwrap();
    assert_eq!(*client.call_raw("echo", b"x").unwrap(), *b"x");

    // A key that is taken out opens nothing new.
    ring.list(&[&list]);
    let said = reload(&broker);
    assert!(said.contains("authorized=2 added=0 changed=0 removed=1"), "{said}");
    assert_gets_nowhere(&call(&broker, &ring.peer_flags("late")));
    drop((client, supervisor));
    broker.drain();
}

#[test]
fn sighup_without_keys_changes_nothing() {
    let broker = Broker::start(&[]);
    let said = reload_without_keys(&broker);
    assert!(said.contains("restart the broker"), "{said}");
    Client::connect(&broker.frontend).unwrap();
    broker.drain();
}

fn reload_without_keys(broker: &Broker) -> String {
    broker.process.signal(Signal::HUP);
    let is_it = |line: &str| line.contains("SIGHUP").then(|| line.to_owned());
    broker.process.log_line(0, "word of SIGHUP", is_it)
}

#[test]
fn keygen_writes_a_file_for_its_owner_and_never_over_another() {
    let folder = tempfile::tempdir().unwrap();
    let keygen = |arguments: &[&str]| {
        let mut command: Command = command("pinmesh", ["keygen"]);
        command.args(arguments).current_dir(folder.path());
        Process::start(command).wait()
    };
    let finished = keygen(&["desk"]);
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    let fields: Vec<&str> = finished.stdout.split_whitespace().collect();
    assert_eq!((fields[0], fields[1].len(), fields[2]), ("desk", 40, "client"));
    assert!(finished.stderr.contains("authorized_keys"), "{}", finished.stderr);
    let path = folder.path().join("desk.key");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let secret = fs::read_to_string(&path).unwrap();
    assert!(
        secret.contains(fields[1]) && !finished.stderr.contains(secret.lines().last().unwrap())
    );
    let again = keygen(&["desk", "--role", "worker"]);
    assert_eq!((again.code, &*again.stdout), (2, ""));
    assert!(again.stderr.contains("never overwritten"), "{}", again.stderr);
    assert_eq!(fs::read_to_string(&path).unwrap(), secret);

    let finished = keygen(&["hub", "--role", "broker"]);
    assert_eq!((finished.code, finished.stdout.len()), (0, 40), "{}", finished.stdout);
    let public = fs::read_to_string(folder.path().join("hub.pub")).unwrap();
    assert_eq!(public.lines().last(), Some(&*finished.stdout));
    assert_eq!(keygen(&["a/b"]).code, 2);
    assert_eq!(keygen(&["x", "--dir", "nowhere"]).code, 4);
}

#[test]
fn a_benchmark_makes_keys_for_its_mesh_and_says_so() {
    let _turn = turn();
    let words = "throughput --curve --window 100 --warmup 200ms --duration 500ms --json -";
    let finished = run("pinmesh-bench", words.split(' '));
    let report: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(report["config"]["encrypted"], true);
    assert!(report["runs"][0]["counts"]["succeeded"].as_u64().unwrap() > 0, "{report:#}");
    assert!(finished.stderr.contains("with keys (CURVE)"), "{}", finished.stderr);
}
