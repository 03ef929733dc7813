#!/usr/bin/env bash
# A real job through the whole mesh: every file under a folder goes to `sha256` on pinned workers, every digest is
# checked against sha256sum, and a short report says how fast it went. Does its own set-up, leaves nothing running.
#
#   scripts/demo.sh [FOLDER]     default: /usr/share/doc
. "$(dirname "$0")/setup.sh"

folder=${1:-/usr/share/doc}
[ -d "$folder" ] || die "$folder is not a folder. Name one with files in it: scripts/demo.sh FOLDER"
need_packages g++ libsodium-dev pkg-config coreutils
need_toolchain

say "building (release)"
cargo build --release --workspace --bins --locked
PATH="$ROOT/target/release:$PATH"

work=$(mktemp -d)
broker= worker=
finish() {
    local status=$?
    trap - EXIT INT TERM
    # The worker first: it says goodbye to a broker that still listens.
    for pid in $worker $broker; do kill -TERM "$pid" 2>/dev/null || continue; wait "$pid" 2>/dev/null || true; done
    if [ "$status" -ne 0 ]; then
        for log in "$work"/*.log; do [ -s "$log" ] && sed "s|^|$(basename "$log"): |" "$log" | tail -n 20 >&2; done
    fi
    rm -rf "$work"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

# ready FILE PID NAME: waits for the readiness line of a process that was started here.
ready() {
    local limit=$((SECONDS + 30))
    until grep -q ' ready ' "$1" 2>/dev/null; do
        kill -0 "$2" 2>/dev/null || die "$3 ended before it was ready; its log follows"
        [ $SECONDS -lt $limit ] || die "$3 was not ready after 30 s; its log follows"
        read -r -t 0.05 <> <(:) || true
    done
}

say "starting a broker and one pinned worker a CPU"
pinmesh-broker --frontend tcp://127.0.0.1:0 --backend tcp://127.0.0.1:0 >"$work/broker.out" 2>"$work/broker.log" &
broker=$!
ready "$work/broker.out" "$broker" pinmesh-broker
frontend=$(sed -n 's/.* frontend=\([^ ]*\).*/\1/p' "$work/broker.out")
backend=$(sed -n 's/.* backend=\([^ ]*\).*/\1/p' "$work/broker.out")
pinmesh-worker --backend "$backend" --cpus all --services sha256,echo >"$work/worker.out" 2>"$work/worker.log" &
worker=$!
ready "$work/worker.out" "$worker" pinmesh-worker
cat "$work/broker.out" "$work/worker.out"

say "sha256 of every file under $folder"
started=$(date +%s%N)
pinmesh map sha256 --broker "$frontend" --files "$folder" >"$work/mesh.txt"
took=$(($(date +%s%N) - started))

say "checking every digest against sha256sum"
find "$folder" -type f -print0 | sort -z | xargs -0 sha256sum | sort -k 2 >"$work/expected.txt"
sort -k 2 "$work/mesh.txt" >"$work/found.txt"
if ! diff "$work/expected.txt" "$work/found.txt" >"$work/difference.txt"; then
    head -n 10 "$work/difference.txt" >&2
    die "$(grep -c '^[<>]' "$work/difference.txt") lines differ from sha256sum (< expected, > from the mesh)"
fi
count=$(wc -l <"$work/expected.txt")
[ "$count" -gt 0 ] || die "there is no file under $folder; nothing was checked"
bytes=$(find "$folder" -type f -print0 | du -cb --files0-from=- | tail -n 1 | cut -f 1)
printf '%d files, %d bytes: every digest is right; %d ms, %d files/s\n' \
    "$count" "$bytes" $((took / 1000000)) $((count * 1000000000 / took))

say "what the cores carry: 64-byte echo, saturated"
pinmesh-bench throughput --payload 64 --window 1000 --duration 3s
