#!/usr/bin/env bash
# A real job through the whole mesh: every file under a folder goes to `sha256` on pinned workers, every digest is
# checked against sha256sum, and a short report says how fast it went. Does its own set-up, leaves nothing running.
#
#   scripts/demo.sh [FOLDER]                 all on this host; default: /usr/share/doc
#   scripts/demo.sh --namespaces [FOLDER]    broker, workers and client each in a network namespace of its own, over
#                                            TCP with keys (CURVE): as on three hosts. Needs root
. "$(dirname "$0")/setup.sh"

usage() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "scripts/$(basename "$0")"; }

namespaces=
case "${1:-}" in
    -h | --help) usage; exit ;;
    --namespaces) ;;
    -*) usage >&2; die "\`$1\` is no flag of this script" ;;
esac
if [ "${1:-}" = --namespaces ]; then namespaces=yes; shift; fi
folder=${1:-/usr/share/doc}
[ -d "$folder" ] || die "$folder is not a folder. Name one with files in it: scripts/demo.sh [--namespaces] FOLDER"
need_packages g++ libsodium-dev pkg-config coreutils
if [ "$namespaces" ]; then
    [ "$(id -u)" -eq 0 ] || die "network namespaces need root. Run: sudo -E env \"PATH=\$PATH\" scripts/demo.sh --namespaces"
    need_packages iproute2 util-linux
fi
need_toolchain

say "building (release)"
cargo build --release --workspace --bins --locked
PATH="$ROOT/target/release:$PATH"
# Nobody else's mesh.
unset PINMESH_BROKER PINMESH_KEY PINMESH_BROKER_KEY

work=$(mktemp -d)
broker= worker= made=()
finish() {
    local status=$?
    trap - EXIT INT TERM
    # The worker first: it says goodbye to a broker that still listens.
    for pid in $worker $broker; do kill -TERM "$pid" 2>/dev/null || continue; wait "$pid" 2>/dev/null || true; done
    for name in "${made[@]}"; do ip netns del "$name" || true; done
    if [ "$status" -ne 0 ]; then
        for log in "$work"/*.log; do [ -s "$log" ] && sed "s|^|$(basename "$log"): |" "$log" | tail -n 20 >&2; done
    fi
    rm -rf "$work"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

# What goes before a command that runs at the broker, at the farm (the workers) and at the desk (the client), and the
# flags with its keys.
at_broker=() at_farm=() at_desk=()
broker_keys=() farm_keys=() desk_keys=()
frontend=tcp://127.0.0.1:0 backend=tcp://127.0.0.1:0

# add_host NAME: a network namespace; its name is left in $host.
add_host() {
    host=pinmesh-demo-$$-$1
    ip netns add "$host"
    made+=("$host")
    ip -n "$host" link set lo up
}

# add_cable HOST NUMBER: from the broker's namespace (10.213.NUMBER.1) to this one (10.213.NUMBER.2).
add_cable() {
    ip link add "cable$2" netns "${made[0]}" type veth peer name cable netns "$1"
    ip -n "${made[0]}" address add "10.213.$2.1/24" dev "cable$2"
    ip -n "${made[0]}" link set "cable$2" up
    ip -n "$1" address add "10.213.$2.2/24" dev cable
    ip -n "$1" link set cable up
}

separate_hosts() {
    say "three network namespaces: the broker, joined by a cable each to the farm (workers) and the desk (client)"
    # Not `ip netns exec`, which mounts a /sys of its own and hides the cgroups.
    add_host broker; at_broker=(nsenter "--net=/run/netns/$host" --)
    add_host farm; at_farm=(nsenter "--net=/run/netns/$host" --); add_cable "$host" 1
    add_host desk; at_desk=(nsenter "--net=/run/netns/$host" --); add_cable "$host" 2
    backend=tcp://10.213.1.1:5556 frontend=tcp://10.213.2.1:5555

    say "a key for each"
    {
        pinmesh keygen broker --role broker --dir "$work" >/dev/null
        pinmesh keygen farm --role worker --dir "$work" >>"$work/authorized_keys"
        pinmesh keygen desk --role client --dir "$work" >>"$work/authorized_keys"
    } 2>"$work/keygen.log"
    cat "$work/authorized_keys"
    broker_keys=(--key "$work/broker.key" --authorized-keys "$work/authorized_keys")
    farm_keys=(--key "$work/farm.key" --broker-key "$work/broker.pub")
    desk_keys=(--key "$work/desk.key" --broker-key "$work/broker.pub")
}

# ready FILE PID NAME: waits for the readiness line of a process that was started here.
ready() {
    local limit=$((SECONDS + 30))
    until grep -q ' ready ' "$1" 2>/dev/null; do
        kill -0 "$2" 2>/dev/null || die "$3 ended before it was ready; its log follows"
        [ $SECONDS -lt $limit ] || die "$3 was not ready after 30 s; its log follows"
        read -r -t 0.05 <> <(:) || true
    done
}

start_mesh() {
    say "starting a broker and one pinned worker a CPU"
    "${at_broker[@]}" pinmesh-broker --frontend "$frontend" --backend "$backend" --http "unix:$work/http" "${broker_keys[@]}" \
        >"$work/broker.out" 2>"$work/broker.log" &
    broker=$!
    ready "$work/broker.out" "$broker" pinmesh-broker
    frontend=$(sed -n 's/.* frontend=\([^ ]*\).*/\1/p' "$work/broker.out")
    backend=$(sed -n 's/.* backend=\([^ ]*\).*/\1/p' "$work/broker.out")
    "${at_farm[@]}" pinmesh-worker --backend "$backend" "${farm_keys[@]}" --cpus all --services sha256,echo \
        >"$work/worker.out" 2>"$work/worker.log" &
    worker=$!
    ready "$work/worker.out" "$worker" pinmesh-worker
    cat "$work/broker.out" "$work/worker.out"
}

run_job() {
    say "sha256 of every file under $folder"
    local started took count bytes
    started=$(date +%s%N)
    "${at_desk[@]}" pinmesh map sha256 --broker "$frontend" "${desk_keys[@]}" --files "$folder" >"$work/mesh.txt"
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
}

# A client without a key, and one with the workers' key, must get nowhere.
try_strangers() {
    say "a client without a key, and one with a key for workers: both must get nowhere"
    local flags
    for flags in "" "${farm_keys[*]}"; do
        # Unquoted: its words are flags, and no path of ours holds a space.
        # shellcheck disable=SC2086
        if "${at_desk[@]}" pinmesh call echo hello --broker "$frontend" $flags --connect-timeout 2s; then
            die "somebody without a listed client key got in"
        fi
    done
}

if [ "$namespaces" ]; then separate_hosts; fi
start_mesh
run_job
if [ "$namespaces" ]; then try_strangers; fi

say "what the cores carry: 64-byte echo, saturated"
mesh=(--workers "$(nproc)")
if [ "$namespaces" ]; then mesh=(--broker "$frontend" "${desk_keys[@]}" --broker-pid "$broker" --worker-pids "$worker"); fi
"${at_desk[@]}" pinmesh-bench throughput --payload 64 --window 1000 --duration 3s "${mesh[@]}"
