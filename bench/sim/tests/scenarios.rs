//! Every scenario of `bench/sim/scenarios`, and what a scenario must not get away with.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::fs;
use std::path::Path;

use pinmesh_sim::scenario::play;
use pinmesh_sim::world::At;

/// Lines of the story that are shown of a scenario that failed.
const SHOWN: usize = 40;

#[test]
fn every_scenario_comes_out_as_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let mut failures = Vec::new();
    for file in &files {
        let played = play(&fs::read_to_string(file).unwrap());
        if let Err(error) = played.result {
            let story = &played.story[played.story.len().saturating_sub(SHOWN)..];
            let story: String =
                story.iter().map(|(at, line)| format!("{} {line}\n", At(*at))).collect();
            failures.push(format!("{story}{}: {error}", file.display()));
        }
    }
    assert!(files.len() >= 20, "only {} scenarios", files.len());
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

const FLEET: &str = "fleet: 1 broker, a host of 1 worker, 1 client\n";
const JOB: &str = "at 1 s, c0 submits job that runs 100 ms\n";
const END: &str = "in the end job is OK after 1 attempt on h0.0\n";

/// The error of a scenario of these lines.
fn error(lines: &[&str]) -> String {
    play(&lines.concat()).result.unwrap_err()
}

#[test]
fn a_scenario_as_small_as_can_be_succeeds() {
    play(&[FLEET, JOB, END].concat()).result.unwrap();
}

#[test]
fn a_scenario_that_shows_nothing_is_an_error() {
    assert_eq!(error(&[""]), "an empty scenario shows nothing");
    assert_eq!(error(&["# only a remark\n\n"]), "an empty scenario shows nothing");
    assert!(error(&[FLEET]).contains("nobody submits anything"));
    assert!(error(&[FLEET, JOB]).contains("what becomes of job?"));
}

#[test]
fn a_word_that_means_nothing_is_an_error_with_its_line() {
    for (line, says) in [
        ("kilt h0.0\n", "\"kilt\" is nobody's name"),
        ("kill h0.1\n", "h0.1 is not in the fleet"),
        ("kill h0.0 now\n", "\"now\" is one word too many"),
        ("then h0.0 begins job\n", "\"begins\" is no verb"),
        ("never h0.0 starts jib\n", "the story never says \"jib\""),
        ("then a hears DUNE job from h0.0\n", "the story never says \"DUNE\""),
        ("wait 5 parsecs\n", "\"parsecs\" is no unit"),
        ("in the end a counts eggs 1\n", "no ledger has \"eggs\""),
        ("in the end job is FINE\n", "\"FINE\" is no status"),
        ("c0 submits d1 that hangs\n", "\"d1\" cannot be the name of a request"),
    ] {
        let text = error(&[FLEET, JOB, line, END]);
        assert!(text.starts_with("line 3: ") && text.contains(says), "{line}: {text}");
    }
    assert!(error(&["fleet: 1 broker, 1 client, 3 cooks\n"]).contains("\"cooks\" is no part"));
    assert!(error(&[FLEET, "limits: patience 3 s\n", JOB, END]).contains("\"patience\" where"));
}

#[test]
fn what_does_not_come_out_as_expected_is_an_error_with_its_line_and_what_was() {
    for (line, says) in [
        ("then h0.0#2 starts job\n", "it had not happened by"),
        ("then h0.0 ends job, within 50 ms\n", "not between"),
        ("then h0.0 starts job, between 1 s and 2 s\n", "not between"),
        ("at 500 ms, kill h0.0\n", "it is"),
        ("never h0.0 ends job\n", "line 3 says never"),
        ("so far job is OK\n", "job is open"),
        ("in the end job is LOST\n", "job is OK"),
        ("in the end job is OK after 2 attempts\n", "job was started 1 times"),
        ("in the end job is OK on h0.0#2\n", "job was started on h0.0#1"),
        ("in the end a counts ok 2\n", "ok is 1"),
        ("in the end h0.0 starts job, 2 times\n", "it happened 1 times"),
        ("in the end 1 attempts overlap\n", "0 attempts overlap"),
    ] {
        let text = error(&[FLEET, JOB, line, END]);
        assert!(text.contains(says), "{line}: {text}");
    }
}

#[test]
fn a_scenario_that_breaks_what_must_always_hold_fails_though_it_expects_nothing_of_it() {
    // A clock that jumps by more than the grace allows for: two attempts at once.
    let lines = [
        "fleet: 1 broker, hosts of 1 and 1 workers, 1 client\n",
        "at 1 s, c0 submits job that runs 30 s\nthen h0.0 starts job\nafter 1 s, jump a by 60 s\n",
        "in the end job is OK\n",
    ];
    assert!(error(&lines).contains("while h0.0#1 runs"), "{}", error(&lines));
}
