//! Operators: the admin API and the commands that use it, on real processes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use pinmesh_tests::{Broker, Finished, LIMIT, Load, Mesh, Supervisor, eventually, run, turn};
use serde_json::Value;

fn pinmesh(broker: &Broker, words: &[&str]) -> Finished {
    let http = broker.http.as_deref().unwrap();
    run("pinmesh", words.iter().chain(&["--http", http]))
}

/// What `pinmesh WORDS --output json` prints.
#[track_caller]
fn json(broker: &Broker, words: &[&str]) -> Value {
    let finished = pinmesh(broker, &[words, &["--output", "json"]].concat());
    assert_eq!(finished.code, 0, "{words:?}: {}", finished.stderr);
    serde_json::from_str(&finished.stdout).unwrap()
}

fn named<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|item| item["name"] == name)
}

#[test]
fn a_paused_service_waits_and_nothing_of_it_is_lost() {
    let _turn = turn();
    let mesh = Mesh::start(1, &[]);
    let broker = &mesh.broker;
    let client = mesh.client();
    assert_eq!(&*client.call_raw("echo", b"one").unwrap(), b"one");
    assert_eq!(json(broker, &["pause", "echo"])["was_paused"], false);
    let submit = |n: u8| client.task("echo").submit_raw(vec![n]).unwrap();
    let handles: Vec<_> = (0..20).map(submit).collect();
    eventually("twenty wait", LIMIT, || {
        let services = json(broker, &["services"]);
        named(&services["services"], "echo").is_some_and(|echo| echo["pending"] == 20)
    });
    let tasks = json(broker, &["tasks", "--service", "echo"]);
    let number = tasks["tasks"][19]["task"].as_str().unwrap().to_owned();
    assert_eq!(json(broker, &["explain", &number])["waits_for"][0]["reason"], "paused");
    let told = pinmesh(broker, &["explain", &number]).stdout;
    assert!(told.contains("`pinmesh resume echo`"), "{told}");
    let shown = pinmesh(broker, &["services"]).stdout;
    assert!(shown.starts_with("SERVICE") && shown.contains("paused"), "{shown}");
    assert_eq!(json(broker, &["resume", "echo"])["was_paused"], true);
    for (n, handle) in handles.into_iter().enumerate() {
        assert_eq!(&*handle.wait().unwrap(), [n as u8]);
    }
    let ledger = broker.ledger();
    ledger.assert_balanced();
    assert_eq!(ledger.count("ok"), 21, "{ledger:?}");
}

#[test]
fn a_purge_and_a_cancel_end_what_they_name_and_no_more() {
    let _turn = turn();
    let mesh = Mesh::start(1, &[]);
    let (broker, client) = (&mesh.broker, mesh.client());
    client.call_raw("echo", b"x").unwrap();
    let runs = client.task("spin").submit_raw(b"1s".to_vec()).unwrap();
    json(broker, &["pause", "echo"]);
    let submit = |_| client.task("echo").submit_raw(b"x".to_vec()).unwrap();
    let waiting: Vec<_> = (0..5).map(submit).collect();
    eventually("five wait", LIMIT, || {
        let services = json(broker, &["services"]);
        named(&services["services"], "echo").is_some_and(|echo| echo["pending"] == 5)
    });
    let tasks = json(broker, &["tasks", "--service", "echo"]);
    let number = tasks["tasks"][0]["task"].as_str().unwrap().to_owned();
    assert_eq!(json(broker, &["cancel", &number])["state"], "cancelled");
    assert_eq!(json(broker, &["purge", "echo"])["purged"], 4);
    for handle in waiting {
        let error = handle.wait().unwrap_err().to_string();
        assert!(error.contains("was cancelled"), "{error}");
    }
    runs.wait().expect("it was running");
    let refused = pinmesh(broker, &["purge", "nobody"]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("nobody") && refused.stderr.contains("pinmesh services"));
}

#[test]
fn drained_workers_hosts_and_brokers_lose_no_task() {
    let _turn = turn();
    let mut broker = Broker::start(&[]);
    let mut first = Supervisor::start(&broker.backend, 2, &[]);
    let load = Load::start(broker.client(), 400);
    load.progress(300);
    let hosts = json(&broker, &["hosts"]);
    let host = hosts["hosts"][0]["id"].as_str().unwrap().to_owned();
    // Its supervisor starts another one in its place.
    let life = |broker: &Broker| {
        let workers = json(broker, &["workers"]);
        let of_slot = workers["workers"].as_array().unwrap().iter().filter(|worker| {
            worker["slot"] == 0 && worker["state"] != "dead" && worker["host"] == host.as_str()
        });
        of_slot.filter_map(|worker| worker["incarnation"].as_u64()).max()
    };
    let before = life(&broker).unwrap();
    json(&broker, &["drain", "worker", &format!("{}/0", &host[..12])]);
    eventually("another worker", LIMIT, || life(&broker).is_some_and(|now| now > before));
    load.progress(300);
    let second = Supervisor::start(&broker.backend, 2, &[]);
    json(&broker, &["drain", "host", &host]);
    let finished = first.process.wait();
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    load.progress(300);
    let report = load.finish();
    report.assert_all_ok();
    assert_eq!(report.retried, 0, "a drain charges no task");
    let ledger = broker.ledger();
    ledger.assert_balanced();
    assert_eq!(ledger.count("ok"), report.submitted, "{ledger:?}");
    json(&broker, &["drain", "broker"]);
    let finished = broker.process.wait();
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    drop(second);
}

#[test]
fn who_does_not_reach_the_api_is_told_where_it_was_sought() {
    let nobody = run("pinmesh", ["services", "--http", "127.0.0.1:1"]);
    assert_eq!(nobody.code, 3, "{}", nobody.stderr);
    assert!(nobody.stderr.contains("http://127.0.0.1:1"), "{}", nobody.stderr);
    assert!(nobody.stderr.contains("--http or PINMESH_HTTP"), "{}", nobody.stderr);
    let no_port = run("pinmesh", ["services", "--http", "localhost"]);
    assert_eq!(no_port.code, 2, "{}", no_port.stderr);
    let _turn = turn();
    let broker = Broker::start(&["--http", "off"]);
    // A port that speaks something else.
    let wrong = broker.frontend.strip_prefix("tcp://").unwrap();
    let wrong = run("pinmesh", ["services", "--http", wrong]);
    assert_eq!(wrong.code, 3, "{}", wrong.stderr);
}
