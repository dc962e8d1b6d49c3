"""What a GPU is kept busy with: fine-tuning from real pictures beside synthetic ones, memory, and time to accuracy.

    python benchmarks/gpu.py [--backbone resnet50] [--size 224] [--batch 64] [--steps 50] [--detector fcos]
        [--recipe solar-cells]

On generated photographs of 640 x 480 (JPEG), everything training: pictures a second of the training step on one batch
that stays on the device (synthetic), of the step fed by the project's own batches (decoded beforehand, and decoded
anew), how long a step waited for them, and the device's peak memory. With `--recipe` also seconds and test figures of
all stages of that recipe. Without a GPU it runs on the CPU and says so: then the figures are about nothing but itself.
"""

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detection import clone, run
from PIL import Image

from headstart.tasks import STAGES

WARMUP = 5  # steps that are not counted


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", type=int, default=224, help="pixels: the input's side")
    parser.add_argument("--batch", type=int, default=64, help="pictures of a training step")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--detector", default="", help="fcos, retinanet or fasterrcnn on the backbone")
    parser.add_argument("--recipe", help="a recipe whose pictures are there, such as solar-cells")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headstart-") as scratch:
        root = Path(scratch)
        steps(root, args)
        if args.recipe:
            time_to_accuracy(root / "recipe", args.recipe)


def steps(root: Path, args: argparse.Namespace) -> None:
    """Print pictures a second of three ways to feed the same training step."""
    from headstart import tasks
    from headstart.engine.device import configure_torch, device_name
    from headstart.params.root import Params
    from headstart.training.autocast import AutocastNetwork

    task = "detect" if args.detector else "classify"
    generate(root, task, count=2 * args.batch)
    values: dict[str, Any] = {
        "task": task,
        "seed": 0,
        "model": {"backbone": args.backbone, "weights": "none", "image_size": args.size, "detector": args.detector},
        "fetch": {"sources": [{"folder": "data"} if task == "classify" else {"coco": coco_source()}]},
        "split": {"train": 0.5, "val": 0.25, "test": 0.25, "near_duplicate_bits": -1},
        "augment": {"copies": 0, "horizontal_flip": 0.5, "rotation": 10, "zoom": 0.1, "brightness": 0.2},
        "train_head": {"epochs": 1},
        "fine_tune": {"epochs": 1, "lr": 1e-4, "freeze_depth": 0, "batch_size": args.batch},
        "evaluate": {},
        "export": {},
    }
    print(f"{args.backbone}{' ' + args.detector if args.detector else ''}, {args.size} px, batches of {args.batch}")
    rates = {}
    for name, cache_gb in (("synthetic", 8.0), ("decoded beforehand", 8.0), ("decoded anew", 0.0)):
        params = Params.model_validate(values | {"train": {"cache_gb": cache_gb}})
        if name == "synthetic":
            for stage in ("fetch", "weights", "split", "augment", "train-head"):
                tasks.run(stage, params, root)
        compute = configure_torch(params.train, params.seed)
        network, shown = trainable(root, params, compute)
        trained = AutocastNetwork(shown.network, network.get_submodule("trunk"), compute, "fixed").train()
        parts = torch.split(torch.arange(len(shown.file_names)), args.batch)
        rows = [each for each in parts if len(each) == args.batch]
        numbers = [rows[step % len(rows)] for step in range(args.steps + WARMUP)]
        fed = shown.iterate(numbers, 1, 0)
        if name == "synthetic":
            fed = itertools.repeat(next(fed), len(numbers))
        rate, waited = train(trained, shown.loss, fed, args.batch, compute.device)
        rates[name] = rate
        memory = torch.cuda.max_memory_allocated() / 1e9 if compute.device.type == "cuda" else float("nan")
        print(
            f"  {name:<20} {rate:8.1f} pictures/s, {rate / rates['synthetic']:.2f} of synthetic, waited {waited:.1f} % "
            f"of the time, peak memory {memory:.2f} GB"
        )
    gpu = device_name(compute.device)
    print(f"  on {gpu}, {compute.description()}" + ("" if compute.device.type == "cuda" else ": no GPU here"))


def trainable(root: Path, params: Any, compute: Any) -> tuple[Any, Any]:
    """The network and its batches, as fine-tuning has them."""
    from headstart.engine.fold_batch_norm import fold_batch_norm
    from headstart.models import classifier, detector
    from headstart.models.file import read_model_file
    from headstart.training import classifier_batches, detector_batches

    tensors, spec = read_model_file(root / "stages/train-head/model.safetensors")
    network: Any = (detector if spec.detector else classifier).build(tensors, spec)
    network.trunk, _ = fold_batch_norm(network.trunk, spec.input.size)
    network.requires_grad_(True)
    compute.to_device(network)
    make: Any = detector_batches.make_augmented if spec.detector else classifier_batches.make_augmented
    return network, make(network, params, spec, compute, root)


def train(network: Any, loss: Any, batches: Iterator[Any], batch: int, device: torch.device) -> tuple[float, float]:
    """Pictures a second, and percent of the time that the loop waited for a batch."""
    from headstart.training.optimizer import AdamW, ParamGroup

    optimizer = AdamW([ParamGroup([p for p in network.parameters() if p.requires_grad])], weight_decay=0.05)
    begin = time.perf_counter()
    waited, count = 0.0, -WARMUP
    asked = begin
    for inputs, targets in batches:
        waited += time.perf_counter() - asked
        if count == 0:
            synchronize(device)
            begin, waited = time.perf_counter(), 0.0
        optimizer.zero_grad()
        torch.autograd.backward(loss(network(inputs), targets))
        optimizer.step(1e-4)
        count += 1
        asked = time.perf_counter()
    synchronize(device)
    spent = time.perf_counter() - begin
    return count * batch / spent, 100 * waited / spent


def synchronize(device: torch.device) -> None:
    """Wait until the GPU has done all that it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def coco_source() -> dict[str, str]:
    """Of `generate`."""
    return {"images": "data/images", "annotations": "data/boxes.json"}


def generate(root: Path, task: str, count: int) -> None:
    """Pictures of noise in two class folders, or with a box each."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(count):
        folder = root / "data" / ("images" if task == "detect" else f"label {number % 2}")
        folder.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
        picture = coarse.resize((640, 480), Image.Resampling.BICUBIC)
        picture.paste(((200, 30, 30), (30, 30, 200))[number % 2], (200, 150, 360, 310))
        picture.save(folder / f"{number}.jpg", quality=90)
        images.append({"id": number, "file_name": f"{number}.jpg", "width": 640, "height": 480})
        box = {"bbox": [200, 150, 160, 160], "area": 25600, "iscrowd": 0}
        annotations.append({"id": number, "image_id": number, "category_id": number % 2, **box})
    if task == "detect":
        categories = [{"id": number, "name": f"label {number}"} for number in (0, 1)]
        text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
        (root / "data/boxes.json").write_text(text)


def time_to_accuracy(folder: Path, recipe: str) -> None:
    """Print seconds of all stages of a recipe in a fresh clone, and its test figures."""
    clone(folder, recipe, 0, None)
    spent = {stage: run(folder, stage) for stage in STAGES}
    test = json.loads((folder / "stages/evaluate/metrics.json").read_text())["test"]
    metric = "AP50" if "AP50" in test else "accuracy"
    print(f"{recipe}: test {metric} {test[metric]:.3f} in {sum(spent.values()):.0f} s: ", end="")
    print(", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in spent.items()))


if __name__ == "__main__":
    main()
