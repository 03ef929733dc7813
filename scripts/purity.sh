#!/usr/bin/env bash
# The machines (broker/core, mesh/session, mesh/protocol without serde) are pure: no std, no unsafe, no clock, no order
# by chance, no dependency that is not listed here. Then each rule is broken once in a copy of the tree, and must be
# noticed there.
#
#   scripts/purity.sh     checks everything, in a copy; touches nothing of the tree
. "$(dirname "$0")/setup.sh"
need_toolchain clippy

crates=(pinmesh-core pinmesh-session pinmesh-protocol)
declare -A folder=([pinmesh-core]=broker/core [pinmesh-session]=mesh/session [pinmesh-protocol]=mesh/protocol)
# What each may be built with, itself included.
declare -A allowed=(
    [pinmesh-core]='pinmesh-core pinmesh-protocol hashbrown'
    [pinmesh-session]='pinmesh-session pinmesh-protocol'
    [pinmesh-protocol]='pinmesh-protocol'
)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/tree
mkdir "$tree"
tar -C "$ROOT" --exclude=./target --exclude=./.git -cf - . | tar -C "$tree" -xf -
cd "$tree"
export CARGO_TARGET_DIR=$work/target CARGO_TERM_COLOR=never

passed=0 failed=0
ok() { passed=$((passed + 1)); printf 'ok    %s\n' "$1"; }
bad() { failed=$((failed + 1)); printf 'FAIL  %s\n' "$1"; sed 's/^/      /' "$work/why" | head -n 12; }

# Each check prints what is wrong and returns 1.
check_attributes() {
    local root=${folder[$1]}/src/lib.rs attribute
    for attribute in '#![no_std]' '#![forbid(unsafe_code)]'; do
        grep -qxF "$attribute" "$root" || { echo "$root: no $attribute"; return 1; }
    done
}
check_std() {
    ! grep -rnE '^\s*(pub\s+)?extern\s+crate\s+(std|proc_macro|test)\b' "${folder[$1]}/src"
}
check_dependencies() {
    local name found=0
    cargo tree --offline -p "$1" -e normal --no-default-features --prefix none -f '{p}' >"$work/tree.txt" || return 1
    while read -r name _; do
        [[ " ${allowed[$1]} " == *" $name "* ]] || { echo "$1 depends on $name, which is not in the list"; found=1; }
    done <"$work/tree.txt"
    return $found
}
check_types() {
    local root=${folder[$1]}
    [ -f "$root/clippy.toml" ] || { echo "$root: no clippy.toml"; return 1; }
    cargo clippy --offline -q -p "$1" --lib --no-default-features -- \
        -A warnings -D clippy::disallowed_types -D clippy::disallowed_methods 2>&1 || return 1
}
checks=(attributes std dependencies types)

say "the tree as it is"
for crate in "${crates[@]}"; do
    for check in "${checks[@]}"; do
        if "check_$check" "$crate" >"$work/why" 2>&1; then ok "$crate: $check"; else bad "$crate: $check"; fi
    done
done

# planted CRATE CHECK WORDS NAME COMMAND...: the command breaks the rule; the check must fail and say these words.
planted() {
    local crate=$1 check=$2 words=$3 name="$1: $4 is noticed"
    shift 4
    local root=${folder[$crate]}
    cp -a "$root" "$work/whole"
    cp Cargo.lock "$work/lock"
    (cd "$root" && "$@")
    if "check_$check" "$crate" >"$work/why" 2>&1; then
        echo 'the check passed' >"$work/why"
        bad "$name"
    elif grep -qF -- "$words" "$work/why"; then
        ok "$name"
    else
        bad "$name"
    fi
    rm -rf "$root"
    mv "$work/whole" "$root"
    mv "$work/lock" Cargo.lock
    # Cargo goes by the time of change: the restored files are newer than what was built from the broken ones.
    find "$root/src" -name '*.rs' -exec touch {} +
}
without() { grep -vxF "$1" src/lib.rs >lib.tmp && mv lib.tmp src/lib.rs; }
# The name of std hidden behind another one, so that only the lint can see the type.
with_item() { printf '\n/// Planted.\npub mod planted {\n    extern crate %s as base;\n    /// Planted.\n    %s\n}\n' "$1" "$2" >>src/lib.rs; }
with_line() { printf '%s\n' "$1" >>"$2"; }
with_dependency() { sed -i "/^\[dependencies\]/a $1.workspace = true" Cargo.toml; }

say "each rule broken once, in a copy"
for crate in "${crates[@]}"; do
    planted "$crate" attributes no_std 'a crate with std' without '#![no_std]'
    planted "$crate" attributes unsafe_code 'a crate that may be unsafe' without '#![forbid(unsafe_code)]'
    planted "$crate" std 'extern crate std' 'std by the back door' with_line 'extern crate std;' src/lib.rs
    planted "$crate" dependencies 'depends on libc' 'a dependency that is not listed' with_dependency libc
    planted "$crate" types 'no clippy.toml' 'a crate without its lint settings' rm clippy.toml
    planted "$crate" types 'disallowed type `std::collections::HashMap`' 'a map of random order' \
        with_item std 'pub type Planted = base::collections::HashMap<u8, u8>;'
    planted "$crate" types 'disallowed type `std::collections::HashSet`' 'a set of random order' \
        with_item std 'pub type Planted = base::collections::HashSet<u8>;'
    planted "$crate" types 'disallowed type `std::time::Instant`' 'a clock of its own' \
        with_item std 'pub type Planted = base::time::Instant;'
    planted "$crate" types 'disallowed type `std::time::SystemTime`' 'the clock on the wall' \
        with_item std 'pub type Planted = base::time::SystemTime;'
    planted "$crate" types 'disallowed method `std::thread::spawn`' 'a thread of its own' \
        with_item std 'pub fn planted() { drop(base::thread::spawn(|| {})); }'
done
planted pinmesh-core types 'disallowed type `hashbrown::HashMap`' "hashbrown's map" \
    with_item hashbrown 'pub type Planted = base::HashMap<u8, u8, ()>;'
planted pinmesh-core types 'disallowed type `hashbrown::HashSet`' "hashbrown's set" \
    with_item hashbrown 'pub type Planted = base::HashSet<u8, ()>;'

printf '\n%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
