#!/usr/bin/env python3
"""Reads the .hlog files of `pinmesh-bench run --hlog DIR` with HdrHistogram's own Python reader and holds them against
the JSON report of the same run.

    check.py REPORT.json DIR [--run N]

Prints a line a stage, and exits with 1 if anything differs.
"""
import argparse
import json
import math
import pathlib
import sys

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

VALUE_MAX_NS = 60_000_000_000
DIGITS = 3
PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9, "p9999": 99.99}


def read(path):
    """All intervals of a log in one histogram, and how many there were."""
    merged = HdrHistogram(1, VALUE_MAX_NS, DIGITS)
    reader = HistogramLogReader(str(path), merged)
    intervals = 0
    while (interval := reader.get_next_interval_histogram()) is not None:
        if interval.get_tag() != path.stem:
            sys.exit(f"{path}: an interval has the tag {interval.get_tag()!r}")
        merged.add(interval)
        intervals += 1
    reader.close()
    return merged, intervals


def value_at_rank(histogram, rank):
    """The value that so many of the values do not exceed, from the counts themselves."""
    seen = 0
    for item in histogram.get_recorded_iterator():
        seen += item.count_at_value_iterated_to
        if seen >= rank:
            return histogram.get_highest_equivalent_value(item.value_iterated_to)
    return histogram.get_max_value()


def differences(name, histogram, latency):
    """What differs between a histogram and the report, in words."""
    count = histogram.get_total_count()
    if count != latency["count"]:
        yield f"{name}: {count} values in the log, {latency['count']} in the report"
        return
    maximum = histogram.get_max_value()
    expected = {"max": (maximum, maximum)}
    for key, percentile in PERCENTILES.items():
        # Readers round the rank up or to the nearest: either neighbour will do.
        rank = max(1, math.ceil(percentile / 100.0 * count - 1e-6))
        around = [value_at_rank(histogram, near) for near in (rank - 1, rank, rank + 1)]
        expected[key] = (min(around), max(around))
        library = histogram.get_value_at_percentile(percentile)
        if not min(around) <= histogram.get_highest_equivalent_value(library) <= max(around):
            yield f"{name}: the reader itself says {library} ns for {key}, its counts {around}"
    for key, (low, high) in expected.items():
        reported = round(latency[key] * 1000)
        # A report tells no value above the largest that was recorded.
        if not min(low, maximum) <= reported <= min(high, maximum):
            yield f"{name}: {key} is {reported} ns in the report, {low} to {high} ns in the log"
    # The reader's mean takes the middle of each bin.
    if not math.isclose(histogram.get_mean_value(), latency["mean"] * 1000, rel_tol=2e-3, abs_tol=2):
        yield f"{name}: mean {latency['mean'] * 1000} ns in the report, {histogram.get_mean_value()} in the log"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--run", type=int, default=1, help="which run of the report, from 1 (default: %(default)s)")
    arguments = parser.parse_args()
    report = json.loads(arguments.report.read_text(encoding="utf-8"))
    latencies = report["runs"][arguments.run - 1]["latency_us"]
    wrong = []
    for path in sorted(arguments.folder.glob("*.hlog")):
        histogram, intervals = read(path)
        latency = latencies.pop(path.stem, None)
        if latency is None:
            if histogram.get_total_count() > 0:
                wrong.append(f"{path.stem}: in a log and not in the report")
            continue
        wrong.extend(differences(path.stem, histogram, latency))
        print(f"{path.stem}: {intervals} intervals, {histogram.get_total_count()} values")
    wrong.extend(f"{stage}: in the report and in no log" for stage in latencies)
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
