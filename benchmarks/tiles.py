"""Small things in large pictures, with and without `model.tiles`: cells of 40 px in generated scenes of about 3,000 px.

    python benchmarks/tiles.py [--scenes 30] [--steps 400] [--side 3000] [--seed 0]

Scenes are composed of solar cells of the package elpv-dataset, nine each, far apart on a plain ground; functional and
defective cells both have a box. `recipes/detector.yaml` learns them twice: from the whole scene at its `image_size`,
and by tiles of that many pixels. Prints the pictures of each split, seconds of training and of the evaluation, and test
AP50 and AP with their 95 % intervals, and AP50 where a box of either label counts.
"""

import argparse
import contextlib
import io
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from headstart import tasks
from headstart.base.manifest import read_manifest
from headstart.metrics.coco_matching import match_detections
from headstart.params.root import Params

ROOT = Path(__file__).parents[1]
CELL, ACROSS = 40, 3  # pixels of a cell's side; cells in a row and in a column


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=30)
    parser.add_argument("--steps", type=int, default=400, help="batches of fine-tuning")
    parser.add_argument("--side", type=int, default=3000, help="of a scene, about, in pixels")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print("| | train, val, test | train s | evaluate s | test AP50 | test AP | AP50 of cells of any label |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="headstart-") as scratch:
        root = Path(scratch)
        (root / "data").mkdir()
        shutil.copy(ROOT / "samples/solar-cells.csv", root / "data")
        for name, tiles in (("whole scenes", None), ("tiles", {"size": 320, "overlap": 0.2})):
            run_setting(root, name, project_values(args), tiles)


def project_values(args: argparse.Namespace) -> dict[str, Any]:
    """The recipe's params with the scenes as their source."""
    values: dict[str, Any] = yaml.safe_load((ROOT / "recipes/detector.yaml").read_text())
    gap = (args.side - ACROSS * CELL) // (ACROSS + 1)
    scenes = {
        "table": "data/solar-cells.csv",
        "boxes": ["defective", "functional"],
        "scenes": args.scenes,
        "rows": [ACROSS, ACROSS],
        "columns": [ACROSS, ACROSS],
        "cell": [CELL, CELL],
        "gap": [gap * 4 // 5, gap * 6 // 5],
        "margin": [gap * 4 // 5, gap * 6 // 5],
        "groups": 10,
    }
    values["fetch"]["sources"] = [{"mosaic": scenes, "group_by": "none"}]
    values["split"] |= {"train": 0.6, "val": 0.2, "test": 0.2, "near_duplicate_bits": -1}
    values["fine_tune"] |= {"epochs": 1, "min_steps": args.steps}
    values["seed"] = args.seed
    return values


def run_setting(root: Path, name: str, values: dict[str, Any], tiles: dict[str, Any] | None) -> None:
    """Train and evaluate, and print a row."""
    values["model"] |= {"tiles": tiles}
    params, seconds = Params.model_validate(values), {}
    for stage in ("fetch", "weights", "split", "augment", "train-head", "fine-tune", "evaluate"):
        begin = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            tasks.run(stage, params, root)
        seconds[stage] = time.perf_counter() - begin
    test = json.loads((root / "stages/evaluate/metrics.json").read_text())["test"]
    figures = " | ".join(
        f"{test[key]:.3f} ({test[f'{key}_low']:.3f} to {test[f'{key}_high']:.3f})" for key in ("AP50", "AP")
    )
    splits = [json.loads((root / f"stages/split/{split}.json").read_text()) for split in ("train", "val", "test")]
    sizes = ", ".join(str(len(split["images"])) for split in splits)
    training = seconds["train-head"] + seconds["fine-tune"]
    found = any_label_ap50(root)
    print(f"| {name} | {sizes} | {training:.0f} | {seconds['evaluate']:.0f} | {figures} | {found:.3f} |", flush=True)


def any_label_ap50(root: Path) -> float:
    """AP50 of the boxes alone: whether a cell of 40 px is defective is hard to see, also for a classifier."""
    test = read_manifest(root / "stages/split/test.json")
    one = test.categories[:1]
    boxes = tuple(a.model_copy(update={"category_id": one[0].id}) for a in test.annotations)
    detections = json.loads((root / "stages/evaluate/predictions.json").read_text())
    relabelled = [detection | {"category_id": one[0].id} for detection in detections]
    return float(
        match_detections(test.model_copy(update={"annotations": boxes, "categories": one}), relabelled).stats[1]
    )


if __name__ == "__main__":
    main()
