"""What a detector's recipe costs and gives, and how fast it trains beside torchvision's own loop.

    python benchmarks/detection.py [--recipe detector] [--data FOLDER] [--seeds 0 1 2] [--steps 20] [--twice]

FOLDER, which holds images/ and annotations/ (Pascal VOC), is copied to data/pictures/ of each fresh clone; without it
the clone takes the sample data, which is for --recipe solar-modules. For each seed: seconds of train-head and
fine-tune, AP50 and AP of the test pictures with their intervals. For the first seed also (--twice) whether a second
clone trains the same model, and, with the same network, pictures and machine, pictures a second of our step and of
torchvision's loop as its reference scripts have it (each file decoded every time, fp32, pictures one by one) in a
process of its own, taken in turns. --steps 0 leaves that out.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
TRAINING = ("train-head", "fine-tune")


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="detector")
    parser.add_argument("--data", type=Path, help="an annotated set, copied to data/pictures")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=20, help="of each loop, for the throughput")
    parser.add_argument("--twice", action="store_true", help="train the first seed in a second clone and compare")
    parser.add_argument("--reference", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.reference:
        os.chdir(args.reference)
        obey(reference())
        return
    with tempfile.TemporaryDirectory(prefix="headstart-") as scratch:
        folders = [clone(Path(scratch) / f"seed-{seed}", args.recipe, seed, args.data) for seed in args.seeds]
        found = [
            trained(folder, f"{args.recipe} seed {seed}") for folder, seed in zip(folders, args.seeds, strict=True)
        ]
        for name in ("AP50", "AP") if found else ():
            values = [each[name] for each in found]
            low, high = min(values), max(values)
            print(f"test {name}: mean {statistics.fmean(values):.4f}, {low:.4f} to {high:.4f}, n = {len(values)}")
        if args.twice:
            other = clone(Path(scratch) / "again", args.recipe, args.seeds[0], args.data)
            trained(other, "again")
            for stage in TRAINING:
                one, two = (each / f"stages/{stage}/model.safetensors" for each in (folders[0], other))
                print(f"two clones: {stage} {'same' if one.read_bytes() == two.read_bytes() else 'DIFFERS'}")
        if args.steps:
            folder = folders[0] if folders else clone(Path(scratch) / "speed", args.recipe, 0, args.data)
            if not folders:
                run(folder, "fetch", "weights", "split", "augment")
            throughput(folder, args.steps)


def clone(folder: Path, recipe: str, seed: int, data: Path | None) -> Path:
    """A fresh clone of HEAD with the recipe, a seed and its data."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    params = yaml.safe_load((folder / f"recipes/{recipe}.yaml").read_text())
    (folder / "params.yaml").write_text(yaml.safe_dump(params | {"seed": seed}, sort_keys=False))
    if data:
        shutil.copytree(data, folder / "data/pictures")
    else:
        shutil.copytree(folder / "samples", folder / "data")
    return folder


def environment(folder: Path) -> dict[str, str]:
    """This environment's programs, the clone's code, and no tracking server but the clone's own file."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    quiet = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return quiet | {"PATH": path, "PYTHONPATH": str(folder / "src")}


def run(folder: Path, *stages: str) -> float:
    """Run stages with the clone's own code; wall seconds."""
    begin = time.perf_counter()
    for stage in stages:
        done = subprocess.run(
            ["headstart", stage], cwd=folder, env=environment(folder), text=True, capture_output=True, check=False
        )
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
    return time.perf_counter() - begin


def trained(folder: Path, what: str) -> dict[str, float]:
    """All stages up to evaluate: print seconds and figures, and return the figures."""
    run(folder, "fetch", "weights", "split", "augment")
    seconds = {stage: run(folder, stage) for stage in TRAINING}
    run(folder, "evaluate")
    test: dict[str, float] = json.loads((folder / "stages/evaluate/metrics.json").read_text())["test"]
    figures = ", ".join(
        f"{name} {test[name]:.4f} ({test[f'{name}_low']:.4f} to {test[f'{name}_high']:.4f})" for name in ("AP50", "AP")
    )
    parts = " + ".join(f"{stage} {took:.0f} s" for stage, took in seconds.items())
    print(f"{what}: {parts} = {sum(seconds.values()):.0f} s; test {figures}, {test['pictures']} pictures", flush=True)
    return test


