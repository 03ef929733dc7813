//! Tasks go to workers that have what they require.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use pinmesh_tests::{Broker, Finished, Supervisor, run};
use serde_json::Value;

/// A worker whose service `work` answers with its own name.
fn worker(broker: &Broker, name: &str, flags: &[&str]) -> Supervisor {
    let service = ["--exec-as", "work", "--services", "work"];
    let command = ["--", "printf", name];
    let words: Vec<&str> = service.iter().chain(flags).chain(&command).copied().collect();
    Supervisor::start(&broker.backend, 1, &words)
}

fn pinmesh(broker: &Broker, words: &[&str]) -> Finished {
    run("pinmesh", ["--broker", &broker.frontend].iter().chain(words))
}

#[test]
fn what_requires_labels_runs_where_they_are() {
    let broker = Broker::start(&["--service-wait", "100ms"]);
    let _plain = worker(&broker, "plain", &[]);
    let _labelled = worker(&broker, "labelled", &["--label", "gpu", "--numa-label"]);
    for _ in 0..3 {
        let done = pinmesh(&broker, &["call", "work", "--require", "gpu"]);
        assert_eq!((done.code, &*done.stdout), (0, "labelled"), "{done:?}");
        let done = pinmesh(&broker, &["call", "work", "--require", "numa=0", "--require", "gpu"]);
        assert_eq!((done.code, &*done.stdout), (0, "labelled"), "{done:?}");
    }
    let nowhere = pinmesh(&broker, &["call", "work", "--require", "numa=7"]);
    assert_eq!(nowhere.code, 1, "{nowhere:?}");
    assert!(nowhere.stderr.contains("work{numa=7}"), "{nowhere:?}");
    let none = pinmesh(&broker, &["call", "work", "--require", "a b"]);
    assert!(none.code == 2 && none.stderr.contains("white space"), "{none:?}");

    let http = broker.http.as_deref().unwrap();
    let list = |what| -> Value {
        let listed = run("pinmesh", [what, "--http", http, "--output", "json"]);
        serde_json::from_str(&listed.stdout).unwrap()
    };
    let workers = list("workers");
    let workers = workers["workers"].as_array().unwrap().iter();
    let mut labels: Vec<_> = workers.map(|worker| worker["labels"].to_string()).collect();
    labels.sort();
    assert_eq!(labels, [r#"["gpu","numa=0"]"#, "[]"]);
    let services = list("services");
    let mut services = services["services"].as_array().unwrap().iter();
    let service = services.find(|service| service["name"] == "work{gpu,numa=0}").unwrap();
    assert_eq!(service["workers"], 1);
}

#[test]
fn what_is_no_label_stops_a_worker_at_once() {
    let refused = run("pinmesh-worker", ["--label", "a,b"]);
    assert!(refused.code == 2 && refused.stderr.contains("--label `a,b`"), "{refused:?}");
    let many: Vec<String> = (0..32).map(|number| format!("--label=l{number}")).collect();
    let refused = run("pinmesh-worker", many.iter().map(String::as_str).chain(["--numa-label"]));
    assert!(refused.code == 2 && refused.stderr.contains("33 labels"), "{refused:?}");
}
