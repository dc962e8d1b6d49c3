"""What a recipe costs and gives, each seed in a fresh clone.

    python benchmarks/pipeline.py [--recipe solar-cells] [--seeds 0 1 2] [--twice]

For each seed: wall seconds of the whole `dvc repro`, peak memory of all its processes together, test accuracy with its
interval. For the first seed also: what an edit of train_head.weight_decay runs again and how long train-head takes, the
time of `headstart --help`, and (--twice) whether a second clone gives the same bits.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import yaml

ROOT = Path(__file__).parents[1]
SAME = ("train-head/model.safetensors", "fine-tune/model.safetensors", "evaluate/metrics.json")


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="solar-cells")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--twice", action="store_true", help="run the first seed in a second clone and compare")
    args = parser.parse_args()
    accuracies = []
    with tempfile.TemporaryDirectory(prefix="headstart-") as scratch:
        for seed in args.seeds:
            folder = clone(Path(scratch) / f"seed-{seed}", args.recipe, seed)
            seconds, peak, _ = repro(folder)
            test = json.loads((folder / "stages/evaluate/metrics.json").read_text())["test"]
            accuracies.append(test["accuracy"])
            print(
                f"{args.recipe} seed {seed}: dvc repro {seconds:.0f} s, peak {peak / 2**20:.0f} MiB, test accuracy "
                f"{test['accuracy']:.4f} ({test['accuracy_low']:.4f} to {test['accuracy_high']:.4f}, "
                f"{test['pictures']} pictures)",
                flush=True,
            )
        low, high = min(accuracies), max(accuracies)
        print(f"test accuracy: mean {statistics.fmean(accuracies):.4f}, {low:.4f} to {high:.4f}, n = {len(accuracies)}")
        first = Path(scratch) / f"seed-{args.seeds[0]}"
        if args.twice:
            compare(first, clone(Path(scratch) / "again", args.recipe, args.seeds[0]))
        edit_rate(first)
    begin = time.perf_counter()
    run(ROOT, "headstart", "--help")
    print(f"headstart --help: {time.perf_counter() - begin:.2f} s")


def clone(folder: Path, recipe: str, seed: int) -> Path:
    """A fresh clone of HEAD with the recipe, a seed and its data."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    params = yaml.safe_load((folder / f"recipes/{recipe}.yaml").read_text())
    (folder / "params.yaml").write_text(yaml.safe_dump(params | {"seed": seed}, sort_keys=False))
    shutil.copytree(folder / "samples", folder / "data")
    return folder


def run(folder: Path, *command: str) -> str:
    """Run one of our commands with the clone's own code."""
    return subprocess.run(
        command, cwd=folder, env=environment(folder), check=True, text=True, capture_output=True
    ).stdout


def environment(folder: Path) -> dict[str, str]:
    """This environment's programs, the clone's code, and no tracking server but the clone's own file."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    quiet = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return quiet | {"PATH": path, "PYTHONPATH": str(folder / "src")}


def repro(folder: Path) -> tuple[float, int, str]:
    """`dvc repro`: wall seconds, peak resident bytes of the process and its children together, output."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        ["dvc", "repro"],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    peak = 0

    def watch() -> None:
        nonlocal peak
        top = psutil.Process(process.pid)
        while process.poll() is None:
            total = 0
            for each in (top, *top.children(recursive=True)):
                try:
                    total += each.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peak = max(peak, total)
            time.sleep(0.2)

    watcher = threading.Thread(target=watch)
    watcher.start()
    said, _ = process.communicate()
    watcher.join()
    if process.returncode:
        raise SystemExit(said)
    return time.perf_counter() - begin, peak, said


def edit_rate(folder: Path) -> None:
    """Change train_head.weight_decay and say what ran and how long train-head took."""
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["train_head"]["weight_decay"] = 0.01  # of the sample's recipe, which has auto
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    begin = time.perf_counter()
    run(folder, "headstart", "train-head")
    seconds = time.perf_counter() - begin
    _, _, said = repro(folder)
    ran = re.findall(r"Running stage '([\w-]+)'", said)
    print(f"edit of train_head.weight_decay: train-head alone {seconds:.1f} s; dvc repro ran {', '.join(ran)}")


def compare(one: Path, other: Path) -> None:
    """Whether two clones gave the same bits: the hashes in their dvc.lock."""
    repro(other)
    hashes = []
    for folder in (one, other):
        stages = yaml.safe_load((folder / "dvc.lock").read_text())["stages"].values()
        outs = {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", ())}
        hashes.append({name: outs[f"stages/{name}"] for name in SAME})
    for name in SAME:
        verdict = "same" if hashes[0][name] == hashes[1][name] else f"DIFFERS from {hashes[1][name]}"
        print(f"two clones: {name} {hashes[0][name]} {verdict}")


if __name__ == "__main__":
    main()
