"""Which score tells foreign pictures best: energy, Mahalanobis distance, virtual-logit matching, nearest neighbours.

    python benchmarks/unknown.py --known NAME=FOLDER … --foreign NAME=FOLDER … --leave-out NAME=FOLDER … [--most 600]

A FOLDER holds pictures, a known one in class folders (anywhere below it). Of each at most so many pictures are taken,
the same ones every time, of a known one as many of each class. The network is that of --model, in fp32: by default the
pretrained one of a finished pipeline; stages/fine-tune/model.safetensors shows what fine-tuning does to the scores, on
the pictures that it was fine-tuned on. Of a known set the pictures below a folder `train` are trained on (where it has
none, seven tenths): logistic regression gives the logits, and the threshold keeps 95 % of the others. Foreign to a set
are all other folders and generated pictures; with --leave-out, in turn, each class of the set, which neither logits nor
score have seen. Printed for each score: share of foreign pictures that pass for known (FPR95, lower is better), AUROC.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import logsumexp
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from headstart.base.arrays import Bools, Floats, Ints
from headstart.engine.device import configure_torch
from headstart.engine.inference import prepare_for_inference, run_inference
from headstart.engine.input_spec import InputSpec, Pixels
from headstart.export.predictor import preprocess, read_picture
from headstart.images.decode import PictureError
from headstart.images.foreign_pictures import PER_KIND, foreign_pictures
from headstart.images.picture_files import list_pictures
from headstart.metrics.rejection import rejection, threshold_that_keeps
from headstart.metrics.strangeness import fit_feature_bank, normalize_features, pick_for_bank, principal_components
from headstart.models import classifier
from headstart.models.file import read_model_file
from headstart.models.strangeness_features import ClassifierWithFeatures, plan_features
from headstart.params.training import TrainParams

Score = Callable[[Floats], Floats]  # features (n, f) -> the larger, the stranger (n,)
DIRECTIONS = 128  # principal components of Mahalanobis distance and virtual-logit matching


Sample = tuple[Floats, Ints]  # features (n, f) and class numbers (n,)


@dataclass(frozen=True)
class Set:
    """Features (n, f) and class numbers (n,) of a folder, names of its classes, and which pictures are trained on."""

    features: Floats
    labels: Ints
    names: tuple[str, ...]
    train: Bools

    def split(self, without: int = -1) -> tuple[Sample, Sample]:
        """The pictures that are trained on and the others, without those of one class."""
        kept = self.labels != without
        one, other = ((self.features[rows], self.labels[rows]) for rows in (kept & self.train, kept & ~self.train))
        return one, other


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("--known", "--foreign", "--leave-out"):
        parser.add_argument(option, nargs="+", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--most", type=int, default=600, help="pictures of a folder")
    parser.add_argument("--model", type=Path, default=Path("stages/train-head/model.safetensors"))
    args = parser.parse_args()
    embed, spec, widths = load_backbone(args.model)
    folders = {text.partition("=")[0]: Path(text.partition("=")[2]) for text in args.known + args.foreign}
    sets = {name: read_set(folder, embed, spec, args.most) for name, folder in folders.items()}
    foreign = {name: one.features for name, one in sets.items()}
    foreign["generated"] = embed(np.concatenate(list(foreign_pictures(spec.shape[0], PER_KIND, 0).values())))
    for name in (text.partition("=")[0] for text in args.known):
        others = {other: rows for other, rows in foreign.items() if other != name}
        print_table(f"known: {name}", compare(*sets[name].split(), others, widths))
    for text in args.leave_out:
        name, _, folder = text.partition("=")
        own = sets.get(name) or read_set(Path(folder), embed, spec, args.most)
        left: dict[str, dict[str, tuple[float, float]]] = {}
        for number, label in enumerate(own.names):
            figures = compare(*own.split(without=number), {label: own.features[own.labels == number]}, widths)
            for score, of_score in figures.items():
                left.setdefault(score, {}).update(of_score)
        print_table(f"known: {name} without one class", left)


class Features(ClassifierWithFeatures):
    """Normalized pictures -> the features by which strangeness is measured."""

    def forward(self, pictures: Tensor) -> Tensor:
        return self.logits_and_features(pictures)[1]


def load_backbone(path: Path) -> tuple[Callable[[Pixels], Floats], InputSpec, tuple[int, ...]]:
    """A function from pixels to features, the input it takes, and the widths of the features' parts."""
    tensors, spec = read_model_file(path)
    compute = configure_torch(TrainParams(precision="fp32"), 0)
    network = classifier.build(tensors, spec)
    plan = plan_features(network, spec.input.size)
    prepared = prepare_for_inference(Features(network, plan), spec.input.size, compute, 32)
    return lambda pixels: run_inference(prepared, pixels, spec.input, compute).double().numpy(), spec.input, plan.widths


def read_set(folder: Path, embed: Callable[[Pixels], Floats], spec: InputSpec, most: int) -> Set:
    """Features of a folder's pictures; files that are no pictures are passed over."""
    paths = list_pictures(folder)
    numbers = np.unique([path.parent.name for path in paths], return_inverse=True)[1]
    pixels, taken = [], []
    for number in pick_for_bank(numbers, 0, most):
        try:
            pixels.append(preprocess(read_picture(paths[number]), spec).pixels[0])
        except PictureError:
            continue
        taken.append(paths[number].relative_to(folder))
    names, labels = np.unique([path.parent.name for path in taken], return_inverse=True)
    train = np.array(["train" in path.parts for path in taken])
    if not train.any():
        train = np.random.default_rng(0).permutation(len(taken)) < 7 * len(taken) // 10
    return Set(embed(np.stack(pixels)), labels, tuple(map(str, names)), train)


