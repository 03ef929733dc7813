//! Programs that workers run once a task: where they run, how they fail, and that none stays behind.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::fs;
use std::time::Duration;

use pinmesh_client::Error;
use pinmesh_tests::{
    Broker, LIMIT, Mesh, Seen, Supervisor, descendants, eventually, own_cpus, run, turn, wait_for,
};
use rustix::process::{Pid, Signal, kill_process};

/// A mesh of one worker on the last CPU that runs this with `sh`.
fn mesh(script: &str) -> Mesh {
    let broker = Broker::start(&[]);
    let cpu = own_cpus().last().unwrap().to_string();
    let flags = ["--cpus", &cpu, "--services", "exec", "--", "sh", "-c", script];
    let supervisor = Supervisor::start(&broker.backend, 1, &flags);
    Mesh { supervisor, broker }
}

/// The program of the task that runs, and all that it has started, once there are `count`.
#[track_caller]
fn programs(mesh: &Mesh, count: usize) -> Vec<Seen> {
    let worker = mesh.supervisor.workers()[0];
    let found = wait_for(LIMIT, || Some(descendants(worker.pid)).filter(|it| it.len() == count));
    found.unwrap_or_else(|| panic!("{:?} of {count} run", descendants(worker.pid)))
}

#[track_caller]
fn wait_until_gone(programs: &[Seen]) {
    eventually("every program is gone", LIMIT, || !programs.iter().any(Seen::is_alive));
}

#[test]
fn a_program_runs_on_its_workers_cpu_and_knows_its_task() {
    let script = "grep Cpus_allowed_list /proc/self/status; echo $PINMESH_REQUEST_ID \
                  $PINMESH_DISPATCH $PINMESH_TRIES ${#PINMESH_CLIENT_ID}; cat";
    let mesh = mesh(script);
    let reply = mesh.client().call_raw("exec", b"payload").unwrap();
    let text = String::from_utf8(reply.into_vec()).unwrap();
    let cpu = own_cpus().last().unwrap().to_string();
    assert_eq!(text, format!("Cpus_allowed_list:\t{cpu}\n1 1 0 32\npayload"));
}

#[test]
fn a_program_that_fails_ends_its_task_failed_with_its_status_and_its_words() {
    let mesh = mesh("read word; echo no $word here >&2; exit 3");
    let error = mesh.client().call_raw("exec", b"luck\n").unwrap_err();
    assert!(matches!(error, Error::Failed { .. }), "{error}");
    assert_eq!(error.to_string(), "service `exec` failed: sh exited with 3: no luck here");
    let ledger = mesh.broker.ledger();
    assert_eq!((ledger.count("failed"), ledger.count("crashed")), (1, 0), "{ledger:?}");
}

#[test]
fn a_program_that_fails_once_is_run_again_and_its_success_is_the_result() {
    let mesh = mesh("test $PINMESH_TRIES -gt 0 || exit 3; echo mended");
    let client = mesh.client();
    let backoff = Duration::from_millis(50);
    let task = client.task("exec").backoff(backoff, backoff);
    let reply = task.submit_raw(Vec::new()).unwrap().wait_reply().unwrap();
    assert_eq!((&*reply.value, reply.tries), (&b"mended\n"[..], 1));
    let once = mesh.pinmesh(["call", "exec", "--tries", "1"]);
    assert_eq!(once.code, 1, "{}", once.stdout);
    assert!(once.stderr.contains("sh exited with 3"), "{}", once.stderr);
    let ledger = mesh.broker.ledger();
    assert_eq!((ledger.count("ok"), ledger.count("failed")), (1, 1), "{ledger:?}");
}

#[test]
fn a_cancelled_task_takes_its_program_and_what_that_started_with_it() {
    let mesh = mesh("sleep 1000 & sleep 1000; echo not reached");
    let client = mesh.client();
    let handle = client.submit_raw("exec", Vec::new()).unwrap();
    let programs = programs(&mesh, 3);
    handle.cancel();
    assert!(matches!(handle.wait(), Err(Error::Cancelled { .. })));
    wait_until_gone(&programs);
    assert_eq!(mesh.broker.ledger().count("cancelled"), 1);
}

#[test]
fn a_task_over_its_max_runtime_and_a_killed_worker_leave_no_program_behind() {
    let _turn = turn();
    let mesh = mesh("setsid sleep 1000 & sleep 1000");
    let client = mesh.client();
    let task = client.task("exec").max_runtime(Duration::from_millis(500)).tries_max(1);
    let handle = task.submit_raw(Vec::new()).unwrap();
    let overdue = programs(&mesh, 3);
    assert!(matches!(handle.wait(), Err(Error::TimedOut { .. })));
    wait_until_gone(&overdue);
    mesh.supervisor.wait_for_workers(&[]);
    let _handle = client.task("exec").at_most_once().submit_raw(Vec::new()).unwrap();
    let orphans = programs(&mesh, 3);
    let worker = mesh.supervisor.workers()[0];
    kill_process(Pid::from_raw(worker.pid).unwrap(), Signal::KILL).unwrap();
    wait_until_gone(&orphans);
}

#[test]
fn a_command_that_is_missing_is_told_before_a_worker_starts() {
    for (words, remedy) in [
        (&["--services", "exec"][..], "write it last, after `--`"),
        (&["--services", "exec", "--", "no-such-program"], "no such program on the PATH"),
        (&["--", "./no-such-program"], "check the path"),
        (&["--services", "gzip", "--", "gzip"], "take some of echo, sleep"),
    ] {
        let finished = run("pinmesh-worker", words);
        assert_eq!((finished.code, &*finished.stdout), (2, ""), "{}", finished.stderr);
        assert!(finished.stderr.contains(remedy), "{}", finished.stderr);
    }
}

#[test]
fn what_zstd_compresses_unzstd_gives_back_and_a_bomb_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broker.toml");
    fs::write(&file, "[limits]\npayload = \"1MiB\"\n").unwrap();
    let broker = Broker::start(&["--config", file.to_str().unwrap()]);
    let flags = ["--services", "zstd,unzstd,lines", "--zstd-level", "9", "--exec-as", "lines"];
    let flags = [&flags[..], &["--", "wc", "-l"]].concat();
    let supervisor = Supervisor::start(&broker.backend, 1, &flags);
    let mesh = Mesh { supervisor, broker };
    let client = mesh.client();
    let text = b"the same line again and again\n".repeat(30_000);
    assert_eq!(*client.call_raw("lines", &text).unwrap(), *b"30000\n");
    let frame = client.call_raw("zstd", &text).unwrap().into_vec();
    assert!(frame.len() < 1_000, "{}", frame.len());
    assert!(*client.call_raw("unzstd", &frame).unwrap() == *text);
    // Frames stand one after the other as their contents do.
    let error = client.call_raw("unzstd", &frame.repeat(2)).unwrap_err().to_string();
    assert!(error.contains("more than the 1048576 "), "{error}");
    let error = client.call_raw("unzstd", b"none").unwrap_err().to_string();
    assert!(error.contains("may be cut or damaged"), "{error}");
}
