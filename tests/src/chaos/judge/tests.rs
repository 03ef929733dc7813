use std::fs;

use super::*;

const S: u64 = 1_000_000_000;

/// A run whose records are written by hand: times in seconds, workers `a` and `b`, client 0.
struct Story {
    kind: Kind,
    worker_a: Vec<String>,
    worker_b: Vec<String>,
    client: Vec<String>,
    rounds: Vec<Round>,
    killed: BTreeSet<u32>,
}

impl Story {
    fn of(kind: &str) -> Self {
        let (worker_a, worker_b, client) = (Vec::new(), Vec::new(), Vec::new());
        let kind = kind.parse().unwrap();
        Self { kind, worker_a, worker_b, client, rounds: Vec::new(), killed: BTreeSet::new() }
    }

    fn client(mut self, line: &str) -> Self {
        self.client.push(line.to_owned());
        self
    }

    /// `start SECOND TASK EPOCH DISPATCH alone|overlaps` or `end SECOND TASK`.
    fn a(mut self, line: &str) -> Self {
        self.worker_a.push(spelled(line));
        self
    }

    fn b(mut self, line: &str) -> Self {
        self.worker_b.push(spelled(line));
        self
    }

    fn round(mut self, fault: u64, heal: u64, affected: Affected) -> Self {
        self.rounds.push(Round { fault_ns: fault * S, heal_ns: heal * S, affected });
        self
    }

    fn verdict(&self) -> Verdict {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, lines: &[String]| {
            let text: String = lines.iter().map(|line| format!("{}\n", in_ns(line))).collect();
            fs::write(folder.path().join(name), text).unwrap();
        };
        write("worker-a-1-1", &self.worker_a);
        write("worker-b-2-1", &self.worker_b);
        write("client-0", &self.client);
        let mut records = Records::of(folder.path());
        records.refresh();
        judge(self.kind, &Timing::shipped(), &records, &self.rounds, &self.killed)
    }

    #[track_caller]
    fn assert_violates(&self, what: &str) {
        let verdict = self.verdict();
        let found = verdict.violations.iter().any(|violation| violation.contains(what));
        assert!(found, "no `{what}` in {verdict:?}");
    }
}

/// The second word of a line is its time, here in seconds.
fn in_ns(line: &str) -> String {
    let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    words[1] = (words[1].parse::<u64>().unwrap() * S).to_string();
    words.join(" ")
}

fn spelled(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        ["start", at, task, epoch, dispatch, lock] => {
            format!("start {at} 0-{task} cc {task} {epoch} {task} {dispatch} 0 {lock}")
        }
        ["end", at, task] => format!("end {at} 0-{task}"),
        _ => panic!("{line}"),
    }
}

fn host_a() -> Affected {
    Affected::Hosts(vec!["a".into()])
}

/// A task that worker `a` runs and that ends well.
fn good(kind: &str) -> Story {
    let story = Story::of(kind).client("submit 1 1 short");
    story.a("start 2 1 9 1 alone").a("end 3 1").client("outcome 4 1 ok")
}

#[test]
fn a_task_that_runs_once_and_is_answered_once_is_in_order() {
    let verdict = good("kill-worker").verdict();
    assert_eq!(verdict, Verdict { tasks: 1, attempts: 1, ..Verdict::default() });
}

#[test]
fn a_task_without_an_outcome_is_lost_unless_its_client_was_killed() {
    let mut story = good("kill-client").client("submit 1 2 short");
    story.assert_violates("0-2 is lost");
    story.killed.insert(0);
    assert_eq!((story.verdict().violation_count, story.verdict().unclaimed), (0, 1));
}

#[test]
fn a_second_answer_is_found() {
    good("kill-worker").client("outcome 5 1 ok").assert_violates("answered again");
}

#[test]
fn an_answer_without_a_run_that_ended_before_is_found() {
    let story = Story::of("kill-worker").client("submit 1 1 short").client("outcome 3 1 ok");
    story.assert_violates("no attempt had ended");
    let story = Story::of("kill-worker").client("submit 1 1 short").client("outcome 3 1 ok");
    story.a("start 2 1 9 1 alone").a("end 4 1").assert_violates("no attempt had ended");
}

#[test]
fn a_run_that_nobody_asked_for_is_found() {
    good("kill-worker").b("start 2 7 9 1 alone").assert_violates("0-7 was never submitted");
}

#[test]
fn crashed_needs_three_attempts_that_were_killed() {
    let end = "outcome 9 1 not the worker of a task died, 3 times";
    let story = |kills: u64| {
        let story = Story::of("kill-worker").client("submit 1 1 short").client(end);
        // Each in a process of its own; here the account does not ask whose it was.
        (1..=kills).fold(story, |story, dispatch| {
            story.a(&format!("start {dispatch} 1 9 {dispatch} alone"))
        })
    };
    let is_crash = |violation: &String| violation.contains("failed after");
    assert!(story(2).verdict().violations.iter().any(is_crash));
    assert!(!story(3).verdict().violations.iter().any(is_crash));
    assert_eq!(story(3).verdict().crashed, 1);
}

