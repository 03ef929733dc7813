//! Random events straight at the broker's machine, with the reference broker beside it.

#[test]
fn both_brokers_agree_on_whatever_anybody_says() {
    let count = |name: &str, otherwise| {
        std::env::var(name).map_or(otherwise, |count| count.parse().expect("a number"))
    };
    let (first, seeds) = (count("PINMESH_SEED", 1), count("PINMESH_SEEDS", 20));
    for seed in first..first + seeds {
        if let Err((event, text)) = pinmesh_sim::barrage::run(seed, 2_000) {
            panic!("seed {seed}, event {event}: {text}");
        }
    }
}
