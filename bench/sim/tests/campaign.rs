//! A short campaign; `pinmesh-sim` runs the long ones.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use pinmesh_sim::campaign::{RunConfig, campaign, objection, run};
use pinmesh_sim::world::Story;

const STEPS: u64 = 3_000;

#[test]
fn a_short_campaign_finds_no_violation() {
    let config = RunConfig { seed: 1, steps: STEPS, has_faults: true };
    let counters = match campaign((1, 40), config, 2, |_| ()) {
        Ok(counters) => counters,
        Err(failure) => panic!("{failure}"),
    };
    assert_eq!(objection(&counters, 40), None);
}

#[test]
fn a_seed_gives_the_same_run_twice_and_another_seed_another() {
    let digest = |seed| {
        let config = RunConfig { seed, steps: STEPS, has_faults: true };
        run(config, Story::Silent).unwrap().digest
    };
    assert_eq!(digest(7), digest(7));
    assert_ne!(digest(7), digest(8));
}

#[test]
fn a_campaign_without_faults_is_no_proof() {
    let config = RunConfig { seed: 1, steps: STEPS, has_faults: false };
    let counters = match campaign((1, 2), config, 1, |_| ()) {
        Ok(counters) => counters,
        Err(failure) => panic!("{failure}"),
    };
    assert!(objection(&counters, 2).is_some());
}
