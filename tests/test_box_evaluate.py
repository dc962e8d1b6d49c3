"""A detector's figures against pycocotools, torchmetrics and cases worked by hand; and what the stage writes."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from box_exams import NAMES, found, manifest, put_pictures, random_boxes, random_found, write, write_random
from headstart import box_scores, outcomes, threshold
from headstart.bootstrap import draws
from headstart.box_evaluate import to_metrics
from headstart.coco import Annotation, Image, Manifest
from headstart.detections import Detection, Found
from headstart.errors import UserError
from headstart.matches import Matches, match
from headstart.scores import Estimate

CAT, DOG = (10.0, 10.0, 40.0, 40.0), (100.0, 20.0, 50.0, 80.0)


def scored(there: Manifest, some: list[Detection], resamples: int = 100) -> box_scores.BoxScores:
    matches = match(there, some)
    model = (matches, threshold.choose(matches.classes))
    return box_scores.evaluate(model, model, there.labels(), crowds=0, resamples=resamples, seed=0).fine_tuned


# --- figures ---


def test_a_case_worked_by_hand() -> None:
    """Two cats; found: one rightly (0.9), one thing that is not there (0.8), the other cat (0.7).

    Precision at the two recalls: 1, then 2/3. Of the 101 recalls 0 … 0.5 are 51, so AP = (51 + 50 * 2/3) / 101.
    """
    there = manifest([[("cat", CAT)], [("cat", CAT)]], ("cat",))
    some = found((1, "cat", CAT, 0.9), (2, "cat", (120, 90, 40, 40), 0.8), (2, "cat", CAT, 0.7), names=("cat",))
    figures = {name: e.value for name, e in scored(there, some).figures.items()}
    wanted = (51 + 50 * 2 / 3) / 101
    assert [figures[name] for name in ("AP", "AP50", "AP75", "AP_medium")] == pytest.approx([wanted] * 4)
    assert (figures["AP_small"], figures["AP_large"]) == (None, None)
    # One box a picture: of picture 2 it is the wrong one.
    assert [figures[name] for name in ("AR_1", "AR_10", "AR_100")] == pytest.approx([0.5, 1, 1])


def test_how_well_a_box_fits_by_hand() -> None:
    """IoU 40 * 32 / (40 * 40) = 0.8: found at 0.5 … 0.8, seven of the ten IoUs."""
    there = manifest([[("cat", CAT)]], ("cat",))
    figures = scored(there, found((1, "cat", (10, 10, 40, 32), 0.9), names=("cat",))).figures
    assert figures["AP"].value == pytest.approx(0.7)
    assert figures["AP50"].value == figures["AP75"].value == pytest.approx(1)


def test_what_lies_in_a_crowd_is_neither_right_nor_wrong() -> None:
    there = manifest([[("cat", CAT), ("cat", (80, 20, 100, 100))]], ("cat",), crowds=[2])
    in_crowd = [(1, "cat", (90, 30, 20, 20), 0.95), (1, "cat", (130, 60, 20, 20), 0.93)]
    found_all = scored(there, found((1, "cat", CAT, 0.9), *in_crowd, names=("cat",)))
    assert found_all.figures["AP"].value == pytest.approx(1)
    assert (found_all.boxes, found_all.at_threshold) == (1, threshold.At(1.0, 1.0, 1.0))


def for_torchmetrics(there: Manifest, some: list[Detection]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    import torch

    predicted, target = [], []
    for image in there.images:
        own = [a for a in there.annotations if a.image_id == image.id]
        mine = [one for one in some if one["image_id"] == image.id]
        target.append(
            {
                "boxes": torch.tensor([a.bbox for a in own]).reshape(-1, 4),
                "labels": torch.tensor([a.category_id for a in own], dtype=torch.int64),
                "iscrowd": torch.tensor([a.iscrowd for a in own], dtype=torch.int64),
                "area": torch.tensor([a.area for a in own]),
            }
        )
        predicted.append(
            {
                "boxes": torch.tensor([one["bbox"] for one in mine]).reshape(-1, 4),
                "labels": torch.tensor([one["category_id"] for one in mine], dtype=torch.int64),
                "scores": torch.tensor([one["score"] for one in mine]),
            }
        )
    return predicted, target


RECALLS = np.linspace(0, 1, 101).tolist()  # torchmetrics' own are those in fp32, and 0.29 is not among them
THEIRS = {"AP": "map", "AP50": "map_50", "AP75": "map_75", "AR_1": "mar_1", "AR_10": "mar_10", "AR_100": "mar_100"}


def test_figures_are_those_of_torchmetrics() -> None:
    from torchmetrics.detection import MeanAveragePrecision

    there = random_boxes(5, 30)
    some = random_found(6, there)
    metric = MeanAveragePrecision(box_format="xywh", class_metrics=True, rec_thresholds=RECALLS)
    metric.update(*for_torchmetrics(there, some))
    theirs, ours = metric.compute(), scored(there, some)
    sizes = {f"AP_{size}": f"map_{size}" for size in ("small", "medium", "large")}
    for name, key in (THEIRS | sizes).items():
        assert ours.figures[name].value == pytest.approx(float(theirs[key]), abs=1e-5), name
    assert [one.ap for one in ours.per_class.values()] == pytest.approx(theirs["map_per_class"].tolist(), abs=1e-5)


def test_figures_are_those_of_an_implementation_without_pycocotools() -> None:
    """torchmetrics' older one, in torch alone. It knows no crowds and has its own mind about sizes."""
    from torchmetrics.detection._mean_ap import MeanAveragePrecision

    there = random_boxes(5, 30, crowds=0)
    some = random_found(6, there)
    metric = MeanAveragePrecision(box_format="xywh", rec_thresholds=RECALLS)
    metric.update(*for_torchmetrics(there, some))
    theirs, ours = metric.compute(), scored(there, some)
    for name, key in THEIRS.items():
        assert ours.figures[name].value == pytest.approx(float(theirs[key]), abs=1e-5), name


