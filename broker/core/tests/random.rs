//! Random peers, links and faults against the machine: what is promised holds after every step, and
//! once the faults stop everything comes to its end and nothing is left behind.

mod clients;
mod oracle;
mod supervisors;
mod workers;
mod world;

use world::World;

const SEEDS: u64 = 60;
const STEPS: u32 = 2_500;

/// The seed of PINMESH_SEED, or as many as PINMESH_SEEDS says.
fn seeds() -> Vec<u64> {
    match std::env::var("PINMESH_SEED") {
        Ok(seed) => vec![seed.parse().expect("PINMESH_SEED is a number")],
        Err(_) => {
            let count = std::env::var("PINMESH_SEEDS").ok().and_then(|count| count.parse().ok());
            (1..=count.unwrap_or(SEEDS)).collect()
        }
    }
}

#[test]
fn random_peers_and_faults_break_no_promise_and_leave_nothing_behind() {
    for seed in seeds() {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.heal();
    }
}
