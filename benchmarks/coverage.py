"""How often the intervals of the report contain the truth, on test sets whose truth is known.

    python benchmarks/coverage.py [--only NAME] [--times 1000] [--seed 0] [--jobs 1]

A 95 % interval should contain it in 93 to 97 % of test sets. Each row is a figure at a number of pictures, of which so
many are independent units, and a true rate (of right answers, or the true area under the ROC curve). The last lines
list every cell that is outside, and whether the report promises it: below FEW_UNITS units its intervals carry a note.
Where a figure takes few values (19 or 20 of 20 are right) no interval covers 95 % at every rate: ours cover more there.
With 1,000 test sets a cell is 0.7 points off by chance, and one in fifty by more than 1.6. docs/intervals.md has more.
"""

import argparse
import importlib.util
import sys
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from importlib import import_module

import numpy as np
from coverage_case import Case

from headstart.metrics.intervals import FEW_UNITS

PARTS = ("coverage_classification", "coverage_detection", "coverage_cross_validation")
LEAST, MOST = 0.93, 0.97


@cache
def all_cases(only: str) -> list[Case]:
    """The cells of all parts whose name contains `only`."""
    parts = [import_module(part) for part in PARTS if importlib.util.find_spec(part)]
    return [case for part in parts for case in part.cases() if only in case.name]


def measure(number: int, only: str, times: int, seed: int) -> tuple[float, float]:
    """Coverage and mean width of one cell, by its number."""
    case = all_cases(only)[number]
    rate = int(1000 * np.nan_to_num(case.rate))
    rng = np.random.default_rng([seed, zlib.crc32(case.name.encode()), case.pictures, rate])
    ends = np.array([case.draw(rng)[:2] for _ in range(times)])
    inside = (ends[:, 0] <= case.truth + 1e-12) & (case.truth - 1e-12 <= ends[:, 1])
    finite = np.isfinite(ends).all(axis=1)
    return float(inside.mean()), float((ends[finite, 1] - ends[finite, 0]).mean()) if finite.any() else float("nan")


def rows(cases: Sequence[Case], found: Sequence[tuple[float, float]]) -> list[str]:
    """The table: one row a figure, its setting and size; one column a rate."""
    table: dict[tuple[str, int, int], dict[float, float]] = {}
    for case, (coverage, _) in zip(cases, found, strict=True):
        table.setdefault((case.name, case.pictures, case.units), {})[case.rate] = coverage
    lines = ["| figure | pictures | units | coverage in % at a true rate of |", "|---|---|---|---|"]
    for (name, pictures, units), by_rate in table.items():
        cells = ", ".join(f"{rate:g}: {100 * coverage:.1f}" for rate, coverage in by_rate.items())
        lines.append(f"| {name} | {pictures} | {units} | {cells} |")
    return lines


def summary(cases: Sequence[Case], found: Sequence[tuple[float, float]]) -> list[str]:
    """Which cells are outside 93 to 97 %, below and above, promised and not."""
    lines = [
        f"Promised from {FEW_UNITS} units on: {LEAST:.0%} or more, and no more than {MOST:.0%} unless values are few."
    ]
    for promised in (True, False):
        own = [(case, coverage) for case, (coverage, _) in zip(cases, found, strict=True) if case.promised == promised]
        below = [(case, coverage) for case, coverage in own if coverage < LEAST]
        above = [(case, coverage) for case, coverage in own if coverage > MOST]
        inside = len(own) - len(below) - len(above)
        lines += [
            f"{'Promised' if promised else 'Not promised'}: {len(own)} cells, {inside} inside, {len(below)} below, "
            f"{len(above)} above.",
            *_listed("below", below),
            *_listed("above", above),
        ]
    return lines


def _listed(side: str, outside: Sequence[tuple[Case, float]]) -> list[str]:
    """The cells by figure: pictures@rate and coverage in %."""
    by_name: dict[str, list[str]] = {}
    for case, coverage in outside:
        by_name.setdefault(case.name, []).append(f"{case.pictures}@{case.rate:g} {100 * coverage:.1f}")
    return [f"  {side}: {name}: {', '.join(cells)}" for name, cells in by_name.items()]


def main() -> None:
    """Print the table and what is outside."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cells whose name contains this")
    parser.add_argument("--times", type=int, default=1000, help="test sets drawn for each cell")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    args = parser.parse_args()
    cases = all_cases(args.only)
    if not cases:
        sys.exit(f"no cell whose name contains {args.only!r}")
    work = partial(measure, only=args.only, times=args.times, seed=args.seed)
    if args.jobs > 1:
        with ProcessPoolExecutor(args.jobs) as pool:
            found = list(pool.map(work, range(len(cases)), chunksize=8))
    else:
        found = [work(number) for number in range(len(cases))]
    print("\n".join([*rows(cases, found), "", *summary(cases, found)]))


if __name__ == "__main__":
    main()
