"""How well a detector learns, epoch by epoch, beside torchvision's plain loop: sets, settings and seeds.

    python benchmarks/detector_training.py SET... [--recipe detector] [--try model.pyramid=256,fine_tune.lr=5e-4]...
        [--plain 4] [--seeds 0 1] [--test 100]

A SET is a folder with images/ and annotations/ (Pascal VOC), or images/ and annotations.json (COCO). For each set and
seed the recipe's own split; then one training for each `--try`, keys of the recipe that are changed (without one: the
recipe as it is), and with `--plain` so many epochs of the plain loop: torchvision's FCOS on the same backbone with a
pyramid of 256 channels, fp32, everything training, batches of 4 pictures that are decoded every time, mirrored half the
time, AdamW at 1e-4 (`--plain-lr`) after 50 steps of warm-up. After each epoch both are examined on the test pictures,
outside the clock. A row has seconds of training and AP50 by epoch, the last one being of the model that is kept; the
lines at the end have AP50 and AP of that model and of the plain loop at the same epochs and at the same seconds.
"""

import argparse
import contextlib
import io
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from headstart import tasks
from headstart.base.detections import Detection
from headstart.base.manifest import Manifest, read_manifest, xyxy_to_xywh
from headstart.metrics.coco_matching import match_detections
from headstart.params.root import Params

ROOT = Path(__file__).parents[1]
PLAIN_BATCH, PLAIN_WARMUP = 4, 50


@dataclass
class Curve:
    """Figures on the test pictures after each epoch.

    Attributes:
        seconds: of training up to then, (epochs,).
        ap50: (epochs,).
        ap: (epochs,).
        train_loss: (epochs,); of different losses not to be compared.
        val: metrics on the validation pictures; empty for the plain loop.
    """

    seconds: list[float] = field(default_factory=list)
    ap50: list[float] = field(default_factory=list)
    ap: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    val: list[dict[str, float]] = field(default_factory=list)

    def add(self, seconds: float, figures: tuple[float, float], train_loss: float, val: Any = None) -> None:
        """The figures (AP50, AP) of one more epoch."""
        self.val += [val] if val else []
        self.seconds.append(seconds)
        self.ap50.append(figures[0])
        self.ap.append(figures[1])
        self.train_loss.append(train_loss)

    def at_seconds(self, seconds: float) -> float:
        """AP50 of the last epoch that had ended by then; 0: none had."""
        return next((ap for end, ap in zip(self.seconds[::-1], self.ap50[::-1], strict=True) if end <= seconds), 0.0)

    def show(self) -> str:
        """`12 s 0.81 (loss 1.20)` for each epoch."""
        rows = zip(self.seconds, self.ap50, self.train_loss, strict=True)
        return ", ".join(f"{seconds:.0f} s {ap50:.3f} ({loss:.2f})" for seconds, ap50, loss in rows)


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=Path, nargs="+", metavar="SET")
    parser.add_argument("--recipe", default="detector")
    parser.add_argument("--try", dest="settings", action="append", metavar="KEY=VALUE,...")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--test", type=int, default=0, help="test pictures at most; 0: all")
    parser.add_argument("--plain", type=int, default=0, metavar="EPOCHS")
    parser.add_argument("--plain-lr", type=float, default=1e-4)
    parser.add_argument("--curves", type=Path, help="append each row's curve as a line of JSON")
    args = parser.parse_args()
    print("| set | seed | train, val, test | setting | epochs | s | AP50 | AP | s, AP50 and train loss by epoch |")
    print("|---|---|---|---|---|---|---|---|---|")
    for pictures in args.sets:
        with tempfile.TemporaryDirectory(prefix="headstart-") as scratch:
            for seed in args.seeds:
                run_seed(Path(scratch), pictures.resolve(), args, seed)


def run_seed(root: Path, pictures: Path, args: argparse.Namespace, seed: int) -> None:
    """All settings and the plain loop on one split of a set, each printed as a row."""
    values = project_values(root, pictures, args.recipe) | {"seed": seed}
    if not (root / "stages/fetch/annotations.json").exists():
        quietly("fetch", Params.model_validate(values), root)
    for stage in ("weights", "split"):
        quietly(stage, Params.model_validate(values), root)
    train, val, test = (read_manifest(root / f"stages/split/{name}.json") for name in ("train", "val", "test"))
    test = test.model_copy(update={"images": test.images[: args.test or None]})
    kept_ids = {image.id for image in test.images}
    test = test.model_copy(update={"annotations": [a for a in test.annotations if a.image_id in kept_ids]})
    sizes = ", ".join(str(len(split.images)) for split in (train, val, test))
    for setting in args.settings or [""]:
        params = Params.model_validate(changed(values, setting))
        quietly("augment", params, root)
        curve, kept = train_ours(root, params, test)
        metrics = json.loads((root / "stages/fine-tune/metrics.json").read_text())
        print_row(f"{pictures.name} | {seed} | {sizes} | {setting or args.recipe}", metrics, curve, kept, args.curves)
    if args.plain:
        params = Params.model_validate(values)
        curve = train_plain(root, params, test, args.plain, args.plain_lr)
        last = (curve.ap50[-1], curve.ap[-1])
        print_row(f"{pictures.name} | {seed} | {sizes} | plain loop", {}, curve, last, args.curves)


