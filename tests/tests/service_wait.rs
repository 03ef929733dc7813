//! A task for a service that nobody serves waits for a worker, and no longer than `service_wait`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use pinmesh_client::{Client, Error};
use pinmesh_tests::{Broker, LIMIT, Supervisor, eventually};

#[test]
fn a_task_that_comes_before_its_worker_waits_for_it() {
    let broker = Broker::start(&[]);
    let client = Client::connect(&broker.frontend).unwrap();
    let mut handle = client.submit_raw("echo", b"early".to_vec()).unwrap();
    eventually("the broker holds it", LIMIT, || broker.ledger().count("held") == 1);
    let supervisor = Supervisor::start(&broker.backend, 1, &["--services", "echo"]);
    assert_eq!(*handle.wait_timeout(LIMIT).unwrap(), *b"early");
    drop(supervisor);
    client.close(LIMIT).unwrap();
    assert_eq!(broker.drain().count("no_service"), 0);
}

#[test]
fn a_task_that_nobody_serves_ends_no_service_and_the_next_one_waits_anew() {
    let broker = Broker::start(&["--service-wait", "100ms"]);
    let supervisor = Supervisor::start(&broker.backend, 1, &["--services", "echo"]);
    let client = Client::connect(&broker.frontend).unwrap();
    for _ in 0..2 {
        let error = client.task("nobody").timeout(LIMIT).call_raw(Vec::new()).unwrap_err();
        assert!(
            matches!(&error, Error::NoService { service } if &**service == "nobody"),
            "{error}"
        );
    }
    assert_eq!(*client.call_raw("echo", b"served").unwrap(), *b"served");
    drop(supervisor);
    client.close(LIMIT).unwrap();
    assert_eq!(broker.drain().count("no_service"), 2);
}
