#!/usr/bin/env bash
# `pinmesh map` over 10,000 files with a real program: the bytes of a shell loop, although a worker and the client are
# killed by SIGKILL on the way. The same test as in scripts/test.sh, with more files. Does its own set-up.
#
#   scripts/map_soak.sh [FILES]     default: 10000
. "$(dirname "$0")/setup.sh"

files=${1:-10000}
[[ $files =~ ^[1-9][0-9]+$ ]] || die "$files is no number of files from 10 on: scripts/map_soak.sh 10000"
need_packages g++ libsodium-dev pkg-config gzip
need_toolchain

say "building"
cargo build --workspace --bins --locked
say "$files files"
PINMESH_MAP_FILES=$files cargo test -p pinmesh-tests --test map --locked -- a_map_gives_the_bytes
