"""What each of our own CPU optimisations gains in a whole step, beside the step without it and beside a library's way.

    python benchmarks/ops.py [--only fuse fold ...] [--turns 7] [--allocator FILE] [--cpu-time] [--quick]

One piece at a time is taken out; everything else stays as training or embedding has it. The network is
tf_efficientnet_lite0 with random weights, its batch norm statistics taken from a batch of noise. A classifier's step
has 32 pictures of 224 px and trains every block; a detector's is that of recipes/detector.yaml (320 px, batch 4,
pyramid 128, 5 blocks frozen). Inputs are made once: a step is forward, loss, backward, optimizer and average.

With, without and the libraries' ways run in turns in one process, or, where that cannot be, in processes of their own.
Milliseconds are medians. The ratio is without / with: median, least and largest over the turns; the gain is the part of
the step without the piece that the piece saves. On a machine that does other work too, wall seconds say little: run
`OMP_WAIT_POLICY=passive python benchmarks/ops.py --cpu-time` there, which counts the processor's (what runs in one
thread alone, such as torchvision's RoIAlign backward, then seems cheaper than it is). FILE is a malloc to compare, such
as libjemalloc.so.2. --quick: small pictures, two turns, to see that it runs.
"""

import argparse
import gc
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from ops_cases import ALLOCATOR, CASES, OPTIMIZERS, Steps
from ops_steps import CPU_TIME, RATE, SIZES, SMALL, Child, groups_of, prepared, timed, training
from torch import nn


def measure(case: Callable[[], Steps], turns: int) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Milliseconds of each way in turns, after one that warms it up; of those that fail, why."""
    ways, failed = case(), dict[str, str]()
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(turns + 1):
        for name in list(ways):
            try:
                found[name].append(ways[name]())
            except Exception as error:  # a library's way may lack a compiler, say; the others go on
                if name in ("with", "without"):
                    raise
                failed[name] = f"{type(error).__name__}"
                del ways[name], found[name]
    for step in ways.values():
        if isinstance(step, Child):
            step.close()
    return {name: times[1:] for name, times in found.items()}, failed


def row(name: str, found: dict[str, list[float]], failed: dict[str, str]) -> str:
    """One row of the table."""
    ratios = [other / own for own, other in zip(found["with"], found["without"], strict=True)]
    middle = {way: statistics.median(times) for way, times in found.items()}
    ratio = statistics.median(ratios)
    others = [f"{way} {took:.1f}" for way, took in middle.items() if way not in ("with", "without")]
    libraries = "; ".join([*others, *(f"{way}: {why}" for way, why in failed.items())]) or "-"
    gain = f"{100 * (1 - 1 / ratio):.0f} % (ratio {ratio:.2f}, {min(ratios):.2f} to {max(ratios):.2f})"
    return f"| {name} | {middle['with']:.1f} | {middle['without']:.1f} | {gain} | {libraries} |"


def main() -> None:
    """Measure, and print the table row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="PIECE")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--allocator", type=Path, help="a malloc to preload beside glibc's: libjemalloc.so.2, say")
    parser.add_argument("--cpu-time", action="store_true", help="the processor's milliseconds, not the clock's")
    parser.add_argument("--quick", action="store_true", help="small pictures, two turns: to see that it runs")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cpu_time:
        os.environ[CPU_TIME] = "1"
    if args.quick:
        SIZES.update(SMALL)
        args.turns = 2
    if args.child:
        run_child(args.child)
        return
    if args.allocator:
        os.environ[ALLOCATOR] = str(args.allocator.resolve(strict=True))
    load = ", ".join(f"{some:.1f}" for some in os.getloadavg())
    print(f"{prepared().description()}, {torch.get_num_threads()} threads, torch {torch.__version__}, load {load}\n")
    print("| piece | with ms | without ms | gain | library alternative ms |\n|---|---|---|---|---|", flush=True)
    for name in args.only:
        print(row(name, *measure(CASES[name], args.turns)), flush=True)
        gc.collect()  # networks hold themselves by closures


def run_child(what: str) -> None:
    """Run a step for each line that comes in, and print its milliseconds."""
    if what == "step":
        step, _ = training("classify")
    else:
        groups = groups_of([nn.Parameter(torch.ones(8, 8))])
        groups[0].parameters[0].grad = torch.ones(8, 8)
        step = timed(lambda: OPTIMIZERS[what](groups).step(RATE))
    for _ in sys.stdin:
        print(step(), flush=True)


if __name__ == "__main__":
    main()
