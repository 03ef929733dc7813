"""Draws mutants of the machines with a fixed seed, runs them, and judges what the tests caught. See scripts/mutants.sh."""

import argparse
import collections
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SURVIVORS = ROOT / "scripts/mutants/survivors.md"
WORK = pathlib.Path(os.environ.get("PINMESH_MUTANTS", ROOT / "target/mutants"))
TREE = WORK / "tree"

SEED = 20261124
COUNT = 300
CAUGHT_MIN = 0.90
TESTS_SECONDS_MAX = 10.0
# A mutant that hangs is given up; a sound run of the tests takes a tenth of that.
TIMEOUT_SECONDS = 9
# Outcomes are kept after each batch: so many are lost at most when the run is interrupted.
BATCH = 10

PACKAGES = {"pinmesh-core": "broker/core", "pinmesh-session": "mesh/session"}
FILES = [argument for path in PACKAGES.values() for argument in ("-f", f"{path}/src/**")]
# What the outcome of a mutant depends on.
SOURCES = ["broker/core", "mesh/session", "mesh/protocol", "Cargo.toml", "Cargo.lock"]
# Decides nothing: the cross-check that tests and the simulator make after each event. In a sound broker it finds nothing,
# whole or broken; that it finds something is shown by scripts/planted.sh.
EXCLUDED_FILES = {"broker/core/src/invariants.rs"}
# Words for people.
EXCLUDED_NAMES = ("<impl Debug for", "<impl Display for", "<impl fmt::Display for")

# Optimised a little, the property tests take a sixth of the time; building takes no longer.
PROFILE = {
    "CARGO_PROFILE_DEV_OPT_LEVEL": "1",
    "CARGO_PROFILE_DEV_DEBUG": "0",
    "CARGO_PROFILE_DEV_BUILD_OVERRIDE_OPT_LEVEL": "0",
    "CARGO_TERM_COLOR": "never",
    # A property that fails is caught; to make the case small, or to tell where from, would only take time.
    "PROPTEST_MAX_SHRINK_ITERS": "0",
    "RUST_BACKTRACE": "0",
}


def git(*arguments):
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout


def clone(commit):
    """A clone whose unchanged files keep their time, so that cargo builds only what has changed."""
    head = git("-C", str(ROOT), "rev-parse", commit).strip()
    if not TREE.exists():
        TREE.parent.mkdir(parents=True, exist_ok=True)
        git("clone", "-q", "--shared", "--no-checkout", str(ROOT), str(TREE))
    git("-C", str(TREE), "fetch", "-q", "origin")
    # A run that was interrupted has left its mutant in the tree.
    git("-C", str(TREE), "checkout", "-q", "--force", "--detach", head)
    return head


def sources_id():
    """Changes when an outcome may."""
    digest = hashlib.sha256()
    for source in SOURCES:
        digest.update(git("-C", str(TREE), "rev-parse", f"HEAD:{source}").encode())
    return digest.hexdigest()[:16]


def environment():
    without = {key: value for key, value in os.environ.items() if key != "CARGO_TARGET_DIR"}
    return without | PROFILE


def cargo(*arguments):
    return subprocess.run(
        ["cargo", *arguments], cwd=TREE, env=environment(), capture_output=True, text=True
    )


def all_mutants():
    """Every mutant that is not excluded by rule, with an id that outlives lines being moved."""
    listed = cargo("mutants", "--no-config", "--list", "--json", *FILES)
    if listed.returncode != 0:
        sys.exit(f"cargo mutants --list: {listed.stderr}")
    seen = collections.Counter()
    mutants = []
    for mutant in json.loads(listed.stdout):
        file = mutant["file"]
        what = mutant["name"].split(": ", 1)[1]
        if file in EXCLUDED_FILES or any(name in what for name in EXCLUDED_NAMES):
            continue
        seen[file, what] += 1
        number = seen[file, what]
        mutants.append(
            {
                "id": f"{file}: {what}" + (f" #{number}" if number > 1 else ""),
                "name": mutant["name"],
                "file": file,
                "package": mutant["package"],
                "diff": mutant["diff"],
            }
        )
    return mutants


def draw(mutants, seed, count):
    """The same ones for the same seed; a mutant that comes or goes elsewhere changes one of them at most."""
    return sorted(mutants, key=lambda it: hashlib.sha256(f"{seed} {it['id']}".encode()).digest())[:count]


def exact(name):
    """A regular expression (of Rust's) for this name and no other."""
    return "^" + "".join("\\" + c if c in r"\.+*?()|[]{}^$#&-~" else c for c in name) + "$"


def run_baseline():
    """Seconds that each crate's tests take, unmutated; they must pass."""
    seconds = {}
    for package in PACKAGES:
        built = cargo("test", "--locked", "-p", package, "--no-run")
        began = time.monotonic()
        tested = cargo("test", "--locked", "-p", package)
        seconds[package] = time.monotonic() - began
        if built.returncode != 0 or tested.returncode != 0:
            sys.exit(f"{package}: its tests fail without a mutant:\n{tested.stdout}{tested.stderr}")
    return seconds