def compare(
    train: Sample,
    held: Sample,
    foreign: Mapping[str, Floats],
    widths: Sequence[int],
) -> dict[str, dict[str, tuple[float, float]]]:
    """FPR95 and AUROC of each score on each foreign set."""
    found = {}
    for name, score in scores(*train, widths).items():
        known = score(held[0])
        own_units = np.arange(len(known))
        threshold, _ = threshold_that_keeps(known, own_units)
        figures = {
            other: rejection(known, own_units, score(rows), len(known) + np.arange(len(rows)), threshold)
            for other, rows in foreign.items()
        }
        found[name] = {
            other: (figure.fpr95.value or 0.0, figure.auroc.value or 0.0) for other, figure in figures.items()
        }
    return found


def scores(features: Floats, labels: Ints, widths: Sequence[int]) -> dict[str, Score]:
    """All scores, fitted on training pictures; all but the last one look at the last features alone."""
    last = features[:, : widths[0]]
    logits = fit_logits(last, labels)
    bank, with_blocks = fit_feature_bank(last, widths[:1]), fit_feature_bank(features, widths)
    normalized = normalize_features(last, widths[:1])

    def energy(rows: Floats) -> Floats:
        return np.asarray(-logsumexp(logits(rows), axis=1))

    def nearest(rows: Floats) -> Floats:
        return np.asarray(-np.sort(normalize_features(rows, widths[:1]) @ normalized.T, axis=1)[:, -5])

    tied, relative = mahalanobis(last, labels)
    of_last = {
        "energy (Liu et al. 2020)": energy,
        "Mahalanobis (Lee et al. 2018)": tied,
        "relative Mahalanobis (Ren et al. 2021)": relative,
        "ViM (Wang et al. 2022)": virtual_logit(last, logits, energy),
        "5th nearest neighbour (Sun et al. 2022)": nearest,
        "… in 64 components, with the distance from them": bank.strangeness,
    }
    return {
        **{name: lambda rows, score=score: score(rows[:, : widths[0]]) for name, score in of_last.items()},  # type: ignore[misc]
        "ours: … and of two blocks too": with_blocks.strangeness,
    }


def fit_logits(features: Floats, labels: Ints) -> Score:
    """Logits (n, labels) of logistic regression; two labels have two columns."""
    mean, scale = features.mean(0), features.std(0) + 1e-6
    fitted = LogisticRegression(C=0.01, max_iter=1000).fit((features - mean) / scale, labels)

    def logits(rows: Floats) -> Floats:
        values = fitted.decision_function((rows - mean) / scale)
        return np.stack([-values / 2, values / 2], axis=1) if values.ndim == 1 else np.asarray(values)

    return logits


def mahalanobis(features: Floats, labels: Ints) -> tuple[Score, Score]:
    """To the nearest class mean under the tied covariance (shrunk: Ledoit and Wolf 2004); and relative to the whole."""
    mean = features.mean(0)
    means = np.stack([features[labels == label].mean(0) for label in np.unique(labels)])
    directions = principal_components(features - mean, DIRECTIONS)
    inside = (features - mean) @ directions
    centres = (means - mean) @ directions
    own = centres[np.unique(labels, return_inverse=True)[1]]
    tied, whole = (np.linalg.inv(ledoit_wolf(rows, assume_centered=True)[0]) for rows in (inside - own, inside))

    def to_classes(rows: Floats) -> Floats:
        offsets = [((rows - mean) @ directions) - centre for centre in centres]
        return np.asarray(np.min([np.einsum("nf,fg,ng->n", one, tied, one) for one in offsets], axis=0))

    def to_whole(rows: Floats) -> Floats:
        offset = (rows - mean) @ directions
        return np.asarray(np.einsum("nf,fg,ng->n", offset, whole, offset))

    return to_classes, lambda rows: to_classes(rows) - to_whole(rows)


def virtual_logit(features: Floats, logits: Score, energy: Score) -> Score:
    """Norm outside of the principal components, scaled to the largest logit, beside the energy."""
    mean = features.mean(0)
    directions = principal_components(features - mean, DIRECTIONS)

    def outside(rows: Floats) -> Floats:
        centred = rows - mean
        return np.asarray(np.sqrt(np.maximum((centred**2).sum(1) - ((centred @ directions) ** 2).sum(1), 0)))

    scale = logits(features).max(1).mean() / outside(features).mean()
    return lambda rows: np.asarray(scale * outside(rows) + energy(rows))


def print_table(title: str, found: Mapping[str, Mapping[str, tuple[float, float]]]) -> None:
    """One row a score: FPR95 and AUROC on each foreign set, and the means."""
    columns = list(next(iter(found.values())))
    print(f"\n{title}\n| score | {' | '.join(columns)} | mean |\n|---{'|---' * (len(columns) + 1)}|")
    for name, figures in found.items():
        means = tuple(np.mean([figures[column] for column in columns], axis=0))
        cells = [f"{100 * fpr:.0f} % / {auroc:.3f}" for fpr, auroc in [*figures.values(), means]]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
