//! With real processes: this test program starts itself again, in another role.

use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Duration;

use pinmesh_protocol::id::{Incarnation, PeerId, Slot};
use pinmesh_session::supervision::Death;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use super::{Change, Process, Spawner, Started, started};

const ROLE: &str = "PINMESH_TEST_ROLE";
/// The test below that plays the roles, as the program's arguments name it.
const STAGE: [&str; 4] =
    ["--exact", "process::tests::another_role_is_played", "--nocapture", "--test-threads=1"];
const LIMIT: Duration = Duration::from_secs(30);

fn host(byte: u8) -> PeerId {
    let mut host = [byte; 16];
    host[..4].copy_from_slice(&std::process::id().to_le_bytes());
    PeerId(host)
}

/// A worker's page could be any file.
fn page() -> OwnedFd {
    rustix::fs::memfd_create("page", rustix::fs::MemfdFlags::CLOEXEC).unwrap()
}

fn sleeper(host: PeerId) -> Spawner {
    Spawner::of_program(host, "/bin/sleep".into(), vec!["1000".into()])
}

fn shell(host: PeerId, script: &str) -> Spawner {
    Spawner::of_program(host, "/bin/sh".into(), vec!["-c".into(), script.into()])
}

fn spawn(spawner: &Spawner, slot: u16) -> Process {
    spawner.spawn(Slot(slot), Incarnation(1), None, page().as_fd()).unwrap()
}

fn is_readable(fd: impl AsFd, limit: Duration) -> bool {
    let timeout = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: 0 };
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&timeout)).unwrap() == 1
}

fn wait_for(process: &Process) -> Death {
    assert!(is_readable(process, LIMIT), "process {} lives on", process.pid());
    match process.change() {
        Some(Change::Died(death)) => death,
        other => panic!("{other:?}"),
    }
}

/// A pidfd of any process; readable when it is dead.
fn other(pid: i32) -> OwnedFd {
    pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap()
}

