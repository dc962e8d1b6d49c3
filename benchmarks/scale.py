"""What many pictures cost: seconds and peak memory of each stage, and the exponent between them.

    python benchmarks/scale.py [--counts 1000 4000 20000] [--size 224] [--cache-gb 1] [--small]

Pictures are generated; the network is timm's smallest, untrained, so that it ends. Each stage is a process of its own,
as `dvc repro` runs it, one epoch each. The exponent is the slope of seconds over pictures, both in logarithms, once
without and once with what a stage takes for no pictures to speak of (imports), which is measured on 20.

Goals: train-head and fine-tune under 2.5 GB on 20,000 pictures of 224 px with a cache of 1 GB; exponents about 1.
"""

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from headstart.base.parallel import parallel_map

ROOT = Path(__file__).parents[1]
STAGES = ("fetch", "weights", "split", "augment", "train-head", "fine-tune")
LEAST = 20  # pictures that cost nothing to speak of


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 4000, 20000])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--cache-gb", type=float, default=1.0)
    parser.add_argument("--small", action="store_true", help="50 and 100 pictures of 64 px: to see that it runs")
    args = parser.parse_args()
    if args.small:
        args.counts, args.size, args.cache_gb = [50, 100], 64, 0.001
    seconds: dict[str, dict[int, float]] = {stage: {} for stage in STAGES}
    peaks: dict[str, dict[int, float]] = {stage: {} for stage in STAGES}
    for count in (LEAST, *args.counts):
        with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
            project(Path(folder), count, args.size, args.cache_gb)
            for stage in STAGES:
                seconds[stage][count], peaks[stage][count] = timed(Path(folder), stage)
                print(
                    f"{count:>6} pictures: {stage:<10} {seconds[stage][count]:7.1f} s, "
                    f"peak {peaks[stage][count]:6.0f} MB",
                    flush=True,
                )
    print(f"\n{'pictures':<10}" + "".join(f"{count:>17,}" for count in args.counts) + "   exponent  less start")
    for stage, each in seconds.items():
        cells = "".join(f"{each[count]:>7.1f} s{peaks[stage][count]:>5.0f} MB" for count in args.counts)
        more = {count: max(0.01, each[count] - each[LEAST]) for count in args.counts}
        print(f"{stage:<10}{cells}   {slope({n: each[n] for n in args.counts}):>8.2f}  {slope(more):>10.2f}")
    most = max(peaks[stage][max(args.counts)] for stage in ("train-head", "fine-tune"))
    print(f"training on {max(args.counts):,} pictures: peak {most:.0f} MB (goal: under 2500); exponents: about 1")


def project(folder: Path, count: int, size: int, cache_gb: float) -> None:
    """Class folders of generated pictures, and params."""

    def write(number: int) -> None:
        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 130, (8, 8, 3))
        coarse[..., 2 * (number % 2)] += 120  # red or blue
        picture = Image.fromarray(coarse.astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
        picture.save(folder / f"data/{('red', 'blue')[number % 2]}/{number}.jpg")

    for label in ("red", "blue"):
        (folder / "data" / label).mkdir(parents=True)
    parallel_map(write, range(count), "generate")
    values = yaml.safe_load((ROOT / "recipes/cats-dogs.yaml").read_text())
    values["model"] |= {"backbone": "test_efficientnet", "weights": "none", "image_size": size}
    values["fetch"]["sources"] = [{"folder": "data"}]
    values["split"] |= {"train": 0.9, "val": 0.05, "test": 0.05}
    values["augment"]["copies"] = 0
    values["train"]["cache_gb"] = cache_gb
    values["train_head"]["epochs"] = 1
    values["fine_tune"] |= {"epochs": 1, "freeze_depth": 0}
    (folder / "params.yaml").write_text(yaml.safe_dump(values))


def timed(folder: Path, stage: str) -> tuple[float, float]:
    """Wall seconds and peak resident megabytes (10^6) of a stage; its files' cached pages count."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", "from headstart.cli import main; main()", stage],
        cwd=folder,
        env={**os.environ, "RANK": "1"},  # only the first process records: no MLflow here
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{stage} failed")
    process.returncode = 0
    return time.perf_counter() - begin, usage.ru_maxrss * 1024 / 1e6


def slope(seconds: dict[int, float]) -> float:
    """Of log seconds over log pictures, by least squares; not a number for a single count."""
    if len(seconds) < 2:
        return math.nan
    return statistics.linear_regression([math.log(n) for n in seconds], [math.log(s) for s in seconds.values()]).slope


if __name__ == "__main__":
    main()
