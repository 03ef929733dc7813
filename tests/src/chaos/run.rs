//! Runs: a mesh under load, damaged and healed again and again, and accounted for.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::judge::{Verdict, judge};
use super::kind::{Fault, Kind, Timing, Victim};
use super::records::Records;
use super::rig::{HOSTS, Host, Rig};
use crate::record::{Event, Recorder, now_ns};
use crate::{LIMIT, Process, Seen, descendants, eventually, marked, wait_for};

/// Outcomes before the first damage.
const WARM_UP: usize = 300;
/// How long what was hit is waited for; a promise is broken long before.
const RESUME_LIMIT: Duration = Duration::from_secs(60);
/// How long the tasks of before are waited for.
const SETTLE_LIMIT: Duration = Duration::from_secs(120);
/// How long a client may take to end: the slow link carries its payload four times meanwhile.
const END_LIMIT: Duration = Duration::from_secs(420);
/// Between two readings of the records.
const READ_EVERY: Duration = Duration::from_millis(20);

/// What must start something again after a round.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Affected {
    /// Each of these hosts.
    Hosts(Vec<String>),
    /// As many workers as there are victims, be it they or new ones.
    Workers {
        /// Their process numbers.
        victims: Vec<i32>,
        /// Worker processes that were known by then.
        known: usize,
    },
    /// A client, for what it submits from then on.
    Client(u32),
}

impl Affected {
    /// Whether this host is one of those.
    pub fn is_on(&self, host: &str) -> bool {
        matches!(self, Self::Hosts(hosts) if hosts.iter().any(|hit| hit == host))
    }
}

/// One damage.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Round {
    /// Right before it, nanoseconds.
    pub fault_ns: u64,
    /// When it was over: what was stopped goes on, what nobody else starts again was started.
    pub heal_ns: u64,
    /// What it hit.
    pub affected: Affected,
}

/// What became of a kind.
#[derive(Clone, Debug)]
pub struct Report {
    /// The damage.
    pub kind: Kind,
    /// How often it was done.
    pub rounds: usize,
    /// The account.
    pub verdict: Verdict,
    /// Where the records are.
    pub folder: PathBuf,
    /// How long it all took.
    pub took: Duration,
}

/// Runs kinds side by side, each on a mesh of its own with its records in a folder under `root`;
/// `done` is told of each as it ends.
pub fn run_all(
    kinds: &[(Kind, usize)],
    timing: &Timing,
    root: &Path,
    done: impl Fn(&Report) + Sync,
) -> Vec<Report> {
    let run = |kind: Kind, rounds| {
        let (started, folder) = (Instant::now(), root.join(kind.to_string()));
        let verdict = run(kind, timing, &folder, rounds);
        let report = Report { kind, rounds, verdict, folder, took: started.elapsed() };
        done(&report);
        report
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            kinds.iter().map(|(kind, rounds)| scope.spawn(|| run(*kind, *rounds))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a run does not panic")).collect()
    })
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}

fn run(kind: Kind, timing: &Timing, folder: &Path, rounds: usize) -> Verdict {
    let mut run = match catch_unwind(|| Run::start(kind, timing, folder)) {
        Ok(run) => run,
        Err(panic) => {
            let mut verdict = Verdict::default();
            verdict.violate(format!("the mesh did not start: {}", text_of(&*panic)));
            return verdict;
        }
    };
    let stuck = catch_unwind(AssertUnwindSafe(|| run.go(rounds))).err();
    run.records.refresh();
    let mut verdict = judge(kind, timing, &run.records, &run.rounds, &run.killed);
    if let Some(panic) = stuck {
        verdict.violate(text_of(&*panic));
    }
    if verdict.violation_count > 0 {
        run.rig.save_logs();
        return verdict;
    }
    // Results for clients that were killed are kept for a while, and no drain waits for them.
    let Run { rig: Rig { client, hosts, broker, .. }, killed, .. } = run;
    drop(client);
    let is_balanced = catch_unwind(AssertUnwindSafe(|| match killed.is_empty() {
        true => drop(broker.drain()),
        false => broker.ledger().assert_balanced(),
    }));
    if let Err(panic) = is_balanced {
        verdict.violate(format!("the broker's own account: {}", text_of(&*panic)));
    }
    drop(hosts);
    verdict
}

