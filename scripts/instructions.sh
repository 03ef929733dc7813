#!/usr/bin/env bash
# Instructions a task of the broker's machine and of the worker's machine with its status page, counted by valgrind: no clock,
# so a busy computer does not matter. Set-up does not count: it is what twice as many tasks cost more.
# "queued N-S": with N tasks queued all the time, of S services, ten priorities and seven clients. Does its own set-up.
#
#   scripts/instructions.sh            prints the counts
#   scripts/instructions.sh --check    fails if one is more than 2 % off scripts/instructions.txt; another compiler may be
#   scripts/instructions.sh --write    writes that file
. "$(dirname "$0")/setup.sh"

known=scripts/instructions.txt mode=${1:-}
[[ -z $mode || $mode == --check || $mode == --write ]] || die "no option '$mode'; there are --check and --write"
need_packages g++ libsodium-dev pkg-config valgrind
need_toolchain
cargo build --release --locked --quiet -p pinmesh-core --example broker_instructions
cargo build --release --locked --quiet -p pinmesh-worker --example worker_instructions

# count PROGRAM TASKS BATCH [QUEUED [SERVICES]]
count() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "target/release/examples/$1" "${@:2}" 2>&1 |
        sed -nE 's/.*Collected : ([0-9]+).*/\1/p'
}

found=$(for program in broker_instructions worker_instructions; do
    for batch in 1 64; do
        few=$(count "$program" 6400 "$batch") many=$(count "$program" 12800 "$batch")
        printf '%s batch %s: %s\n' "${program%_*}" "$batch" $(((many - few) / 6400))
    done
done
# Tasks that wait for their turn: whatever is queued, it costs the same.
for case in "10 1" "10000 1" "1000000 1" "10000 1000"; do
    read -r queued services <<<"$case"
    few=$(count broker_instructions 6400 64 "$queued" "$services")
    many=$(count broker_instructions 19200 64 "$queued" "$services")
    printf 'queued %s-%s: %s\n' "$queued" "$services" $(((many - few) / 12800))
done)
printf '%s\n' "$found"
case $mode in
--write) printf '%s\n' "$found" >"$known" ;;
--check)
    paste -d' ' "$known" - <<<"$found" | awk '
        $1 $3 != $5 $7 { print "other lines than in the file: write it anew"; exit 1 }
        { off = ($8 - $4) / $4; if (off > 0.02 || off < -0.02) { printf "%s batch %s %s -> %s\n", $1, $3, $4, $8; bad = 1 } }
        END { exit bad }' || die "more than 2 % off $known: look why, or --write it"
    ;;
esac
