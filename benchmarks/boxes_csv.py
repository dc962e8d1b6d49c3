"""Time to select three classes from Open Images' table of train boxes: 14.6 million rows in 2.2 GB.

    python benchmarks/boxes_csv.py [--rows 14600000] [--file boxes.csv]

Generates such a table (or uses `--file`, which it creates if it does not exist), reads it once so that it is in the
page cache for both, filters it with `select_by_mid` and reads all of it with pandas, each in a process of its own.
Prints the times, their ratio and the peak memory of both; and CPU seconds, which vary less on a shared machine.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HEADER = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside,"
    "XClick1X,XClick2X,XClick3X,XClick4X,XClick1Y,XClick2Y,XClick3Y,XClick4Y\n"
)
CLASSES = 601
SELECTED = [60, 200, 400]  # ranks by frequency: together about half a percent of the boxes
IMPORTS = """
from pathlib import Path
import pandas
import pyarrow.compute, pyarrow.csv
from headstart.fetch.csv_filter import select_by_mid
from headstart.fetch.sources.open_images_tables import BOX_FLAGS, CORNER_COLUMNS
"""
OURS = """
columns = ("ImageID", "LabelName", *CORNER_COLUMNS)
rows = select_by_mid(Path(sys.argv[1]), "LabelName", sys.argv[2:], columns, optional=BOX_FLAGS).num_rows
"""
PANDAS = """
table = pandas.read_csv(sys.argv[1])
rows = int(table["LabelName"].isin(sys.argv[2:]).sum())
"""
FRAME = """
import json, resource, sys, time
{}
started, used = time.perf_counter(), time.process_time()
{}
seconds, used = time.perf_counter() - started, time.process_time() - used
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([rows, seconds, used, memory]))
"""


def main() -> None:
    """Generate, warm up, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=14_600_000)
    parser.add_argument("--file", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        path = arguments.file or Path(scratch, "boxes.csv")
        if not path.exists():
            _generate(path, arguments.rows)
        with path.open("rb") as file:
            while file.read(1 << 24):
                pass
        mids = [_mid(rank) for rank in SELECTED]
        ours, pandas = (_measure(code, path, mids) for code in (OURS, PANDAS))
    assert ours[0] == pandas[0], "both must find the same rows"
    print(f"{arguments.rows:,} rows, {ours[0]:,} of the three classes; both times without imports")
    for name, (_, seconds, used, memory), limit in (
        ("select_by_mid", ours, " (limit: 500)"),
        ("pandas, all", pandas, ""),
    ):
        print(f"{name:<14}{seconds:7.2f} s  {used:7.2f} s of CPU  peak memory {memory:6.0f} MB{limit}")
    print(f"ratio         {pandas[1] / ours[1]:7.1f}    (goal: 10)")


def _measure(code: str, path: Path, mids: list[str]) -> tuple[int, float, float, float]:
    """Rows found, seconds, seconds of CPU and megabytes."""
    command = [sys.executable, "-c", FRAME.format(IMPORTS, code), str(path), *mids]
    rows, seconds, used, memory = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return rows, seconds, used, memory


def _mid(rank: int) -> str:
    return f"/m/0{rank * 7919 % 2**20:05x}"


def _generate(path: Path, rows: int) -> None:
    """Rows like the real ones: 150 bytes, sorted by picture, few common classes and many rare ones."""
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, CLASSES + 1)
    names = [_mid(rank) for rank in range(CLASSES)]
    with path.open("w") as file:
        file.write(HEADER)
        for start in range(0, rows, 100_000):
            count = min(100_000, rows - start)
            ranks = rng.choice(CLASSES, count, p=shares / shares.sum()).tolist()
            numbers = [f"{number:.6f}" for number in rng.random(count + 12).tolist()]
            flags = rng.choice(["0", "1"], (count + 5), p=[0.8, 0.2]).tolist()
            sources = ["xclick" if flag == "0" else "activemil" for flag in flags]
            lines = [
                f"{(start + i) // 8 * 1000003:016x},{sources[i]},{names[ranks[i]]},1,{','.join(numbers[i : i + 4])},"
                f"{','.join(flags[i : i + 5])},{','.join(numbers[i + 4 : i + 12])}\n"
                for i in range(count)
            ]
            file.writelines(lines)


if __name__ == "__main__":
    main()
