"""How often the interval of the cross-validated accuracy contains the truth.

    python benchmarks/coverage_cross_validation.py [--root .] [--pictures 200] [--times 200] [--folds 5]

draws so many pictures of a project whose fetch and weights stages have run (the sample: solar cells), cross-validates
the linear head on them, and takes the pictures that were not drawn for the truth. `cases` are the same with normal
features in place of pictures, for coverage.py.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from coverage_case import Case
from scipy import special
from torch import Tensor

from headstart.base.arrays import Bools, Floats, Ints
from headstart.base.manifest import Image, read_manifest
from headstart.cross_validation.figures import widen
from headstart.cross_validation.folds import Examined, assign_folds
from headstart.cross_validation.heads import FoldHeads
from headstart.cross_validation.picture_features import FeatureRows
from headstart.engine.device import configure_torch
from headstart.features.embeddings import compute_embeddings
from headstart.features.frozen_backbone import FrozenBackbone
from headstart.metrics.intervals import FEW_UNITS, mean_interval
from headstart.models.pretrained import load_backbone, load_pretrained
from headstart.params.reader import load_params
from headstart.params.root import HeadParams
from headstart.params.training import TrainHeadParams

PICTURES, RATES, FOLDS, WIDTH = (44, 60, 150, 400), (0.7, 0.8, 0.9, 0.95), 5, 6
LABELS = ("negative", "positive")


def cases() -> list[Case]:
    """Cells of coverage.py: the interval minus the mean true accuracy of the models of its folds must contain 0."""
    return list(_cases())


def _cases() -> Iterator[Case]:
    for groups, size in (("alone", 1), ("fives, half alike", 5)):
        for pictures in PICTURES:
            units = np.arange(pictures) // size
            count = int(units.max()) + 1
            for rate in RATES:
                yield Case(
                    f"cross-validated accuracy, {groups}",
                    "cv.accuracy",
                    pictures,
                    count,
                    truth=0.0,
                    draw=partial(_draw_normal, units=units, gap=2 * float(special.ndtri(rate))),
                    rate=rate,
                    promised=count >= FEW_UNITS,
                )


def _draw_normal(rng: np.random.Generator, units: Ints, gap: float) -> tuple[float, float, float]:
    """Features of two labels, `gap` standard deviations apart; half of the noise is the unit's where there are any."""
    targets = np.asarray(units % 2, dtype=np.int64)
    shared = rng.normal(size=(int(units.max()) + 1, WIDTH))[units]
    own = rng.normal(size=(len(units), WIDTH))
    features = own if len(np.unique(units)) == len(units) else np.sqrt(0.5) * (shared + own)
    features[:, 0] += gap * (targets - 0.5)
    found = cross_validate(features, targets, units, FOLDS, 0.01, int(rng.integers(2**31)))
    truth = float(np.mean([_normal_accuracy(*weights, gap) for weights in found.linear_heads()]))
    return found.low - truth, found.high - truth, found.accuracy - truth


def _normal_accuracy(weight: Floats, bias: float, gap: float) -> float:
    """Of a linear rule on new pictures: the label is positive where features @ weight + bias > 0."""
    length = float(np.linalg.norm(weight))
    return float(np.mean([special.ndtr((gap / 2 * weight[0] + side * bias) / length) for side in (1, -1)]))


@dataclass(frozen=True)
class Found:
    """A cross-validated accuracy with its interval, and the heads of the folds."""

    accuracy: float
    low: float
    high: float
    heads: Sequence[torch.nn.Module]

    def linear_heads(self) -> Iterator[tuple[Floats, float]]:
        """Weight and bias of the second label minus the first one, of each fold."""
        for head in self.heads:
            linear = head.get_submodule("1")
            weight, bias = linear.get_parameter("weight").detach().double(), linear.get_parameter("bias").detach()
            yield (weight[1] - weight[0]).numpy(), float(bias[1] - bias[0])


def cross_validate(
    features: Floats, targets: Ints, units: Ints, folds: int, weight_decay: float | str, seed: int
) -> Found:
    """The linear head on these pictures, as the evaluate stage cross-validates it."""
    fold = assign_folds(targets, units, folds, seed)
    assert fold is not None
    images = tuple(_image(number, LABELS[target]) for number, target in enumerate(targets))
    examined = Examined(images, LABELS, targets, units, fold)
    rows = FeatureRows(torch.from_numpy(features).float(), np.arange(len(features)))
    learning: list[Bools] = [fold != number for number in range(folds)]
    section = TrainHeadParams.model_validate({"weight_decay": weight_decay})
    heads = FoldHeads(examined, lambda: rows, learning, HeadParams(kind="linear", dropout=0), section, 0)
    fitted = [heads.fit(number) for number in range(folds)]
    correct = np.zeros(len(targets))
    for number, head in enumerate(fitted):
        inside = fold == number
        correct[inside] = _correct(head, rows.features[torch.from_numpy(inside)], targets[inside])
    estimate = widen(mean_interval(correct, units), len(units))
    assert estimate.value is not None
    assert estimate.low is not None
    assert estimate.high is not None
    return Found(estimate.value, estimate.low, estimate.high, fitted)


