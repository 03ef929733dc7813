#!/usr/bin/env bash
# Bugs planted on purpose, one at a time, each breaking one promise: the net of tests must catch every one. A bug that
# nothing catches says what the net lacks.
#
#   scripts/planted.sh            all of scripts/planted/*.patch
#   scripts/planted.sh NAME...    those whose file name contains NAME
#
# Works in a clone of HEAD (or of $PINMESH_COMMIT) under target/planted (or $PINMESH_PLANTED), never in the tree itself. The
# nets are tried in turn, the cheapest first, until one fails: a campaign of 40 seeds x 20,000 steps, the scenarios, the unit
# tests of the crate that was changed, a campaign of 500 seeds. First all of them must pass without a bug. Fails if one bug
# is not caught, does not apply any more, or does not compile. The first line of a patch says what it breaks.
. "$(dirname "$0")/setup.sh"
need_toolchain

work=${PINMESH_PLANTED:-$ROOT/target/planted}
tree=$work/tree
mkdir -p "$work"
[ -d "$tree" ] || git clone -q --shared --no-checkout "$ROOT" "$tree"
git -C "$tree" fetch -q origin
git -C "$tree" checkout -q --force --detach "$(git rev-parse "${PINMESH_COMMIT:-HEAD}")"

# As in a release: no debug assertion and no check for overflow helps. Quick to build all the same.
export CARGO_TARGET_DIR=$work/target CARGO_TERM_COLOR=never CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_DEV_DEBUG=0 \
    CARGO_PROFILE_DEV_BUILD_OVERRIDE_OPT_LEVEL=0 CARGO_PROFILE_DEV_DEBUG_ASSERTIONS=false \
    CARGO_PROFILE_DEV_OVERFLOW_CHECKS=false
why=$work/why.txt

# A net prints what it found, and returns 0 if it caught something, 1 if not.
campaign() {
    local seeds=$1
    timeout 300 "$CARGO_TARGET_DIR/debug/pinmesh-sim" --seeds "$seeds" --steps 20000 >"$why" 2>&1 && return 1
    # The story is told before it; the line of the violation comes last but one.
    { grep -aE '^seed [0-9]+, step |panicked at|^no violation, and no proof' "$why" || echo "$seeds seeds: hangs"; } | tail -n 1
}
scenarios() {
    [ -f bench/sim/tests/scenarios.rs ] || return 1
    cargo test -q --locked -p pinmesh-sim --test scenarios --no-run >"$why" 2>&1 || die "the scenarios do not build"
    timeout 300 cargo test -q --locked -p pinmesh-sim --test scenarios >"$why" 2>&1 && return 1
    first_failure scenario
}
unit_tests() {
    local package found=1
    for package in "$@"; do
        cargo test -q --locked -p "$package" --lib --tests --no-run >"$why" 2>&1 || die "$package: its tests do not build"
        timeout 120 cargo test -q --locked -p "$package" --lib --tests >"$why" 2>&1 && continue
        first_failure "$package test"
        found=0
        break
    done
    return $found
}
first_failure() {
    { sed -nE 's/^---- (.*) stdout ----$/\1/p' "$why" | head -n 1 | grep . || echo hangs; } | sed "s/^/$1: /"
}

# Crates whose sources a patch changes.
crates_of() {
    local path
    sed -nE 's#^\+\+\+ b/(.*)/src/.*#\1#p' "$1" | sort -u | while read -r path; do
        sed -nE '0,/^name = /s/^name = "(.*)"/\1/p' "$path/Cargo.toml"
    done
}

# caught_by PACKAGE...: the first net that catches what is in the tree.
caught_by() {
    campaign 40 || scenarios || unit_tests "$@" || campaign 500
}

cd "$tree"
say "without a bug"
cargo build -q --locked -p pinmesh-sim
if found=$(caught_by pinmesh-core pinmesh-session pinmesh-worker); then
    tail -n 40 "$why"
    die "the tree is not sound without a bug: $found"
fi
echo "every net passes"

say "bugs"
patches=()
for patch in "$ROOT"/scripts/planted/*.patch; do
    for name in "${@:-}"; do
        [[ "$(basename "$patch")" == *"$name"* ]] && patches+=("$patch") && break
    done
done
[ ${#patches[@]} -gt 0 ] || die "no patch in scripts/planted is called like that: $*"
bad=0
printf '%-38s %5s  %s\n' bug s 'caught by'
for patch in "${patches[@]}"; do
    name=$(basename "$patch" .patch)
    git checkout -q --force
    started=$SECONDS
    if ! git apply "$patch" 2>"$why"; then
        found="NOT APPLIED: renew it with the same change to today's code: $(head -n 1 "$why")"
        bad=$((bad + 1))
    elif ! cargo build -q --locked -p pinmesh-sim 2>"$why"; then
        found="DOES NOT COMPILE: $(grep -m 1 '^error' "$why")"
        bad=$((bad + 1))
    elif ! found=$(caught_by $(crates_of "$patch")); then
        found="NOT CAUGHT: $(sed -n '1s/^# *//p' "$patch")"
        bad=$((bad + 1))
    fi
    printf '%-38s %5d  %s\n' "$name" $((SECONDS - started)) "${found:0:170}"
done
git checkout -q --force
printf '\n%d bugs, %d caught\n' ${#patches[@]} $((${#patches[@]} - bad))
[ "$bad" -eq 0 ]
