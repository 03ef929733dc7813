//! Dead letters: a task that takes its worker down each time is kept, looked at, and run again by a
//! mended worker.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::fs;

use pinmesh_client::Error;
use pinmesh_tests::{
    Broker, Finished, LIMIT, Process, READY_LIMIT, Supervisor, command, eventually, run, turn,
};
use rustix::process::Signal;
use serde_json::Value;

fn pinmesh(broker: &Broker, words: &[&str]) -> Finished {
    let http = broker.http.as_deref().unwrap();
    run("pinmesh", ["dead"].iter().chain(words).chain(&["--http", http]))
}

/// What `pinmesh dead WORDS --output json` prints.
#[track_caller]
fn json(broker: &Broker, words: &[&str]) -> Value {
    let finished = pinmesh(broker, &[words, &["--output", "json"]].concat());
    assert_eq!(finished.code, 0, "{words:?}: {}", finished.stderr);
    serde_json::from_str(&finished.stdout).unwrap()
}

#[test]
fn a_task_that_aborts_its_worker_is_run_again_by_a_mended_one() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(&[]);
    let client = broker.client_named("ann");
    // Longer than one answer of the broker has.
    let payload: Vec<u8> = (0..1_500_000_u32).map(|n| (n / 3) as u8).collect();
    let mut broken = Supervisor::start(&broker.backend, 1, &[]);
    for input in [&payload[..], b"in words"] {
        let error = client.call_raw("abort", input).expect_err("its worker dies each time");
        assert!(matches!(error, Error::Crashed { tries: 3, .. }), "{error}");
    }
    let error = client.call_raw("panic", b"oh no").expect_err("it panics");
    assert!(matches!(error, Error::Failed { .. }), "{error}");

    let letters = json(&broker, &["list", "--reason", "signalled"]);
    let first = &letters["letters"][0];
    assert_eq!((&first["status"], &first["detail"]), (&"CRASHED".into(), &6.into()), "{first}");
    assert_eq!((&first["tries"], &first["crashes"]), (&3.into(), &3.into()), "{first}");
    assert_eq!((&first["service"], &first["bytes"]), (&"abort".into(), &1_500_000.into()));
    assert_eq!(letters["letters"].as_array().unwrap().len(), 2, "{letters}");
    let shown = pinmesh(&broker, &["show", "2"]).stdout;
    assert!(shown.contains("CRASHED (signalled 6)") && shown.contains("in words"), "{shown}");
    assert!(shown.contains("ann") && shown.contains("killed by signal 6"), "{shown}");
    let file = folder.path().join("payload");
    let saved = pinmesh(&broker, &["show", "1", "--payload", file.to_str().unwrap()]);
    assert_eq!(saved.code, 0, "{}", saved.stderr);
    assert!(fs::read(&file).unwrap() == payload, "the payload is the one that was submitted");

    broken.process.signal(Signal::TERM);
    assert_eq!(broken.process.wait().code, 0);
    let output = folder.path().join("output");
    let script = format!("cat >{}.part && mv {0}.part {0}", output.display());
    let words = ["--backend", &broker.backend, "--workers", "1", "--exec-as", "abort"];
    let program = ["--services", "abort", "--", "sh", "-c", &script];
    let mut mended = Process::start(command("pinmesh-worker", words.iter().chain(&program)));
    mended.first_line(READY_LIMIT);
    assert_eq!(json(&broker, &["replay", "1"])["replayed"], 1);
    eventually("the replay has run", LIMIT, || broker.ledger().count("ok") == 1);
    assert!(fs::read(&output).unwrap() == payload, "and so is the replay's");

    assert_eq!(pinmesh(&broker, &["show", "1"]).code, 1, "it is a letter no more");
    assert_eq!(pinmesh(&broker, &["purge"]).code, 2, "of what, it must say");
    assert_eq!(json(&broker, &["purge", "--service", "abort"])["purged"], 1);
    assert_eq!(json(&broker, &["purge", "--all"])["purged"], 1);
    assert_eq!(json(&broker, &["list"])["letters"], Value::Array(Vec::new()));
    let ledger = broker.ledger();
    ledger.assert_balanced();
    assert_eq!((ledger.count("dead"), ledger.count("replayed")), (3, 1), "{ledger:?}");
    assert_eq!((ledger.count("dead_purged"), ledger.count("dead_held")), (2, 0), "{ledger:?}");
}
