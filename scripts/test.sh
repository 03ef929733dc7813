#!/usr/bin/env bash
# Everything that must hold before a change lands: formatting, lints, documentation, unit and property tests, golden
# vectors in Rust and in Python, the purity gate, end-to-end tests with real processes, a campaign of the simulator. Does its own set-up.
#
#   scripts/test.sh              all of it
#   scripts/test.sh STEP...      only these: fmt clippy doc test sim vectors purity
. "$(dirname "$0")/setup.sh"

step_fmt() { cargo fmt --all --check; }
step_clippy() { cargo clippy --workspace --all-targets --all-features --locked -- -D warnings; }
step_doc() { RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps --locked; }
step_test() {
    # The end-to-end tests run the binaries that this builds.
    cargo build --workspace --bins --examples --locked
    cargo test --workspace --all-features --locked --no-fail-fast
}
# Some 20 s of CPU time: every fault and every rare branch must occur, and no promise may be broken.
step_sim() { cargo run -p pinmesh-sim --locked -- --seeds 500 --steps 20000; }
step_vectors() { target/venv/bin/python mesh/protocol/vectors/check.py; }
step_purity() { scripts/purity.sh; }

steps=("$@")
[ ${#steps[@]} -gt 0 ] || steps=(fmt clippy doc test sim vectors purity)
for step in "${steps[@]}"; do
    declare -F "step_$step" >/dev/null || die "no step '$step'; the steps are: fmt clippy doc test sim vectors purity"
done

need_packages g++ iproute2 libsodium-dev pkg-config python3 python3-venv
need_toolchain fmt clippy
need_python
export PINMESH_PYTHON="$ROOT/target/venv/bin/python"

for step in "${steps[@]}"; do
    say "$step"
    started=$SECONDS
    "step_$step"
    printf -- '-- %s: ok, %d s\n' "$step" $((SECONDS - started))
done