def run_batch(batch):
    """Runs some mutants; their outcomes by id."""
    config, out = WORK / "batch.toml", WORK / "out"
    quoted = ", ".join(f"'''{exact(mutant['name'])}'''" for mutant in batch)
    config.write_text(f"examine_re = [{quoted}]\n")
    # It runs deleted fields whether they are examined or not: of as few files as can be.
    files = [argument for file in sorted({it["file"] for it in batch}) for argument in ("-f", file)]
    ran = cargo(
        "mutants", "--config", str(config), *files, "--in-place", "--baseline=skip",
        "--timeout", str(TIMEOUT_SECONDS), "--build-timeout", "300", "--output", str(out),
        "--no-times", "--colors=never", "--cargo-arg=--locked",
    )
    found = json.loads((out / "mutants.out/outcomes.json").read_text())["outcomes"]
    by_name = {it["scenario"]["Mutant"]["name"]: it for it in found if it["scenario"] != "Baseline"}
    outcomes = {}
    for mutant in batch:
        if mutant["name"] not in by_name:
            sys.exit(f"cargo mutants left out {mutant['name']}:\n{ran.stdout}{ran.stderr}")
        outcome = by_name[mutant["name"]]
        tests = [phase["duration"] for phase in outcome["phase_results"] if phase["phase"] == "Test"]
        summary = {
            "CaughtMutant": "caught", "MissedMutant": "missed", "Timeout": "timeout", "Unviable": "unviable",
        }[outcome["summary"]]
        outcomes[mutant["id"]] = {"outcome": summary, "test_seconds": sum(tests)}
    return outcomes


def explained():
    """Ids in survivors.md, each on a line of its own in backquotes; the reason follows."""
    lines = SURVIVORS.read_text().splitlines() if SURVIVORS.exists() else []
    return {line[3 : line.index("`", 3)] for line in lines if line.startswith("- `")}


def judge(drawn, outcomes, seconds):
    """Prints the verdict; the exit status."""
    of = collections.defaultdict(list)
    for mutant in drawn:
        of[outcomes[mutant["id"]]["outcome"]].append(mutant)
    viable = len(drawn) - len(of["unviable"])
    caught = len(of["caught"]) + len(of["timeout"])
    reasons = explained()
    print(f"\n{len(drawn)} mutants, {viable} viable: {len(of['caught'])} caught, {len(of['timeout'])} hung, "
          f"{len(of['missed'])} survived: {100 * caught / max(viable, 1):.1f} % caught")
    slowest = max((outcomes[mutant["id"]]["test_seconds"] for mutant in of["caught"]), default=0)
    print("tests of a crate, unmutated: " + ", ".join(f"{name} {it:.1f} s" for name, it in seconds.items())
          + f"; the slowest that caught one: {slowest:.1f} s")
    faults = []
    for mutant in of["missed"]:
        is_explained = mutant["id"] in reasons
        print(f"{'survived ' if is_explained else 'UNEXPLAINED'} {mutant['id']}   ({mutant['name'].split(' ')[0]})")
        if not is_explained:
            faults.append(f"not explained in survivors.md: {mutant['id']}")
    for mutant in of["caught"] + of["timeout"]:
        if mutant["id"] in reasons:
            print(f"note: survivors.md explains one that is caught by now: {mutant['id']}")
    if caught < CAUGHT_MIN * viable:
        faults.append(f"fewer than {100 * CAUGHT_MIN:.0f} % were caught")
    for name, it in seconds.items():
        if it > TESTS_SECONDS_MAX:
            faults.append(f"the tests of {name} take longer than {TESTS_SECONDS_MAX:.0f} s")
    for fault in faults:
        print(f"FAIL  {fault}")
    return 1 if faults else 0


def main():
    parser = argparse.ArgumentParser(prog="scripts/mutants.sh")
    parser.add_argument("--list", action="store_true", help="only say what is drawn")
    parser.add_argument("--diff", metavar="TEXT", help="only show the changes of drawn mutants whose id has this in it")
    parser.add_argument("--survivors", action="store_true", help="run those again that were missed")
    parser.add_argument("--commit", default="HEAD")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--count", type=int, default=COUNT)
    flags = parser.parse_args()

    head = clone(flags.commit)
    mutants = all_mutants()
    drawn = draw(mutants, flags.seed, flags.count)
    if flags.list or flags.diff:
        for mutant in drawn:
            if flags.list or flags.diff in mutant["id"]:
                print(mutant["diff"] if flags.diff else mutant["name"])
        return 0

    WORK.mkdir(parents=True, exist_ok=True)
    kept = WORK / f"outcomes-{sources_id()}.json"
    outcomes = json.loads(kept.read_text()) if kept.exists() else {}
    if flags.survivors:
        outcomes = {id: it for id, it in outcomes.items() if it["outcome"] != "missed"}
    todo = sorted((mutant for mutant in drawn if mutant["id"] not in outcomes), key=lambda it: it["file"])
    print(f"{len(drawn)} of {len(mutants)} mutants, seed {flags.seed}, commit {head[:12]}; {len(todo)} to run", flush=True)
    seconds = run_baseline()
    began = time.monotonic()
    for start in range(0, len(todo), BATCH):
        batch = todo[start : start + BATCH]
        outcomes |= run_batch(batch)
        kept.write_text(json.dumps(outcomes, indent=1))
        missed = [mutant["name"] for mutant in batch if outcomes[mutant["id"]]["outcome"] == "missed"]
        print(f"{start + len(batch)} of {len(todo)}, {time.monotonic() - began:.0f} s", flush=True)
        for name in missed:
            print(f"  missed {name}", flush=True)
    return judge(drawn, outcomes, seconds)


if __name__ == "__main__":
    sys.exit(main())