struct Run {
    kind: Kind,
    timing: Timing,
    rig: Rig,
    records: Records,
    deeds: Recorder,
    rounds: Vec<Round>,
    killed: BTreeSet<u32>,
}

impl Run {
    fn start(kind: Kind, timing: &Timing, folder: &Path) -> Self {
        let rig = Rig::start(kind, timing, folder);
        Self {
            kind,
            timing: timing.clone(),
            rig,
            records: Records::of(folder),
            deeds: Recorder::create(folder, "driver").expect("the run's folder"),
            rounds: Vec::new(),
            killed: BTreeSet::new(),
        }
    }

    #[track_caller]
    fn until(&mut self, what: &str, limit: Duration, mut holds: impl FnMut(&Records) -> bool) {
        let until = Instant::now() + limit;
        loop {
            self.records.refresh();
            if holds(&self.records) {
                return;
            }
            assert!(Instant::now() < until, "{what}: not within {limit:?}");
            std::thread::sleep(READ_EVERY);
        }
    }

    fn note(&self, deed: String) -> u64 {
        self.deeds.note(Event::Deed(deed))
    }

    fn go(&mut self, rounds: usize) {
        if self.kind == Kind::SlowLink {
            self.until("the payload is under way", LIMIT, |records| !records.tasks.is_empty());
        } else {
            let workers = 2 * HOSTS.len();
            self.until("the mesh is warm", RESUME_LIMIT, |records| {
                records.workers.len() >= workers && records.outcomes() >= WARM_UP
            });
            (0..rounds).for_each(|number| self.round(number));
        }
        self.finish();
    }

    fn round(&mut self, number: usize) {
        let round = match self.kind {
            Kind::Signal(Fault::Kill, Victim::Worker | Victim::AllWorkers)
            | Kind::Signal(Fault::Stop, Victim::Worker | Victim::AllWorkers) => {
                self.signal_workers(number)
            }
            Kind::Signal(Fault::Kill, victim) => self.kill(number, victim),
            Kind::Signal(Fault::Stop, victim) => self.stop(number, victim),
            Kind::Cut(length) => {
                let (host, time) = (number % HOSTS.len(), self.timing.cut(length));
                let fault_ns = self.note(format!("cut {} for {time:?}", HOSTS[host]));
                self.rig.set_cable(host, false);
                std::thread::sleep(time);
                self.rig.set_cable(host, true);
                Round { fault_ns, heal_ns: self.note("plugged".into()), affected: on(&[host]) }
            }
            Kind::SlowLink => return,
        };
        self.rounds.push(round.clone());
        let what = format!("round {number}: what was hit starts again");
        self.until(&what, RESUME_LIMIT, |records| round.resumed_ns(records).is_some());
        // What was killed is charged with it, and three times are the end of a task: each damage
        // comes when those that the last one hit have ended.
        let (client, by_ns) = (self.rig.client_number, now_ns());
        let what = format!("round {number}: the tasks of before end");
        self.until(&what, SETTLE_LIMIT, |records| records.is_settled(client, by_ns));
    }

    fn signal_workers(&mut self, number: usize) -> Round {
        let all: Vec<Seen> = self.rig.hosts.iter().flat_map(Host::workers).collect();
        let is_one =
            matches!(self.kind, Kind::Signal(_, Victim::Worker)).then_some(number % all.len());
        let victims = is_one.map_or(all.clone(), |one| vec![all[one]]);
        let pids: Vec<i32> = victims.iter().map(|victim| victim.pid).collect();
        self.records.refresh();
        let affected =
            Affected::Workers { victims: pids.clone(), known: self.records.workers.len() };
        let is_stop = matches!(self.kind, Kind::Signal(Fault::Stop, _));
        let fault_ns = self.note(format!("{} {pids:?}", self.kind));
        if !is_stop {
            victims.iter().for_each(|victim| signal(victim, Signal::KILL));
            return Round { fault_ns, heal_ns: self.note("killed".into()), affected };
        }
        victims.iter().for_each(|victim| signal(victim, Signal::STOP));
        std::thread::sleep(self.timing.stop);
        victims.iter().for_each(|victim| signal(victim, Signal::CONT));
        Round { fault_ns, heal_ns: self.note("continued".into()), affected }
    }