def test_a_label_without_boxes_and_an_exam_without_any() -> None:
    there = manifest([[("cat", CAT)], []])
    found_all = scored(there, found((1, "cat", CAT, 0.9), (2, "dog", DOG, 0.3)))
    assert found_all.per_class["dog"] == box_scores.ClassAP(None, None, 0)
    assert found_all.figures["AP"].value == pytest.approx(1), "the mean is over labels that have boxes"
    nothing = scored(manifest([[], []]), [])
    assert nothing.figures["AP"] == Estimate(None, absent="no box in the test pictures")
    assert nothing.figures["AP_small"].absent == "no small box in the test pictures"
    assert nothing.at_threshold == threshold.At(None, None, None)


# --- intervals ---


def drawn_anew(there: Manifest, some: list[Detection], counts: list[int]) -> Matches:
    """pycocotools on the resample itself: each picture as often as it was drawn."""
    images: list[Image] = []
    annotations: list[Annotation] = []
    results: list[Detection] = []
    for image, count in zip(there.images, counts, strict=True):
        for _ in range(count):
            number = len(images) + 1
            images.append(image.model_copy(update={"id": number}))
            for a in there.annotations:
                if a.image_id == image.id:
                    annotations.append(a.model_copy(update={"id": len(annotations) + 1, "image_id": number}))
            results += [{**one, "image_id": number} for one in some if one["image_id"] == image.id]
    return match(Manifest(images=tuple(images), annotations=tuple(annotations), categories=there.categories), results)


def test_resamples_are_what_pycocotools_says_of_them() -> None:
    there = random_boxes(7, 12)
    some = random_found(8, there)
    matches = match(there, some)
    weights = np.concatenate([np.ones((1, 12)), *draws(12, 6, seed=3)])
    figures = box_scores.resampled(matches, weights)
    assert figures["AP"][0] == pytest.approx(matches.stats[0], abs=1e-12), "the whole is itself"
    for row, weight in enumerate(weights):
        theirs = drawn_anew(there, some, weight.astype(int).tolist()).stats
        for name, value in zip(("AP", "AP50", "AP75"), theirs[:3], strict=True):
            assert figures[name][row] == pytest.approx(value, abs=1e-12), (row, name)


def test_a_resample_without_boxes_has_no_figure() -> None:
    there = manifest([[("cat", CAT)], []])
    figures = box_scores.resampled(match(there, found((1, "cat", CAT, 0.9))), np.array([[2.0, 0.0], [0.0, 2.0]]))
    assert figures["AP"][0] == pytest.approx(1)
    assert np.isnan(figures["AP"][1])


