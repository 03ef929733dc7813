#!/usr/bin/env bash
# What scheduling promises, measured on meshes of real processes with the shipped configuration, which is printed: shares of
# ten priorities, a hog's neighbour, poisoned tasks, overload, tails beside a model, long tasks among short ones. Prints a
# table a case; exit code 1 if a promise was not kept. Takes some ten minutes. Does its own set-up.
#
#   scripts/scheduling.sh [--seconds N] [--seed N] [CASE...]    cases: shares shares-outlier hog poison overload tails bimodal
. "$(dirname "$0")/setup.sh"

need_packages g++ libsodium-dev pkg-config
need_toolchain

say "building (release)"
cargo build --release --locked -p pinmesh-broker -p pinmesh-worker -p pinmesh-tests --bins
say "scheduling at $(git describe --always --dirty 2>/dev/null || echo 'an unknown commit')"
PINMESH_BIN_DIR=$ROOT/target/release target/release/pinmesh-scheduling "$@"
