#!/usr/bin/env bash
# cargo-mutants over every decision of the machines: so many mutants of broker/core and mesh/session, drawn with a fixed
# seed, each against the tests of its own crate. Fails unless 90 % of the viable ones are caught, and each survivor is
# explained in scripts/mutants/survivors.md.
#
#   scripts/mutants.sh                runs what has no outcome yet for HEAD, and judges; an hour at most
#   scripts/mutants.sh --list         says what is drawn
#   scripts/mutants.sh --seed N       draws others: for a look beyond those that tests were written for
#   scripts/mutants.sh --count N      draws more or fewer
#   scripts/mutants.sh --commit REV   tests another commit than HEAD
#   scripts/mutants.sh --survivors    runs only those again that were missed before
#
# Works in a clone of HEAD under target/mutants (or $PINMESH_MUTANTS): what is not committed is not tested. Outcomes are
# kept there for as long as the two crates and what they are built from do not change.
. "$(dirname "$0")/setup.sh"
need_toolchain
need_packages python3

tools=$ROOT/target/tools
export PATH=$tools/bin:$PATH
if ! command -v cargo-mutants >/dev/null; then
    say "installing cargo-mutants into target/tools"
    CARGO_TARGET_DIR=$tools/build cargo install cargo-mutants@27.1.0 --locked --root "$tools"
    rm -rf "$tools/build"
fi
exec nice -n 2 python3 scripts/mutants/mutants.py "$@"