@settings(max_examples=15)
@given(st.integers(0, 2**31), st.integers(1, 10))
def test_intervals_hold_their_figure(seed: int, pictures: int) -> None:
    there = random_boxes(seed, pictures)
    figures = scored(there, random_found(seed + 1, there)).figures
    for name in box_scores.WITH_INTERVAL:
        one = figures[name]
        if one.value is not None:
            assert one.low is not None
            assert one.high is not None
            assert 0 <= one.low <= one.value <= one.high <= 1 + 1e-9


def test_a_model_against_itself_makes_no_difference() -> None:
    there = random_boxes(1, 8)
    matches = match(there, random_found(2, there))
    model = (matches, threshold.choose(matches.classes))
    evaluation = box_scores.evaluate(model, model, NAMES, crowds=0, resamples=100, seed=0)
    assert evaluation.difference == Estimate(0.0, 0.0, 0.0)


# --- threshold ---


def test_the_threshold_by_hand() -> None:
    """F1 after each: 2/3 (1 right of 1, of 2), 0.5, 0.8 (2 right of 3), 2/3. The best is 0.7; half way down is 0.5."""
    there = manifest([[("cat", CAT)], [("dog", DOG)]])
    some = found((1, "cat", CAT, 0.9), (1, "dog", CAT, 0.8), (2, "dog", DOG, 0.7), (2, "cat", DOG, 0.3))
    classes = match(there, some).classes
    assert threshold.sweep(classes).f1.tolist() == pytest.approx([2 / 3, 0.5, 0.8, 2 / 3])
    assert threshold.choose(classes) == threshold.Threshold(0.5, 0.8)
    assert threshold.at(classes, 0.5) == threshold.At(2 / 3, 1.0, 0.8)
    assert threshold.at(classes, 0.95) == threshold.At(None, 0.0, 0.0)


def test_equally_sure_boxes_come_together() -> None:
    there = manifest([[("cat", CAT)]])
    some = found((1, "cat", CAT, 0.6), *((1, "dog", DOG, 0.6) for _ in range(3)))
    assert threshold.sweep(match(there, some).classes).precision.tolist() == [0.25]


@pytest.mark.parametrize("rows", [[], [(1, "cat", DOG, 0.9)]])
def test_where_nothing_is_found_the_threshold_is_a_guess(rows: list[tuple[int, str, tuple[float, ...], float]]) -> None:
    classes = match(manifest([[("cat", CAT)]]), found(*rows)).classes  # type: ignore[arg-type]
    assert threshold.choose(classes) == threshold.Threshold(0.5, 0.0)


def test_without_a_box_in_val_there_is_nothing_to_choose_by() -> None:
    classes = match(manifest([[]]), found((1, "cat", DOG, 0.9))).classes
    assert threshold.choose(classes) == threshold.Threshold(0.5, None)


@settings(max_examples=15)
@given(st.integers(0, 2**31))
def test_no_other_threshold_is_better(seed: int) -> None:
    there = random_boxes(seed, 6)
    classes = match(there, random_found(seed + 1, there)).classes
    chosen = threshold.choose(classes)
    for value in np.linspace(0, 1, 30):
        assert (threshold.at(classes, float(value)).f1 or 0) <= (chosen.f1 or 0) + 1e-12


# --- outcomes ---


def test_outcomes_by_hand() -> None:
    """A cat found, a dog called a cat, a raccoon missed, a raccoon where nothing is, and one below the threshold."""
    there = manifest([[("cat", CAT), ("dog", DOG)], [("raccoon", CAT)]])
    some = found(
        (1, "cat", CAT, 0.9),
        (1, "cat", DOG, 0.8),
        (2, "raccoon", DOG, 0.7),
        (2, "raccoon", CAT, 0.1),
        (1, "dog", CAT, 0.6),
    )
    seen = outcomes.outcomes(there, some, match(there, some), 0.5)
    assert seen == outcomes.Outcomes(hits=((0, 1),), mislabelled=((1, 2),), false_alarms=(2, 4), misses=(3,))
    counts = outcomes.confusion(outcomes.pairs(there, some, seen), 3)
    assert counts.tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 1, 1, 0]]