    fn kill(&mut self, number: usize, victim: Victim) -> Round {
        let host = number % HOSTS.len();
        let fault_ns = self.note(format!("kill {victim:?}, host {}", HOSTS[host]));
        match victim {
            Victim::Broker => {
                self.rig.save_logs();
                self.rig.broker.start_again();
                Round { fault_ns, heal_ns: self.note("started".into()), affected: on(&[0, 1]) }
            }
            Victim::Client => {
                self.rig.client.kill();
                self.killed.insert(self.rig.client_number);
                let heal_ns = self.note("killed".into());
                self.rig.restart_client();
                Round { fault_ns, heal_ns, affected: Affected::Client(self.rig.client_number) }
            }
            Victim::Supervisor | Victim::Worker | Victim::AllWorkers => {
                self.kill_supervisors(host);
                let heal_ns = self.note("nothing of it is left".into());
                self.rig.restart_host(host);
                Round { fault_ns, heal_ns, affected: on(&[host]) }
            }
        }
    }

    fn kill_supervisors(&mut self, host: usize) {
        for supervisor in &mut self.rig.hosts[host].supervisors {
            let family = descendants(supervisor.process.pid());
            let mark = supervisor.process.mark().to_owned();
            supervisor.process.kill();
            eventually("what the supervisor left is gone", LIMIT, || {
                !family.iter().any(Seen::is_alive) && marked(&mark).is_empty()
            });
        }
    }

    fn stop(&mut self, number: usize, victim: Victim) -> Round {
        let host = number % HOSTS.len();
        let processes: Vec<&Process> = match victim {
            Victim::Broker => vec![&self.rig.broker.process],
            Victim::Client => vec![&self.rig.client],
            Victim::Supervisor | Victim::Worker | Victim::AllWorkers => {
                self.rig.hosts[host].supervisors.iter().map(|it| &it.process).collect()
            }
        };
        let affected = match victim {
            Victim::Broker => on(&[0, 1]),
            Victim::Client => Affected::Client(self.rig.client_number),
            Victim::Supervisor | Victim::Worker | Victim::AllWorkers => on(&[host]),
        };
        let fault_ns = self.note(format!("stop {victim:?}, host {}", HOSTS[host]));
        processes.iter().for_each(|process| process.signal(Signal::STOP));
        std::thread::sleep(self.timing.stop);
        processes.iter().for_each(|process| process.signal(Signal::CONT));
        Round { fault_ns, heal_ns: self.note("continued".into()), affected }
    }

    fn finish(&mut self) {
        self.rig.client.signal(Signal::TERM);
        let ended = wait_for(END_LIMIT, || self.rig.client.has_ended().then_some(()));
        let number = self.rig.client_number;
        assert!(ended.is_some(), "client {number} has not ended within {END_LIMIT:?}");
        self.records.refresh();
        assert!(self.records.closed.contains(&number), "client {number} has not closed in peace");
        self.note("over".into());
    }
}

/// The hosts with these numbers.
fn on(hosts: &[usize]) -> Affected {
    Affected::Hosts(hosts.iter().map(|host| HOSTS[*host].to_owned()).collect())
}

/// Signals a process that is not our child, if it is still that one.
fn signal(victim: &Seen, signal: Signal) {
    let pid = Pid::from_raw(victim.pid).filter(|_| victim.is_alive());
    // It may end in the meantime: its supervisor kills one that stands still for too long.
    let _ = pid.map(|pid| kill_process(pid, signal));
}
