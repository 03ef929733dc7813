//! Workers run on the CPUs that they were given, every thread of them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use pinmesh_tests::{Broker, Seen, Supervisor, allowed_cpus, own_cpus};

/// The CPU of each worker, which all its threads agree on.
fn cpus_of(workers: &[Seen]) -> Vec<u32> {
    let cpu_of = |worker: &Seen| {
        let threads = allowed_cpus(worker.pid);
        assert!(threads.len() > 1, "libzmq has threads of its own: {threads:?}");
        assert!(threads.iter().all(|cpus| *cpus == threads[0]), "{threads:?}");
        threads[0].parse().unwrap_or_else(|_| panic!("not one CPU but {}", threads[0]))
    };
    let mut cpus: Vec<u32> = workers.iter().map(cpu_of).collect();
    cpus.sort_unstable();
    cpus
}

fn list(cpus: &[u32]) -> String {
    cpus.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

#[test]
fn without_flags_each_cpu_has_one_worker_and_all_its_threads_stay_there() {
    let broker = Broker::start(&[]);
    let own = own_cpus();
    let supervisor = Supervisor::start(&broker.backend, own.len(), &[]);
    assert_eq!(supervisor.cpus, list(&own));
    assert_eq!(cpus_of(&supervisor.workers()), own);
}

#[test]
fn workers_take_the_cpus_of_the_given_set_also_after_they_were_killed() {
    let broker = Broker::start(&[]);
    let last = *own_cpus().last().unwrap();
    let supervisor = Supervisor::start(&broker.backend, 1, &["--cpus", &last.to_string()]);
    let workers = supervisor.workers();
    assert_eq!(cpus_of(&workers), [last]);
    let pid = rustix::process::Pid::from_raw(workers[0].pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let workers = supervisor.wait_for_workers(&workers);
    // Once it serves, all its threads are there.
    assert_eq!(*broker.client().call_raw("echo", b"x").unwrap(), *b"x");
    assert_eq!(cpus_of(&workers), [last]);
}

#[test]
fn the_supervisor_itself_is_not_pinned() {
    let broker = Broker::start(&[]);
    let supervisor = Supervisor::start(&broker.backend, 1, &[]);
    let own = allowed_cpus(std::process::id().cast_signed());
    for cpus in allowed_cpus(supervisor.process.pid()) {
        assert_eq!(cpus, own[0]);
    }
}