fn numbers(line: &str) -> Vec<i32> {
    line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// Reads numbers that a process wrote into its page.
fn wait_for_numbers(page: &OwnedFd, count: usize) -> Vec<i32> {
    let end = std::time::Instant::now() + LIMIT;
    loop {
        let mut text = [0; 256];
        let read = rustix::io::pread(page, &mut text, 0).unwrap();
        let text = String::from_utf8_lossy(&text[..read]).into_owned();
        let found = numbers(&text);
        if found.len() >= count && text.ends_with('\n') {
            return found;
        }
        assert!(std::time::Instant::now() < end, "{text:?}");
        std::thread::yield_now();
    }
}

#[test]
fn the_exit_code_and_the_signal_of_a_death_are_told() {
    assert_eq!(wait_for(&spawn(&shell(host(1), "exit 7"), 0)), Death::Exited(7));
    assert_eq!(wait_for(&spawn(&shell(host(1), "kill -SEGV $$"), 0)), Death::Signalled(11));
    let sleeper = spawn(&sleeper(host(1)), 0);
    assert_eq!(sleeper.change(), None);
    sleeper.kill();
    assert_eq!(wait_for(&sleeper), Death::Signalled(9));
}

#[test]
fn a_stop_and_its_end_are_told() {
    let sleeper = spawn(&sleeper(host(2)), 0);
    let wait_for_change = || loop {
        if let Some(change) = sleeper.change() {
            return change;
        }
        std::thread::yield_now();
    };
    sleeper.signal(Signal::STOP);
    assert_eq!(wait_for_change(), Change::Stopped);
    sleeper.signal(Signal::CONT);
    assert_eq!(wait_for_change(), Change::Continued);
    sleeper.kill();
    wait_for(&sleeper);
}

#[test]
fn the_process_group_dies_with_its_worker() {
    let page = page();
    let script = "sleep 1000 & echo $! >/proc/self/fd/0; exec sleep 1000";
    let worker = shell(host(3), script).spawn(Slot(0), Incarnation(1), None, page.as_fd()).unwrap();
    let descendant = other(wait_for_numbers(&page, 1)[0]);
    worker.signal(Signal::KILL);
    wait_for(&worker);
    assert!(is_readable(&descendant, LIMIT));
}

#[test]
fn the_sweep_finds_what_left_the_process_group_and_spares_other_workers() {
    let page = page();
    let spawner = shell(host(4), "setsid sleep 1000 & echo $! >/proc/self/fd/0; exec sleep 1000");
    let worker = spawner.spawn(Slot(0), Incarnation(1), None, page.as_fd()).unwrap();
    let neighbour = spawn(&sleeper(host(4)), 1);
    let descendant = other(wait_for_numbers(&page, 1)[0]);
    worker.kill();
    wait_for(&worker);
    spawner.sweep(Slot(0), Incarnation(1));
    assert!(is_readable(&descendant, LIMIT));
    assert_eq!(neighbour.change(), None);
    spawner.sweep_all();
    assert_eq!(wait_for(&neighbour), Death::Signalled(9));
}

#[test]
fn a_pinned_worker_starts_on_its_cpu_and_the_supervisor_stays_where_it_was() {
    let before = pinmesh_host::current_affinity().unwrap();
    let cpu = before.lowest().unwrap().index() as u16;
    let process = sleeper(host(5)).spawn(Slot(0), Incarnation(1), Some(cpu), page().as_fd());
    let process = process.unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let allowed = status.lines().find(|line| line.starts_with("Cpus_allowed_list")).unwrap();
    assert_eq!(allowed.split_whitespace().last(), Some(cpu.to_string().as_str()));
    assert_eq!(pinmesh_host::current_affinity().unwrap(), before);
    process.kill();
    wait_for(&process);
}

#[test]
fn a_program_that_is_not_there_is_named_in_the_error() {
    let spawner = Spawner::of_program(host(6), "/no/such/program".into(), vec![]);
    let error = spawner.spawn(Slot(0), Incarnation(1), None, page().as_fd()).unwrap_err();
    assert!(error.to_string().contains("/no/such/program"), "{error}");
}

#[test]
fn nothing_outlives_a_supervisor_that_is_killed() {
    let mut supervisor = Command::new("/proc/self/exe")
        .args(STAGE)
        .env(ROLE, "supervisor")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(supervisor.stdout.take().unwrap()).lines();
    let line = lines.map_while(Result::ok).find(|line| line.contains("pids:")).unwrap();
    let pids = numbers(&line);
    assert_eq!(pids.len(), 4, "{line}");
    let all: Vec<_> = pids.iter().map(|&pid| other(pid)).collect();
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    for (pid, fd) in pids.iter().zip(&all) {
        assert!(is_readable(fd, LIMIT), "process {pid} outlived its supervisor");
    }
}

/// Not a test by itself: what the program does when the tests above start it again.
#[test]
fn another_role_is_played() {
    let Ok(role) = std::env::var(ROLE) else { return };
    match started().unwrap() {
        Started::Supervisor => {
            assert_eq!(role, "supervisor");
            play_supervisor();
        }
        Started::Keeper(keeper) => keeper.run(),
        Started::Worker(inherited) => play_worker(inherited.page),
    }
}

fn play_supervisor() {
    let arguments = STAGE.iter().map(Into::into).collect();
    let spawner = Spawner::of_program(host(7), "/proc/self/exe".into(), arguments);
    let keeper = spawner.spawn_keeper().unwrap();
    let page = page();
    let worker = spawner.spawn(Slot(0), Incarnation(1), None, page.as_fd()).unwrap();
    let descendants = wait_for_numbers(&page, 2);
    let (in_group, in_session) = (descendants[0], descendants[1]);
    println!("\npids: {} {} {in_group} {in_session}", keeper.pid(), worker.pid());
    is_readable(&worker, LIMIT);
}

fn play_worker(page: OwnedFd) {
    assert_ne!(page.as_raw_fd(), 0);
    let sleep = |program: &str, arguments: &[&str]| {
        Command::new(program).args(arguments).stdout(Stdio::null()).spawn().unwrap().id()
    };
    let in_group = sleep("sleep", &["1000"]);
    let in_session = sleep("setsid", &["sleep", "1000"]);
    rustix::io::pwrite(&page, format!("{in_group} {in_session}\n").as_bytes(), 0).unwrap();
    loop {
        std::thread::park();
    }
}
