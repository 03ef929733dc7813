//! A cancel reaches the handler that runs; a hard one kills it, and harms nobody else.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use pinmesh_client::{Client, Error, Handle};
use pinmesh_tests::{LIMIT, Mesh, Supervisor, eventually};

/// Far longer than a test may take.
const LONG: &str = "600s";

/// A task that runs for long, and tasks that wait behind it.
fn behind_a_long_one(mesh: &Mesh, client: &Client) -> (Handle<()>, Vec<Handle<u64>>) {
    let long = client.submit("sleep", LONG).unwrap();
    let dispatched = || mesh.broker.ledger().count("dispatched") >= 1;
    eventually("the long task is sent to its worker", LIMIT, dispatched);
    let behind = (0..20_u64).map(|n| client.submit("echo", &n).unwrap()).collect();
    (long, behind)
}

fn end(mesh: Mesh, behind: Vec<Handle<u64>>) {
    for (n, handle) in (0..).zip(behind) {
        assert_eq!(handle.wait().unwrap(), n);
    }
    let Mesh { supervisor: Supervisor { process, .. }, broker } = mesh;
    drop(process);
    let ledger = broker.drain();
    assert_eq!((ledger.count("cancelled"), ledger.count("ok")), (1, 20));
    assert_eq!(ledger.count("crashed"), 0);
}

#[test]
fn a_cancel_stops_a_handler_that_looks_and_its_worker_goes_on() {
    let mesh = Mesh::start(1, &[]);
    let client = mesh.client();
    let (long, behind) = behind_a_long_one(&mesh, &client);
    let workers = mesh.supervisor.workers();
    long.cancel();
    assert!(matches!(long.wait(), Err(Error::Cancelled { .. })));
    assert_eq!(mesh.supervisor.workers(), workers);
    end(mesh, behind);
}

#[test]
fn a_hard_cancel_kills_the_handler_and_harms_no_task_behind_it() {
    let mesh = Mesh::start(1, &[]);
    let client = mesh.client();
    let (long, behind) = behind_a_long_one(&mesh, &client);
    let workers = mesh.supervisor.workers();
    long.cancel_hard();
    assert!(matches!(long.wait(), Err(Error::Cancelled { .. })));
    mesh.supervisor.wait_for_workers(&workers);
    end(mesh, behind);
}