def _image(number: int, label: str) -> Image:
    name, sha256 = f"{number}.png", f"{number:064x}"
    return Image(id=number, file_name=name, width=1, height=1, sha256=sha256, source="drawn", label=label)


@torch.no_grad()
def _correct(head: torch.nn.Module, features: Tensor, targets: Ints) -> Floats:
    return np.asarray(head(features).argmax(1).numpy() == targets, dtype=np.float64)


def load_sample(root: Path) -> tuple[Floats, Ints]:
    """Embeddings (n, f) and class numbers (n,) of all pictures that the fetch stage found, cached under .cache."""
    params, manifest = load_params(root / "params.yaml"), read_manifest(root / "stages/fetch/annotations.json")
    model = params.model.model_copy(update={"head": HeadParams()})
    spec, pretrained = load_pretrained("classify", model, manifest.labels(), root)
    compute = configure_torch(params.train, params.seed)
    backbone = FrozenBackbone.of(partial(load_backbone, spec, pretrained), pretrained, spec, compute, root)
    numbers = {label: number for number, label in enumerate(manifest.labels())}
    targets = np.array([numbers[image.label or ""] for image in manifest.images], dtype=np.int64)
    return compute_embeddings(manifest.images, backbone).double().numpy(), targets


def measure_sample(features: Floats, targets: Ints, args: argparse.Namespace) -> list[str]:
    """The lines of the report: coverage of cross-validation's interval and of a single split's, and their widths."""
    rng = np.random.default_rng(args.seed)
    found, single = [], []
    for _ in range(args.times):
        order = rng.permutation(len(targets))
        drawn, rest = np.sort(order[: args.pictures]), order[args.pictures :]
        alone, seed = np.arange(args.pictures), int(rng.integers(2**31))
        one = cross_validate(features[drawn], targets[drawn], alone, args.folds, args.weight_decay, seed)
        left = torch.from_numpy(features[rest]).float(), targets[rest]
        truth = float(np.mean([_correct(head, *left).mean() for head in one.heads]))
        found.append((one.accuracy, one.low, one.high, truth))
        single.append(_single_split(features, targets, drawn, left, args))
    (cv, expected), (split, _) = (_summary(np.array(some)) for some in (found, single))
    return [
        f"{args.times} draws of {args.pictures} of {len(targets):,} pictures, {args.folds} folds; the rest is truth",
        f"cross-validation: {cv}",
        f"  of the mean accuracy of all draws' models, {expected}",
        f"single split (70 % train, 15 % test): {split}",
    ]


def _single_split(
    features: Floats, targets: Ints, drawn: Ints, rest: tuple[Tensor, Ints], args: argparse.Namespace
) -> tuple[float, float, float, float]:
    """Accuracy, interval and truth of one model that learned from 70 % of the drawn pictures, on 15 % of them."""
    parts = assign_folds(targets[drawn], np.arange(len(drawn)), 20, args.seed)
    assert parts is not None
    train, test = parts >= 6, parts < 3
    # Two folds, of which the second one is examined by the model of `train`.
    one = Examined(
        tuple(_image(n, LABELS[t]) for n, t in enumerate(targets[drawn])),
        LABELS,
        targets[drawn],
        np.arange(len(drawn)),
        np.where(train, 1, 0),
    )
    rows = FeatureRows(torch.from_numpy(features[drawn]).float(), np.arange(len(drawn)))
    section = TrainHeadParams.model_validate({"weight_decay": args.weight_decay})
    head = FoldHeads(one, lambda: rows, [train], HeadParams(kind="linear", dropout=0), section, 0).fit(0)
    correct = _correct(head, rows.features[torch.from_numpy(test)], targets[drawn][test])
    estimate = mean_interval(correct, np.arange(len(correct)))
    assert estimate.value is not None
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.value, estimate.low, estimate.high, float(_correct(head, *rest).mean())


def _summary(rows: Floats) -> tuple[str, str]:
    """Of rows (accuracy, low, high, truth): coverage, width and spread; and coverage of the mean truth."""
    accuracy, low, high, truth = rows.T
    covered = np.mean((low <= truth) & (truth <= high))
    mean = np.mean((low <= truth.mean()) & (truth.mean() <= high))
    return (
        f"coverage {100 * covered:.1f} %, mean width {100 * (high - low).mean():.1f} points; accuracy "
        f"{accuracy.mean():.4f}, truth {truth.mean():.4f}, standard deviation of the difference "
        f"{(accuracy - truth).std():.4f}",
        f"{truth.mean():.4f}: coverage {100 * mean:.1f} %",
    )


def main() -> None:
    """Print coverage and widths on the pictures of a project."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(), help="a project whose fetch and weights stages have run")
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--weight-decay", default=0.1, help="of the head: a number, or auto (minutes)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("\n".join(measure_sample(*load_sample(args.root.absolute()), args)))


if __name__ == "__main__":
    main()