def test_crowds_are_no_outcome() -> None:
    there = manifest([[("cat", (0, 0, 100, 100))]], crowds=[1])
    some = found((1, "cat", (10, 10, 20, 20), 0.9))
    assert outcomes.outcomes(there, some, match(there, some), 0.5) == outcomes.Outcomes((), (), (), ())


@settings(max_examples=15)
@given(st.integers(0, 2**31), st.floats(0, 1))
def test_outcomes_agree_with_the_figures(seed: int, at: float) -> None:
    there = random_boxes(seed, 6)
    some = random_found(seed + 1, there)
    matches = match(there, some)
    seen = outcomes.outcomes(there, some, matches, at)
    figures = threshold.at(matches.classes, at)
    shown = len(seen.hits) + len(seen.mislabelled) + len(seen.false_alarms)
    boxes = sum(not a.iscrowd for a in there.annotations)
    assert len(seen.hits) + len(seen.mislabelled) + len(seen.misses) == boxes
    assert (figures.precision or 0) == pytest.approx(len(seen.hits) / max(shown, 1))
    assert (figures.recall or 0) == pytest.approx(len(seen.hits) / max(boxes, 1))


# --- what the stage writes ---


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random(tmp_path_factory.mktemp("exam"))


def test_two_runs_leave_the_same_bytes(out: Path, tmp_path: Path) -> None:
    other = write_random(tmp_path)
    files = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    assert {"metrics.json", "predictions.json", "report.html"} <= {str(path) for path in files}
    for path in files:
        assert (out / path).read_bytes() == (other / path).read_bytes(), path


def test_metrics_are_laid_out_for_dvc(out: Path) -> None:
    metrics = json.loads((out / "metrics.json").read_text())
    assert list(metrics) == ["test", "head_only", "difference"]
    for model in ("test", "head_only"):
        one = metrics[model]
        for name in ("AP", "AP50", "AP75"):
            assert 0 <= one[f"{name}_low"] <= one[name] <= one[f"{name}_high"] <= 1
        assert {"AP_small", "AP_medium", "AP_large", "AR_1", "AR_10", "AR_100", "threshold", "recall"} <= set(one)
        assert one["pictures"] == 12
        assert set(one["per_class"]) == set(NAMES)
    assert metrics["test"]["AP"] > metrics["head_only"]["AP"]
    gain = metrics["test"]["AP"] - metrics["head_only"]["AP"]
    assert metrics["difference"]["AP"] == pytest.approx(gain, abs=2e-6)


def test_metrics_say_why_a_figure_is_absent() -> None:
    matches = match(manifest([[]]), [])
    model = (matches, threshold.choose(matches.classes))
    evaluation = box_scores.evaluate(model, model, NAMES, crowds=0, resamples=100, seed=0)
    metrics = json.loads(json.dumps(to_metrics(evaluation), allow_nan=False))
    assert metrics["test"]["AP_absent"] == metrics["difference"]["AP_absent"] == "no box in the test pictures"
    assert "AP" not in metrics["test"]


