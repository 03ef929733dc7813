# Sourced by the other scripts: makes sure that what they need is there. As root it installs what is missing;
# otherwise it prints the one line that does. Set-up is never skipped silently.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"

say() { printf '\n== %s\n' "$*"; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# need_toolchain [COMPONENT...]: a Rust toolchain that is new enough, with these components.
need_toolchain() {
    command -v cargo >/dev/null || die "no cargo on the PATH. Install Rust: https://rustup.rs (or: apt-get install rustup && rustup default stable)"
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    found=$(rustc --version | cut -d' ' -f2)
    [ "$(printf '%s\n%s\n' "$wanted" "${found%%-*}" | sort -V | head -n 1)" = "$wanted" ] ||
        die "rustc $found is older than $wanted. Update it: rustup update stable"
    local component
    for component in "$@"; do
        cargo "$component" --version >/dev/null 2>&1 ||
            die "cargo $component is missing. Add it: rustup component add ${component/fmt/rustfmt}"
    done
}

# need_packages PACKAGE...: these Debian packages.
need_packages() {
    command -v dpkg-query >/dev/null || die "this is not Debian or a relative of it; install by hand what matches: $*"
    local package missing=()
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    if [ "$(id -u)" -ne 0 ]; then
        die "missing packages. Run: sudo apt-get install -y ${missing[*]}"
    fi
    say "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# need_python: a virtual environment of the project's own, target/venv, with the packages that the tests use.
need_python() {
    local requirements=scripts/requirements.txt stamp=target/venv/requirements.txt
    cmp -s "$requirements" "$stamp" && return
    say "making target/venv"
    rm -rf target/venv
    mkdir -p target
    python3 -m venv target/venv
    target/venv/bin/pip install --quiet --disable-pip-version-check -r "$requirements"
    cp "$requirements" "$stamp"
}
