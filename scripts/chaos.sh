#!/usr/bin/env bash
# Real processes under load, killed, stopped, cut off and slowed down with the shipped configuration, and an account of
# every task by recorders that do not ask the mesh: none lost, none answered twice, no overlap of attempts outside the
# stated exceptions, work that goes on in time. Prints a line a kind; exit code 1 and the folder of the records if a
# promise was broken. Takes about 20 minutes. Does its own set-up; needs root, for network namespaces.
#
#   scripts/chaos.sh [--rounds N] [--fast] [KIND...]    default: each kind of damage, kills 50 times, stops and cuts 5
#                                                       times, the slow link once; --fast: short leases, short damage
. "$(dirname "$0")/setup.sh"

[ "$(id -u)" -eq 0 ] || die "network namespaces need root. Run: sudo -E env \"PATH=\$PATH\" scripts/chaos.sh"
need_packages g++ iproute2 libsodium-dev pkg-config util-linux
need_toolchain

say "building (release)"
cargo build --release --locked -p pinmesh-broker -p pinmesh-tests --bins
# Of its own, so that a build meanwhile does not put other programs in their place.
programs=$(mktemp -d)
trap 'rm -rf "$programs"' EXIT
for name in pinmesh-broker pinmesh-chaos pinmesh-chaos-worker pinmesh-chaos-client; do
    cp "target/release/$name" "$programs/"
done
say "chaos at $(git describe --always --dirty 2>/dev/null || echo 'an unknown commit')"
PINMESH_BIN_DIR=$programs "$programs/pinmesh-chaos" "$@"