def print_row(
    start: str, metrics: dict[str, Any], curve: Curve, kept: tuple[float, float], curves: Path | None
) -> None:
    """One row of the table; `kept` has AP50 and AP of the model that is kept."""
    if curves:
        with curves.open("a") as lines:
            lines.write(json.dumps({"row": start, "kept": kept, "metrics": metrics, **asdict(curve)}) + "\n")
    epochs = f"{metrics['best_epoch']} of {metrics['epochs']}" if metrics else str(len(curve.seconds))
    print(
        f"| {start} | {epochs} | {curve.seconds[-1]:.0f} | {kept[0]:.3f} | {kept[1]:.3f} | {curve.show()} |", flush=True
    )


def project_values(root: Path, pictures: Path, recipe: str) -> dict[str, Any]:
    """The recipe's params with this set as the only source, its folder linked into the project's data/."""
    values: dict[str, Any] = yaml.safe_load((ROOT / f"recipes/{recipe}.yaml").read_text())
    place = root / "data" / pictures.name
    if not place.exists():
        copy_links(pictures, place)
    source: dict[str, Any] = {"images": f"data/{pictures.name}/images"}
    if (pictures / "annotations").is_dir():
        kind, source["annotations"] = "voc", f"data/{pictures.name}/annotations"
    else:
        kind, source["annotations"] = "coco", f"data/{pictures.name}/annotations.json"
    values["fetch"] |= {"sources": [{kind: source}], "max_failed": 20}
    return values


def copy_links(source: Path, place: Path) -> None:
    """A folder with links to the files of another one."""
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        link = place / file.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file.resolve())


def changed(values: dict[str, Any], setting: str) -> dict[str, Any]:
    """The params with keys such as `fine_tune.lr=1e-3` changed; YAML reads 1e-3 as text, and params take that too."""
    copy: dict[str, Any] = json.loads(json.dumps(values))
    for pair in setting.split(",") if setting else []:
        path, _, value = pair.partition("=")
        *sections, key = path.split(".")
        section = copy
        for name in sections:
            section = section[name]
        section[key] = yaml.safe_load(value)
    return copy


def quietly(stage: str, params: Params, root: Path) -> None:
    """Run a stage without its lines."""
    with contextlib.redirect_stdout(io.StringIO()):
        tasks.run(stage, params, root)


def train_ours(root: Path, params: Params, test: Manifest) -> tuple[Curve, tuple[float, float]]:
    """Both training stages; the curve, and AP50 and AP of the model that fine-tune wrote."""
    from headstart.engine.device import configure_torch
    from headstart.models import detector
    from headstart.models.file import read_model_file
    from headstart.training.loop import train_loop

    curve, state = Curve(), {"begin": 0.0, "outside": 0.0}

    def loop(network: Any, groups: Any, *, validate: Any, history: Path, **rest: Any) -> Any:
        def examine() -> Any:
            metrics = validate()
            paused = time.perf_counter()
            whole = network.network if hasattr(network.network, "head") else None
            if whole is not None:  # head training has feature maps only
                spent = paused - state["begin"] - state["outside"]
                curve.add(spent, figures_of(whole, test, params, root), last_train_loss(history), metrics)
            state["outside"] += time.perf_counter() - paused
            return metrics

        return train_loop(network, groups, validate=examine, history=history, **rest)

    for stage in ("train-head", "fine-tune"):
        shutil.rmtree(root / "stages" / stage, ignore_errors=True)
    state["begin"] = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        for stage in ("train_head", "fine_tune"):
            getattr(tasks.TASKS["detect"], stage)()(params, root, loop=loop)
    tensors, spec = read_model_file(root / "stages/fine-tune/model.safetensors")
    kept = detector.build(tensors, spec)
    configure_torch(params.train, params.seed).to_device(kept)
    return curve, figures_of(kept, test, params, root)


def last_train_loss(history: Path) -> float:
    """Of history.csv's last row; the row of the epoch that has just ended is not there yet."""
    if not history.exists():
        return float("nan")
    names, *rows = history.read_text().splitlines()
    return float(rows[-1].split(",")[names.split(",").index("train_loss")])


def figures_of(network: Any, test: Manifest, params: Params, root: Path) -> tuple[float, float]:
    """AP50 and AP of a network of ours on the test pictures."""
    from headstart.engine.device import configure_torch
    from headstart.engine.inference import DETECTOR_BATCH, run_inference
    from headstart.engine.pixels import load_pixels_or_lazy
    from headstart.models import detector
    from headstart.models.file import read_model_file

    _, spec = read_model_file(root / "stages/train-head/model.safetensors")
    compute = configure_torch(params.train, params.seed)
    pixels = load_pixels_or_lazy(params.train.cache_gb, test.images, root, spec.input)
    training = network.training
    outputs = run_inference(network.eval(), pixels, spec.input, compute, DETECTOR_BATCH, shared=True)
    network.train(training)
    return figures(test, detector.to_coco_results(network, outputs, test, spec))