def throughput(folder: Path, steps: int) -> None:
    """Pictures a second of a training step, the backbone trained too: ours, and torchvision's loop."""
    import torch

    from headstart.engine.cpu.optimize import optimize
    from headstart.engine.device import Compute, configure_torch
    from headstart.engine.fold_batch_norm import fold_batch_norm
    from headstart.engine.input_spec import format_shape
    from headstart.training import detector_batches
    from headstart.training.autocast import AutocastNetwork
    from headstart.training.optimizer import AdamW, ParamGroup

    os.chdir(folder)
    loaded, card, network = start()
    threads, batch = torch.get_num_threads(), loaded.fine_tune.batch_size
    compute: Compute = configure_torch(loaded.train, loaded.seed)
    network.trunk, _ = fold_batch_norm(network.trunk, card.input.size)
    optimize(network, compute, training=True)
    compute.to_device(network)
    shown = detector_batches.make_augmented(network, loaded, card, compute, folder)
    quick = AutocastNetwork(network, network.trunk, compute, "fixed").train()
    optimizer = AdamW([ParamGroup(list(network.parameters()))], weight_decay=0.05)
    order = torch.split(torch.arange(len(shown.file_names)), batch)

    def ours(step: int) -> None:
        inputs, targets = shown.make_batch(order[step % (len(order) - 1)], 1)
        optimizer.zero_grad()
        torch.autograd.backward(shown.loss(quick(inputs), targets))
        optimizer.step(1e-4)

    command = [sys.executable, str(Path(__file__).resolve()), "--reference", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        orders, done = process.stdin, process.stdout

        def theirs(step: int) -> None:
            print(step, file=orders, flush=True)
            if not done.readline():
                raise SystemExit("torchvision's loop has ended early")

        seconds = in_turns([ours, theirs], steps)
        orders.close()
    speed = [batch / statistics.median(each) for each in seconds]
    print(
        f"{compute.description()}, {threads} threads, batch {batch}, {format_shape(card.input.shape)}, "
        f"median of {steps} steps: ours "
        f"{speed[0]:.2f} pictures/s, torchvision's loop {speed[1]:.2f}, ratio {speed[0] / speed[1]:.2f}"
    )


def start() -> tuple[Any, Any, Any]:
    """The params of the project in this folder, the card of its model, and its network as training begins."""
    from headstart.base.manifest import read_manifest
    from headstart.models import detector
    from headstart.models.pretrained import load_pretrained
    from headstart.params.reader import load_params

    loaded = load_params(Path("params.yaml"))
    labels = read_manifest(Path("stages/split/train.json")).labels()
    card, pretrained = load_pretrained("detect", loaded.model, labels, Path.cwd())
    return loaded, card, detector.build_from_pretrained(pretrained, card)


def obey(step: Callable[[int], None]) -> None:
    """Do the steps whose numbers come in, one a line, and say so."""
    for line in sys.stdin:
        step(int(line))
        print("done", flush=True)


def in_turns(loops: list[Callable[[int], None]], steps: int) -> list[list[float]]:
    """Seconds of each step of each loop; the first two steps of each are not counted."""
    seconds: list[list[float]] = [[] for _ in loops]
    for step in range(steps + 2):
        for loop, own in zip(loops, seconds, strict=True):
            begin = time.perf_counter()
            loop(step)
            own.append(time.perf_counter() - begin)
    return [own[2:] for own in seconds]


def reference() -> Callable[[int], None]:
    """A step of torchvision's references/detection with the same backbone, pyramid and head in torchvision's model."""
    import torch
    from PIL import Image
    from torch import nn
    from torchvision.models.detection import FCOS, RetinaNet
    from torchvision.models.detection.fcos import FCOSHead
    from torchvision.models.detection.retinanet import RetinaNetHead
    from torchvision.transforms import functional

    from headstart.base.manifest import read_manifest

    loaded, _, inner = start()
    manifest, batch = read_manifest(Path("stages/split/train.json")), loaded.fine_tune.batch_size

    class Backbone(nn.Module):
        out_channels = 0

        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, pictures: Any) -> dict[str, Any]:
            return {str(number): each for number, each in enumerate(self.inner.pyramid_features(pictures))}

    layers = getattr(inner.head, "layers", None)
    if not isinstance(layers, FCOSHead | RetinaNetHead):
        raise SystemExit("the reference loop is of fcos and retinanet")
    network = (FCOS if isinstance(layers, FCOSHead) else RetinaNet)(
        Backbone(),
        num_classes=len(manifest.categories),
        head=layers,
        min_size=min(inner.shape),
        max_size=max(inner.shape),
    )
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)
    boxes: dict[int, list[Any]] = {image.id: [] for image in manifest.images}
    for annotation in manifest.annotations:
        boxes[annotation.image_id].append(annotation)

    def one(number: int) -> tuple[Any, dict[str, Any]]:
        image = manifest.images[number % len(manifest.images)]
        picture = functional.to_tensor(Image.open(image.file_name).convert("RGB"))
        corners = torch.tensor([a.bbox for a in boxes[image.id]], dtype=torch.float32).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        labels = torch.tensor([a.category_id - 1 for a in boxes[image.id]], dtype=torch.int64)
        return picture, {"boxes": corners, "labels": labels}

    def step(number: int) -> None:
        pictures, targets = zip(*(one(number * batch + each) for each in range(batch)), strict=True)
        losses = network(list(pictures), list(targets))
        optimizer.zero_grad()
        torch.autograd.backward(torch.stack(list(losses.values())).sum())
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
