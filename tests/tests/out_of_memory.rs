//! A worker that the kernel kills for want of memory is told apart from one that somebody kills,
//! where the host has memory cgroups; where it has none, a limit is refused with the remedy.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use pinmesh_client::Error;
use pinmesh_tests::{Broker, Process, READY_LIMIT, Supervisor, command, turn, wait_for};

/// Whether workers can be bounded here, as the supervisor finds it. Its word where not.
fn refusal(broker: &Broker) -> Option<String> {
    let flags = ["--backend", &broker.backend, "--workers", "1", "--worker-memory", "256MiB"];
    let mut process = Process::start(command("pinmesh-worker", flags));
    wait_for(READY_LIMIT, || {
        if process.has_ended() {
            return Some(Some(process.log()));
        }
        process.log().contains("every worker serves every broker").then_some(None)
    })
    .expect("it is ready, or ends")
}

#[test]
fn a_task_that_takes_too_much_memory_ends_crashed_and_says_so() {
    let _turn = turn();
    let broker = Broker::start(&[]);
    if let Some(refusal) = refusal(&broker) {
        assert!(refusal.contains("--worker-memory"), "{refusal}");
        assert!(
            refusal.contains("Delegate=yes") || refusal.contains("no memory cgroup"),
            "{refusal}"
        );
        return;
    }
    let flags = ["--worker-memory", "256MiB"];
    let supervisor = Supervisor::start(&broker.backend, 1, &flags);
    let client = broker.client();
    let fits = client.call_raw("balloon", (32 << 20).to_string().as_bytes()).unwrap();
    assert_eq!(*fits, *((32 << 20) / 4096).to_string().as_bytes());
    let error = client.call_raw("balloon", (1_u64 << 30).to_string().as_bytes());
    match error.expect_err("its worker dies each time") {
        Error::Crashed { tries: 3, message, .. } => {
            assert!(message.contains("for want of memory"), "{message}");
        }
        other => panic!("{other}"),
    }
    // Somebody else's SIGKILL is not taken for that.
    let error = client.call_raw("abort", b"").expect_err("its worker dies each time");
    assert!(error.to_string().contains("signal 6"), "{error}");
    supervisor.wait_for_workers(&[]);
}
