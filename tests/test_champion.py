"""Which of two models is better, against scikit-learn and pycocotools, and what counts as the same exam."""

from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

import box_exams
from headstart.champion import compare
from headstart.coco import Image, Manifest, categories
from headstart.matches import match
from headstart.params import CHAMPION_METRICS
from headstart.predict import Said, Seen
from headstart.sitting import Sitting, digest, read, sit, write

LABELS = ["blue", "green", "red"]


def exam(count: int = 60) -> Manifest:
    images = tuple(
        Image(id=n, file_name=f"{n}.png", width=100, height=50, sha256=f"{n:064x}", source="", label=LABELS[n % 3])
        for n in range(count)
    )
    return Manifest(images=images, categories=categories(LABELS))


def classifier(test: Manifest, seed: int, skill: float) -> Sitting:
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(3), len(test.images))
    for row, image in zip(shares, test.images, strict=True):
        row[LABELS.index(image.label or "")] += skill
    shares /= shares.sum(1, keepdims=True)
    return sit(test, LABELS, [Said(dict(zip(LABELS, map(float, row), strict=True))) for row in shares])


def test_the_figures_are_those_of_scikit_learn() -> None:
    test = exam()
    mine, theirs = classifier(test, 1, 0.8), classifier(test, 2, 0.0)
    truth = [LABELS.index(image.label or "") for image in test.images]
    shares = np.array([mine.probabilities[image.sha256] for image in test.images])
    wanted = {
        "accuracy": metrics.accuracy_score(truth, shares.argmax(1)),
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, shares.argmax(1)),
        "roc_auc": metrics.roc_auc_score(truth, shares / shares.sum(1, keepdims=True), multi_class="ovr"),
        "log_loss": metrics.log_loss(truth, shares / shares.sum(1, keepdims=True)),
    }
    assert set(wanted) == set(CHAMPION_METRICS["classify"])
    for metric, value in wanted.items():
        found = compare(test, mine, theirs, metric, 200, 0)
        assert found.mine == pytest.approx(value, abs=1e-5), metric
        assert found.gain.value == pytest.approx(abs(found.mine - found.theirs)), "less of a loss is better too"
        assert found.better
        assert not compare(test, theirs, mine, metric, 200, 0).better


def test_the_interval_is_of_the_paired_difference() -> None:
    """Both wrong on the same 30 pictures, one of them on 6 more: by the sign test (6 of 6) no chance, p = 0.03."""
    test = exam()
    theirs = {image.sha256: (1.0, 0.0, 0.0) if n < 36 else truth(image) for n, image in enumerate(test.images)}
    mine = {image.sha256: (1.0, 0.0, 0.0) if n < 30 else truth(image) for n, image in enumerate(test.images)}
    one, other = (Sitting(exam="a", labels=tuple(LABELS), probabilities=rows) for rows in (mine, theirs))
    found = compare(test, one, other, "accuracy", 2000, 0)
    assert found.gain.value == pytest.approx(4 / 60), "of the six, two are blue"
    assert found.better
    assert found.gain.high == pytest.approx(4 / 60 + 1.96 * np.sqrt(4 / 60 * 56 / 60 / 60), abs=0.02)
    again = compare(test, one, one, "accuracy", 200, 0)
    assert (again.gain.low, again.gain.value, again.gain.high, again.better) == (0, 0, 0, False)


def truth(image: Image) -> tuple[float, ...]:
    return tuple(float(label == image.label) for label in LABELS)


def test_labels_in_another_order_are_the_same_answers() -> None:
    test = exam()
    mine = classifier(test, 1, 0.3)
    turned = Sitting(
        exam=mine.exam,
        labels=mine.labels[::-1],
        probabilities={key: row[::-1] for key, row in mine.probabilities.items()},
    )
    found = compare(test, mine, turned, "accuracy", 100, 0)
    assert (found.mine, found.gain.low, found.gain.high) == (found.theirs, 0, 0)


def test_the_figures_of_boxes_are_those_of_pycocotools() -> None:
    test = box_exams.random_boxes(3, 20)
    labels = test.labels()
    boxes: dict[int, list[Seen]] = {image.id: [] for image in test.images}
    for number, one in enumerate(test.annotations):
        x, y, width, height = one.bbox
        corners = (x + number % 5, y, x + width + number % 5, y + height)  # not all of them fit closely
        boxes[one.image_id].append(Seen(labels[one.category_id - 1], 0.9 - number / 100, corners))
    good = sit(test, labels, [Said({}, tuple(boxes[image.id])) for image in test.images])
    none = sit(test, labels, [Said({}, ()) for _ in test.images])
    rows = [
        (image.id, labels[label], (x, y, width, height), score)
        for image in test.images
        for label, score, x, y, width, height in good.boxes[image.sha256]
    ]
    stats = match(test, box_exams.found(*rows)).stats
    for name, wanted in zip(("AP", "AP50", "AP75"), stats, strict=False):
        found = compare(test, good, none, name, 100, 0)
        assert found.mine == pytest.approx(wanted)
        assert (found.theirs, found.better) == (0, True)


def test_the_same_exam_is_the_same_pictures_and_what_is_on_them() -> None:
    test = box_exams.random_boxes(3, 6)
    renamed = Manifest(
        images=tuple(i.model_copy(update={"id": i.id + 90, "file_name": f"{i.id}"}) for i in reversed(test.images)),
        annotations=tuple(a.model_copy(update={"image_id": a.image_id + 90}) for a in test.annotations),
        categories=test.categories,
    )
    assert digest(renamed) == digest(test)
    first, *others = test.annotations
    wider = first.model_copy(update={"bbox": (*first.bbox[:2], first.bbox[2] + 1, first.bbox[3])})
    crowd = first.model_copy(update={"iscrowd": 1 - first.iscrowd})
    for changed in (
        test.only(test.images[1:]),
        test.model_copy(update={"annotations": (wider, *others)}),
        test.model_copy(update={"annotations": (crowd, *others)}),
    ):
        assert digest(changed) != digest(test)
    labelled = exam()
    other = labelled.images[0].model_copy(update={"label": "green"})
    assert digest(labelled.model_copy(update={"images": (other, *labelled.images[1:])})) != digest(labelled)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    test = exam(4)
    for sitting in (
        classifier(test, 1, 0.1),
        sit(test, LABELS, [Said({}, (Seen("red", 0.5, (1, 2, 3, 5)),) * n) for n in range(4)]),
    ):
        write(sitting, tmp_path)
        assert read(tmp_path / "answers.json") == sitting
    assert sitting.boxes[test.images[1].sha256] == ((2, 0.5, 1, 2, 2, 3),)
