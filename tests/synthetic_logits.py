"""Synthetic classifier evaluations: labels, pictures, logits, histories and facts for the report."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image

from headstart.base.manifest import Image
from headstart.evaluation.classifier.results import ClassifierTestSet, classifier_results
from headstart.evaluation.history import History, read_history
from headstart.evaluation.report_facts import ReportFacts
from headstart.evaluation.report_tables import Table
from headstart.evaluation.writer import write_results
from headstart.metrics.calibration import SplitLogits
from headstart.params.root import EvaluateParams

_FIRST = ("whole", "cracked", "chipped")
NAMES = {count: (*_FIRST, *(f"kind {n}" for n in range(3, 40)))[:count] for count in range(2, 41)}


def make_logits(pictures: int, classes: int, seed: int, scale: float = 2.0, val: int = 200) -> SplitLogits:
    """Logits that lean towards the true class; a larger `scale` makes more confident predictions, not better ones."""
    random = np.random.default_rng(seed)
    labels = [random.integers(0, classes, count) for count in (val, pictures)]
    logits = [random.normal(size=(len(y), classes)) + 1.5 * np.eye(classes)[y] for y in labels]
    return SplitLogits(scale * logits[0], labels[0], scale * logits[1], labels[1])


def make_history(path: Path, epochs: int, score: str = "accuracy") -> Path:
    """A history.csv in which everything gets better."""
    rows = [f"{n},{1 / n},{1.2 / n},{1 - 0.5 / n},{0.001 * (epochs - n)}" for n in range(1, epochs + 1)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"epoch,train_loss,val_loss,val_{score},lr\n" + "\n".join(rows) + "\n")
    return path


def make_test_set(
    folder: Path, classes: int, pictures: int, names: Sequence[str] = (), pictures_on_disk: bool = True
) -> tuple[ClassifierTestSet, SplitLogits, SplitLogits, dict[str, History]]:
    """Test pictures on disk, head-only and fine-tuned logits for them, and both histories."""
    names = tuple(names) or NAMES[classes]
    fine_tuned = make_logits(pictures, classes, seed=1)
    weaker = make_logits(pictures, classes, seed=1, scale=1.0)
    noise = np.random.default_rng(2).normal(size=weaker.test.shape)
    head_only = SplitLogits(weaker.val, weaker.val_labels, weaker.test + noise, weaker.test_labels)
    images = []
    for number, label in enumerate(fine_tuned.test_labels):
        path = folder / "images" / f"{number:04d}.png"
        if pictures_on_disk:
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.new("L", (300, 200), number % 256).save(path)
        images.append(
            Image(
                id=number + 1,
                file_name=f"images/{path.name}",
                width=300,
                height=200,
                sha256=f"{number:064d}",
                source="made up",
                label=names[label],
                license="CC0",
                author="nobody",
            )
        )
    histories = {
        "train-head": read_history(make_history(folder / "head.csv", 5)),
        "fine-tune": read_history(make_history(folder / "tune.csv", 2)),
    }
    return ClassifierTestSet(folder, tuple(images), names), head_only, fine_tuned, histories


def write_evaluation(
    folder: Path,
    classes: int = 3,
    pictures: int = 30,
    names: Sequence[str] = (),
    gallery: int = 5,
    pictures_on_disk: bool = True,
) -> Path:
    """The folder that the stage writes for such a test set."""
    test_set, head_only, fine_tuned, histories = make_test_set(folder, classes, pictures, names, pictures_on_disk)
    _, results = classifier_results(
        test_set,
        head_only,
        fine_tuned,
        params=EvaluateParams(bootstrap=100, gallery=gallery),
        seed=0,
        histories=histories,
        facts=make_facts(test_set.labels),
    )
    write_results(folder / "stages/evaluate", results)
    return folder / "stages/evaluate"


def make_facts(labels: Sequence[str]) -> ReportFacts:
    """Facts of every kind, one or two of each."""
    return ReportFacts(
        title="made up",
        settings={"Backbone": "some_net", "Seed": "0"},
        counts={"train": dict.fromkeys(labels, 7), "val": dict.fromkeys(labels, 2), "test": dict.fromkeys(labels, 3)},
        sources={"data/made-up.csv": 12},
        licenses={"CC0": 12},
        duplicates={"identical": 1},
        frozen=Table("Blocks", ("block", "parameters", "trained"), (("stem", 928, "no"), ("blocks.0", 1200, "yes"))),
        notes=("The backbone may have seen these.",),
    )