def test_predictions_are_coco_results(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    from headstart import coco

    coco.write(random_boxes(2, 12), tmp_path / "test.json")
    there = COCO(str(tmp_path / "test.json"))
    run = COCOeval(there, there.loadRes(str(out / "predictions.json")), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    assert "Average Precision" in capsys.readouterr().out
    wanted = json.loads((out / "metrics.json").read_text())["test"]
    assert run.stats[:3] == pytest.approx([wanted[name] for name in ("AP", "AP50", "AP75")], abs=1e-3)


def test_csv_for_dvc_reads_back(out: Path) -> None:
    with (out / "plots/confusion.csv").open() as file:
        pairs = list(csv.DictReader(file))
    metrics = json.loads((out / "metrics.json").read_text())["test"]
    hits = sum(row["actual"] == row["predicted"] for row in pairs)
    assert hits == pytest.approx(metrics["recall"] * metrics["boxes"], abs=1e-3)
    assert {row["actual"] for row in pairs} <= {*NAMES, "background"}
    with (out / "plots/precision-recall.csv").open() as file:
        mean = [float(row["precision"]) for row in csv.DictReader(file)]
    assert np.mean(mean) == pytest.approx(metrics["AP50"], abs=1e-5)
    with (out / "plots/precision-recall-labels.csv").open() as file:
        points = list(csv.DictReader(file))
    for name in NAMES:
        own = [float(row["precision"]) for row in points if row["label"] == name]
        assert np.mean(own) == pytest.approx(metrics["per_class"][name]["AP50"], abs=1e-5)


def test_gallery_has_each_kind_and_a_picture_once_in_it(out: Path) -> None:
    with (out / "gallery/cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == ["miss"] * 2 + ["false alarm"] * 2 + ["hit"] * 2
    at = json.loads((out / "metrics.json").read_text())["test"]["threshold"]
    for kind in ("miss", "false alarm", "hit"):
        own = [row for row in rows if row["kind"] == kind]
        assert len({row["file_name"] for row in own}) == len(own)
        sure = [float(row["confidence"]) for row in own if row["confidence"]]
        assert sure == sorted(sure, reverse=True)
        assert all(value >= at for value in sure)
        assert len(sure) == (0 if kind == "miss" else 2)
    for row in rows:
        with PIL.Image.open(out / "gallery" / row["thumbnail"]) as picture:
            assert picture.format == "JPEG"
            assert max(picture.size) == 400


def test_the_largest_misses_come_first(tmp_path: Path) -> None:
    small, large = (10.0, 10.0, 12.0, 12.0), (20.0, 20.0, 120.0, 120.0)
    there = manifest([[("cat", small)], [("dog", large)], [("cat", CAT)]])
    some = Found([], [])
    out = write(tmp_path, there, there, some, some, gallery=3 * 2)
    with (out / "gallery/cases.csv").open() as file:
        assert [(row["label"], row["file_name"]) for row in csv.DictReader(file)] == [
            ("dog", "images/2.png"),
            ("cat", "images/3.png"),
        ]


def test_a_picture_stands_where_its_surest_box_puts_it(tmp_path: Path) -> None:
    there = manifest([[("cat", CAT), ("dog", DOG)], [("cat", CAT)], [("cat", CAT)]])
    some = found((1, "cat", CAT, 0.9), (1, "dog", DOG, 0.5), (2, "cat", CAT, 0.8), (3, "cat", CAT, 0.7))
    out = write(tmp_path, there, there, Found(some, some), Found(some, some), gallery=8)
    with (out / "gallery/cases.csv").open() as file:
        assert [(row["file_name"], row["confidence"]) for row in csv.DictReader(file)] == [
            ("images/1.png", "0.9"),
            ("images/2.png", "0.8"),
        ]


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    there = manifest([[("cat", CAT)]])
    put_pictures(tmp_path, there)
    elsewhere = there.images[0].model_copy(update={"file_name": "images/gone.png"})
    gone = there.model_copy(update={"images": (elsewhere,)})
    from headstart import box_gallery

    seen = outcomes.outcomes(gone, [], match(gone, []), 0.5)
    with pytest.raises(UserError, match=r"gone\.png: no such file; .*dvc repro"):
        box_gallery.find(tmp_path, gone, [], seen, 0.5, 3)


def test_five_thousand_boxes_in_one_picture() -> None:
    cells = [("cell", (n % 100 * 2.0, n // 100 * 3.0, 1.5, 2.5)) for n in range(5000)]
    there = manifest([cells], ("cell",))
    some = found(*((1, name, box, 0.9 - n / 100) for n, (name, box) in enumerate(cells[::1000])), names=("cell",))
    matches = match(there, some)
    assert matches.stats[8] == pytest.approx(5 / 5000)
    seen = outcomes.outcomes(there, some, matches, 0.0)
    assert (len(seen.hits), len(seen.misses), len(seen.false_alarms)) == (5, 4995, 0)


def test_the_hundred_surest_boxes_of_a_label_count() -> None:
    cells = [("cell", (n % 20 * 10.0, n // 20 * 10.0, 8.0, 8.0)) for n in range(160)]
    there = manifest([cells], ("cell",))
    some = found(*((1, name, box, 1 - n / 1000) for n, (name, box) in enumerate(cells)), names=("cell",))
    matches = match(there, some)
    assert matches.stats[8] == pytest.approx(100 / 160)
    assert matches.classes[0].score.min() == pytest.approx(0.901)