def figures(test: Manifest, detections: list[Detection]) -> tuple[float, float]:
    """AP50 and AP."""
    stats = match_detections(test, detections).stats
    return max(0.0, float(stats[1])), max(0.0, float(stats[0]))


def train_plain(root: Path, params: Params, test: Manifest, epochs: int, lr: float) -> Curve:
    """The plain loop of the first lines; its curve."""
    import torch

    train = read_manifest(root / "stages/split/train.json")
    torch.manual_seed(params.seed)
    network = plain_network(root, params, train.labels())
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=0.05)
    shown, curve, spent, step = plain_batches(root, train, params.seed), Curve(), 0.0, 0
    for epoch in range(epochs):
        begin, losses = time.perf_counter(), []
        network.train()
        for pictures, targets in shown(epoch):
            step += 1
            for group in optimizer.param_groups:
                group["lr"] = lr * min(1, step / PLAIN_WARMUP)
            loss = torch.stack(list(network(pictures, targets).values())).sum()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            losses.append(loss.item())
        spent += time.perf_counter() - begin
        curve.add(spent, plain_figures(network, test, root), sum(losses) / len(losses))
    return curve


def plain_network(root: Path, params: Params, labels: list[str]) -> Any:
    """Torchvision's FCOS on the recipe's backbone, with a pyramid of 256 channels as torchvision makes it."""
    from torch import nn
    from torchvision.models.detection import FCOS
    from torchvision.ops import FeaturePyramidNetwork
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    from headstart.models.backbone import create_backbone
    from headstart.models.pretrained import load_pretrained
    from headstart.models.pyramid import backbone_feature_maps, pyramid_levels

    spec, pretrained = load_pretrained("detect", params.model, labels, root)
    trunk = create_backbone(spec.backbone)
    trunk.load_state_dict(pretrained)
    levels, channels = pyramid_levels(trunk.eval(), spec)

    class Backbone(nn.Module):
        out_channels = 256

        def __init__(self) -> None:
            super().__init__()
            self.trunk = trunk
            self.pyramid = FeaturePyramidNetwork(channels, 256, LastLevelP6P7(256, 256))

        def forward(self, pictures: Any) -> dict[str, Any]:
            maps = backbone_feature_maps(self.trunk, pictures, levels)
            found: dict[str, Any] = self.pyramid({str(number): each for number, each in enumerate(maps)})
            return found

    sides = {"min_size": min(spec.input.shape), "max_size": max(spec.input.shape)}
    mean, std = list(spec.input.mean), list(spec.input.std)
    return FCOS(Backbone(), num_classes=len(labels), image_mean=mean, image_std=std, **sides)


def read_tensor(root: Path, file_name: str) -> Any:
    """A picture (3, h, w), 0 to 1, decoded anew."""
    from PIL import Image
    from torchvision.transforms import functional

    return functional.to_tensor(Image.open(root / file_name).convert("RGB"))


def plain_batches(root: Path, train: Manifest, seed: int) -> Callable[[int], Any]:
    """A function of the epoch: shuffled batches, each picture mirrored half the time."""
    import numpy as np
    import torch

    numbers = train.label_numbers()
    boxes: dict[int, list[Any]] = {image.id: [] for image in train.images}
    for annotation in train.annotations:
        boxes[annotation.image_id].append(annotation)

    def one(image: Any, mirrored: bool) -> tuple[Any, dict[str, Any]]:
        picture = read_tensor(root, image.file_name)
        corners = torch.tensor([a.bbox for a in boxes[image.id]], dtype=torch.float32).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        if mirrored:
            picture = picture.flip(-1)
            corners[:, [0, 2]] = picture.shape[-1] - corners[:, [2, 0]]
        labels = torch.tensor([numbers[a.category_id] for a in boxes[image.id]], dtype=torch.int64)
        return picture, {"boxes": corners, "labels": labels}

    def shown(epoch: int) -> Any:
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(len(train.images))
        for start in range(0, len(order) - PLAIN_BATCH + 1, PLAIN_BATCH):
            rows = order[start : start + PLAIN_BATCH]
            pictures, targets = zip(*(one(train.images[row], rng.random() < 0.5) for row in rows), strict=True)
            yield list(pictures), list(targets)

    return shown


def plain_figures(network: Any, test: Manifest, root: Path) -> tuple[float, float]:
    """AP50 and AP of torchvision's own predictions on the test pictures."""
    import torch

    network.eval()
    category_ids = list(test.label_numbers())
    detections = []
    with torch.inference_mode():
        for image in test.images:
            (found,) = network([read_tensor(root, image.file_name)])
            for xyxy, score, label in zip(found["boxes"].tolist(), found["scores"], found["labels"], strict=True):
                box, category = xyxy_to_xywh(xyxy), category_ids[label]
                detections.append(Detection(image_id=image.id, category_id=category, bbox=box, score=float(score)))
    return figures(test, detections)


if __name__ == "__main__":
    main()
