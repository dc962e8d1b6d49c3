"""A whole project that a test can run in seconds: generated pictures, timm's smallest network, untrained."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from headstart import tasks
from headstart.base.manifest import Manifest, read_manifest
from headstart.params.root import Params

STAGES = {name: partial(tasks.run, name) for name in tasks.STAGES}
fetch, weights, split, augment, train_head, fine_tune, evaluate, export = STAGES.values()
TRUNK = "test_efficientnet"  # 6 blocks, 13 batch norms, 0.1 M parameters

VALUES: dict[str, Any] = {
    "task": "classify",
    "seed": 3,
    "model": {"backbone": TRUNK, "weights": "none", "image_size": 32, "head": {"hidden": [8], "batch_norm": True}},
    "fetch": {"sources": [{"folder": "data"}]},
    "split": {"train": 0.5, "val": 0.25, "test": 0.25},
    "augment": {"copies": 1, "vertical_flip": 0.5, "rotation": 5, "shift": 0.1, "brightness": 0.2, "noise": 0.01},
    "train": {},
    "train_head": {"epochs": 4, "lr": 0.01, "batch_size": 8},
    "fine_tune": {"epochs": 2, "lr": 0.01, "batch_size": 6, "freeze_depth": 3, "layer_decay": 0.9, "ema": 0.5},
    "evaluate": {"bootstrap": 100, "gallery": 2},
    "export": {},
}


def make_params(**changes: Any) -> Params:
    """VALUES with some keys changed; `fine_tune={"epochs": 3}` changes that one key of the section."""
    values = {
        key: {**value, **changes.get(key, {})} if isinstance(value, dict) else changes.get(key, value)
        for key, value in VALUES.items()
    }
    return Params.model_validate(values | {key: value for key, value in changes.items() if key not in VALUES})


def texture(seed: int, label: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """Coarse noise, no two alike; red for label 0, blue for label 1, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 130, (6, 6, 3))
    coarse[..., 2 * label] += 120
    return Image.fromarray(coarse.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)


def make_pictures(root: Path, count: int = 12) -> None:
    """data/blue and data/red, `count` pictures each."""
    for label, name in enumerate(("red", "blue")):
        folder = root / "data" / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            texture(1000 * label + number, label).save(folder / f"{number:02d}.png")


# The same for a detector: red squares on grey noise, in a COCO file.
DETECT: dict[str, Any] = {
    "task": "detect",
    "seed": 2,
    "model": {"detector": "fcos", "pyramid": 64, "image_size": 96, "head": {}},
    "fetch": {"sources": [{"coco": {"images": "data/images", "annotations": "data/boxes.json"}}]},
    "augment": {"mosaic": 0.5, "zoom": 0.1, "rotation": 0, "vertical_flip": 0},
    "train_head": {"epochs": 12, "batch_size": 4, "lr": 0.003},
    "fine_tune": {"epochs": 2, "batch_size": 4, "lr": 0.001},
}


def make_detect_params(**changes: Any) -> Params:
    """VALUES as DETECT has them, with some keys changed."""
    keys = DETECT.keys() | changes.keys()
    both = [(DETECT.get(key, {}), changes.get(key, {})) for key in keys]
    return make_params(
        **{k: {**a, **b} if isinstance(a, dict) else (b or a) for k, (a, b) in zip(keys, both, strict=True)}
    )


def make_boxes(root: Path, count: int = 16) -> None:
    """data/images and data/boxes.json: a red or blue rectangle or two a picture, the last picture without any."""
    rng = np.random.default_rng(5)
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    (root / "data/images").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = rng.integers(90, 150, (80, 120, 3)).astype(np.uint8)
        for which in range(0 if number == count - 1 else 1 + number % 2):
            x, y = int(rng.integers(0, 30)) + 60 * which, int(rng.integers(0, 40))
            width, height = rng.integers(18, 30, 2).tolist()
            pixels[y : y + height, x : x + width] = ((230, 20, 20), (20, 20, 230))[which]
            box = [x, y, width, height]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": which + 1, "bbox": box, "iscrowd": 0}
                | {"area": width * height}
            )
        Image.fromarray(pixels).save(root / f"data/images/{number:02d}.png")
        images.append({"id": number, "file_name": f"{number:02d}.png", "width": 120, "height": 80})
    categories = [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}]
    text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    (root / "data/boxes.json").write_text(text)


def run(root: Path, params: Params, *stages: str) -> None:
    for name in stages or STAGES:
        STAGES[name](params, root)


def manifest(root: Path, stage: str, name: str) -> Manifest:
    return read_manifest(root / "stages" / stage / f"{name}.json")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def copy_export(root: Path, home: Path, unknown_above: float | None, set_thresholds: list[float] | None) -> Path:
    """`home`/stages, a copy of `root`/stages whose exported classifier answers by these rules; its export folder."""
    shutil.copytree(root / "stages", home / "stages")
    path = home / "stages/export/labels.json"
    labels = read_json(path)
    labels["unknown"]["threshold"], labels["prediction_sets"]["thresholds"] = unknown_above, set_thresholds
    path.write_text(json.dumps(labels))
    return path.parent