#[test]
fn overlapping_runs_are_found_by_their_times_and_by_the_lock() {
    let story = Story::of("cut-60").client("submit 1 1 short").client("outcome 9 1 ok");
    let story = story.a("start 2 1 9 1 alone").a("end 6 1");
    story.b("start 5 1 9 2 alone").b("end 7 1").assert_violates("runs twice at once");
    let story = Story::of("cut-60").client("submit 1 1 short").client("outcome 9 1 ok");
    let killed = story.a("start 2 1 9 1 alone");
    killed.b("start 5 1 9 2 overlaps").b("end 7 1").assert_violates("runs twice at once");
    let story = Story::of("cut-60").client("submit 1 1 short").client("outcome 9 1 ok");
    let story = story.a("start 2 1 9 1 alone").b("start 5 1 9 2 alone").b("end 7 1");
    assert_eq!(story.verdict().violation_count, 0, "{:?}", story.verdict());
}

#[test]
fn an_attempt_that_was_given_up_must_not_start() {
    let story = good("cut-60").client("outcome 4 2 ok").client("submit 1 2 short");
    let story = story.b("start 2 2 9 2 alone").b("end 3 2").a("start 4 2 9 1 alone").a("end 5 2");
    story.assert_violates("started when given up");
}

#[test]
fn one_name_for_two_tasks_and_one_attempt_twice_are_found() {
    let story = good("cut-60").client("submit 1 2 short").client("outcome 9 2 ok");
    let mut twice = story.b("start 5 2 9 1 alone").b("end 6 2");
    twice.worker_b[0] = "start 5 0-2 cc 1 9 1 1 0 alone".into();
    twice.assert_violates("have one name");
    twice.assert_violates("an attempt ran twice");
}

#[test]
fn an_overlap_is_excused_across_lives_of_a_broker_that_was_killed_between() {
    let story = |kind: &str, epoch: u32| {
        let story = Story::of(kind).client("submit 1 1 short").client("submit 8 2 short");
        let story = story.client("outcome 9 1 ok").client("outcome 9 2 ok");
        let story = story.a("start 2 1 9 1 alone").a("end 6 1");
        let story = story.b(&format!("start 5 1 {epoch} 2 overlaps")).b("end 7 1");
        story.a("start 8 2 9 1 alone").a("end 8 2").round(3, 4, host_a())
    };
    assert_eq!(story("kill-broker", 10).verdict().excused, 1);
    story("kill-broker", 9).assert_violates("runs twice at once");
    story("cut-60", 10).assert_violates("runs twice at once");
}

#[test]
fn an_overlap_is_excused_where_the_supervisor_is_stopped_for_what_ran_before_its_lease_ended() {
    let story = |started: u64| {
        let story = Story::of("stop-supervisor").client("submit 1 1 long");
        let story = story.client("outcome 60 1 ok").a(&format!("start {started} 1 9 1 alone"));
        story.a("end 45 1").b("start 30 1 9 2 overlaps").b("end 50 1").round(10, 40, host_a())
    };
    assert_eq!(story(9).verdict().excused, 1);
    assert_eq!(story(19).verdict().excused, 1);
    story(21).assert_violates("runs twice at once");
}

#[test]
fn work_must_go_on_within_ten_seconds_of_healing() {
    let story = |start: u64| {
        let story = good("cut-60").round(5, 20, host_a()).client("submit 21 2 short");
        let story = story.a(&format!("start {start} 2 9 1 alone")).a(&format!("end {start} 2"));
        story.client("outcome 60 2 ok")
    };
    assert_eq!(story(30).verdict().violation_count, 0, "{:?}", story(30).verdict());
    assert_eq!(story(30).verdict().resume, Duration::from_secs(10));
    story(31).assert_violates("resumed after 11s");
    let elsewhere = good("cut-60").round(5, 20, host_a()).client("submit 21 2 short");
    let elsewhere = elsewhere.b("start 22 2 9 1 alone").b("end 23 2").client("outcome 60 2 ok");
    elsewhere.assert_violates("never started again");
}

#[test]
fn a_killed_worker_must_be_replaced_by_one_that_works() {
    let hit = |known| Affected::Workers { victims: vec![7], known };
    let story = |known| {
        let story = good("kill-worker").round(5, 5, hit(known)).client("submit 6 2 short");
        story.b("start 7 2 9 1 alone").b("end 8 2").client("outcome 9 2 ok")
    };
    // Worker `b` is new, or was there before.
    assert_eq!(story(1).verdict().violation_count, 0, "{:?}", story(1).verdict());
    story(2).assert_violates("never started again");
}

#[test]
fn what_a_silent_host_held_must_go_on_within_eighteen_seconds() {
    let story = |kind: &str, again: u64| {
        let story = Story::of(kind).client("submit 1 1 short").a("start 2 1 9 1 alone");
        let story = story.b(&format!("start {again} 1 9 2 alone")).b(&format!("end {again} 1"));
        let story = story.client("outcome 90 1 ok").client("submit 5 2 short");
        let story = story.b(&format!("start {again} 2 9 1 alone")).b(&format!("end {again} 2"));
        let hosts = Affected::Hosts(vec!["b".into()]);
        story.client("outcome 90 2 ok").round(4, 4, hosts)
    };
    story("kill-supervisor", 23).assert_violates("0-1 started again after 19s");
    let back = |verdict: Verdict| {
        verdict.violations.iter().filter(|it| it.contains("started again after")).count()
    };
    assert_eq!(back(story("kill-supervisor", 22).verdict()), 0);
    assert_eq!(back(story("kill-worker", 15).verdict()), 1);
}
