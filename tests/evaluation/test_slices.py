"""`evaluate.slices`: what divides the pictures, what is said of it, and what is refused."""

import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import tiny
from conftest import Project
from headstart.base.detections import SplitDetections
from headstart.base.errors import UserError
from headstart.base.manifest import Image, read_manifest, write_manifest
from headstart.cross_validation.figures import widen
from headstart.evaluation.slices import (
    AP50,
    MOST_SHOWN,
    ExaminedPictures,
    SliceSection,
    check_slices,
    divide,
    present_slices,
    slice_results,
)
from headstart.metrics.estimate import Estimate
from headstart.metrics.slices import SliceFigure
from synthetic_boxes import random_boxes, random_detections, write_evaluation
from tiny import evaluate


def make_images(count: int = 40) -> list[Image]:
    """Of two sources, of sizes 10 to 49, sure but for every fourth, half of them with a camera."""
    return [
        Image(
            id=n,
            file_name=f"{n}.png",
            width=10 + n,
            height=10 + n,
            sha256=f"{n:064x}",
            source="table:a.csv" if n < 30 else "folder:b",
            label="blue",
            confidence=0.5 if n % 4 == 0 else 1,
            columns={"camera": "old" if n % 2 else "new", "angle": str(n / 2)} if n < 20 else None,
        )
        for n in range(count)
    ]


def results_of(
    images: list[Image], wrong: set[int], *keys: str, root: Path = Path()
) -> tuple[dict[str, object], SliceSection]:
    correct = np.array([float(image.id not in wrong) for image in images])
    examined = ExaminedPictures(images, correct, np.arange(len(images)), "the 40 test pictures")
    metrics, section = slice_results(examined, keys, root)
    assert section is not None
    return metrics, section


def test_each_property_divides_the_pictures() -> None:
    found = {
        slicing.key: dict(zip(slicing.names, np.bincount(slicing.numbers).tolist(), strict=True))
        for slicing in divide(make_images(), ["source", "size", "confidence", "camera", "angle"], Path())
    }
    assert found == {
        "source": {"folder:b": 10, "table:a.csv": 30},
        "size": {"10 to 19": 10, "19 to 29": 10, "29 to 39": 10, "39 to 49": 10},
        "confidence": {"0.5": 10, "1": 30},
        "camera": {"new": 10, "none": 20, "old": 10},
        "angle": {"0 to 2": 5, "2 to 4.5": 5, "4.5 to 7": 5, "7 to 9.5": 5, "none": 20},
    }


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_brightness_is_the_mean_luminance_of_the_stored_picture(tmp_path: Path, suffix: str) -> None:
    images = [image.model_copy(update={"file_name": f"{image.id}.{suffix}"}) for image in make_images(8)]
    for image in images:
        shade = 40 if image.id < 3 else 200
        PIL.Image.new("RGB", (300, 200), (shade, shade, shade)).save(tmp_path / image.file_name)
    (slicing,) = divide(images, ["brightness"], tmp_path)
    assert slicing.names == ("200", "others (1 with fewer than 5 pictures)")
    assert slicing.numbers.tolist() == [1, 1, 1, 0, 0, 0, 0, 0]


def test_groups_are_shown_without_being_asked_for_and_the_worst_come_first() -> None:
    images = [image.model_copy(update={"group": f"module {image.id // 8}"}) for image in make_images()]
    metrics, section = results_of(images, {*range(16, 24)})
    (table,) = section.tables
    assert list(metrics) == ["slices"]
    assert [row[:3] for row in table.rows][:2] == [
        ("module 2", 8, "0.0\N{NO-BREAK SPACE}%"),
        ("module 0", 8, "100.0\N{NO-BREAK SPACE}%"),
    ]
    assert table.caption == "Accuracy by group; the intervals are for more pictures of the same group"
    assert section.worse == [
        "On the 8 pictures of group “module 2” the accuracy is 0.0\N{NO-BREAK SPACE}%, on the rest "
        "100.0\N{NO-BREAK SPACE}%: too much for chance, counting that 5 slices were looked at."
    ]
    assert "for all 5 slices at once" in section.intro
    assert "A slice of fewer" not in section.intro, "there is none"
    alone = [image.model_copy(update={"group": "all"}) for image in images]
    assert divide(alone, [], Path()) == []


def test_confidence_is_of_the_label_and_its_uncertain_pictures_may_have_wrong_ones() -> None:
    images = [image.model_copy(update={"confidence": 0.5 if image.id < 10 else 1}) for image in make_images()]
    metrics, section = results_of(images, {*range(10)}, "confidence")
    (table,) = section.tables
    assert list(metrics["slices"]) == ["confidence"]  # type: ignore[call-overload]
    assert (table.caption, table.header[0]) == ("Accuracy by label’s confidence", "label’s confidence")
    assert section.worse == [
        "On the 10 pictures of label’s confidence “0.5” the accuracy is 0.0\N{NO-BREAK SPACE}%, on the rest "
        "100.0\N{NO-BREAK SPACE}%: too much for chance, counting that 2 slices were looked at. Their labels are "
        "uncertain themselves, so part of it may be wrong labels."
    ]


def test_small_slices_are_mentioned_where_there_are_some() -> None:
    images = [
        image.model_copy(update={"columns": {"cell": "rare" if image.id < 3 else "usual"}}) for image in make_images()
    ]
    _, section = results_of(images, set(), "cell")
    assert section.intro.endswith("bad by chance. A slice of fewer than 5 pictures has no row of its own.")


def test_answers_of_several_models_have_wider_intervals() -> None:
    images, correct = make_images(), np.array([0.0, 1.0, 1.0, 1.0] * 10)
    plain = ExaminedPictures(images, correct, np.arange(40), "them")
    found, widened = (slice_results(one, ["source"], Path())[0] for one in (plain, replace(plain, adjust=widen)))
    for name, pictures in (("folder:b", 10), ("table:a.csv", 30)):
        own, other = (one["slices"]["source"][name] for one in (found, widened))  # type: ignore[index]
        expected = widen(Estimate(own["accuracy"], own["accuracy_low"], own["accuracy_high"]), pictures)
        assert (other["accuracy_low"], other["accuracy_high"]) == pytest.approx((expected.low, expected.high), abs=2e-6)
        assert other["accuracy_low"] < own["accuracy_low"]


def test_no_sentence_where_chance_explains_it() -> None:
    _, section = results_of(make_images(), set(random.Random(1).sample(range(40), 8)), "source", "size", "camera")
    assert section.worse == []
    assert all(row[-1] == "" for table in section.tables for row in table.rows)


def test_at_most_twenty_slices_of_a_property_are_shown() -> None:
    images = [image.model_copy(update={"columns": {"cell": f"c{image.id // 5:02d}"}}) for image in make_images(125)]
    metrics, section = results_of(images, {*range(120, 125)}, "cell")
    (table,) = section.tables
    assert len(table.rows) == MOST_SHOWN == 20
    assert table.caption == "Accuracy by cell, the worst 20 of 25"
    assert table.rows[0][0] == "c24"
    slices = metrics["slices"]
    assert isinstance(slices, dict)
    assert len(slices["cell"]) == 20
    assert set(slices["cell"]["c24"]) == {"accuracy", "accuracy_low", "accuracy_high", "pictures"}


def test_a_property_that_no_picture_has_is_refused_with_those_there_are() -> None:
    check_slices(["source", "camera"], make_images())
    with pytest.raises(UserError) as caught:
        check_slices(["source", "weather"], make_images())
    assert str(caught.value) == (
        "params.yaml: evaluate.slices: 'weather': no such property of a picture; give source, group, size, brightness, "
        "confidence, or a column; the tables' columns are angle, camera"
    )
    with pytest.raises(UserError, match="did you mean 'camera'"):
        check_slices(["camra"], make_images())
    with pytest.raises(UserError, match="the tables have no columns"):
        check_slices(["weather"], [])


def test_a_detectors_figure_is_ap50_of_the_labels_in_the_slice() -> None:
    found = [
        SliceFigure("source", "phone", 9, Estimate(0.25, 0.1, 0.4), Estimate(0.8, 0.7, 0.9), is_worse=True),
        SliceFigure("source", "scan", 30, Estimate(None, absent="no box"), Estimate(0.7, 0.6, 0.8), is_worse=False),
    ]
    metrics, section = present_slices(found, "the 39 test pictures, with the boxes of the exported model", AP50)
    assert metrics == {
        "slices": {
            "source": {
                "phone": {"AP50": 0.25, "AP50_low": 0.1, "AP50_high": 0.4, "pictures": 9},
                "scan": {"AP50_absent": "no box", "pictures": 30},
            }
        }
    }
    assert section is not None
    assert section.heading == "AP50 by slice"
    assert section.worse == [
        "On the 9 pictures of source “phone” the AP50 is 0.250, on the rest 0.800: too much for chance, counting that "
        "2 slices were looked at."
    ]
    (table,) = section.tables
    assert table.header[2] == "AP50"
    assert table.rows == (
        ("phone", 9, "0.250", "0.100 to 0.400", "0.800", "yes"),
        ("scan", 30, "–", "no box", "0.700", ""),
    )
    assert "over the same labels" in section.intro


def test_the_stage_writes_them(project: Project, tmp_path: Path) -> None:
    """An unknown one is refused before a network runs; the others are in metrics.json and in the report."""
    root = tmp_path / "copy"
    shutil.copytree(project.root, root)
    path = root / "stages/split/test.json"
    test = read_manifest(path)
    images = [
        image.model_copy(update={"id": 1000 + n, "columns": {"camera": "two" if n < 6 else "one"}})
        for n, image in enumerate((*test.images, *test.images))
    ]
    write_manifest(test.model_copy(update={"images": tuple(images)}), path)
    evaluate(tiny.make_params(evaluate={"slices": ["camera"]}), root)
    slices = tiny.read_json(root / "stages/evaluate/metrics.json")["slices"]["camera"]
    assert {name: values["pictures"] for name, values in slices.items()} == {"one": 6, "two": 6}
    page = (root / "stages/evaluate/report.html").read_text(encoding="utf-8")
    assert "<caption>Accuracy by camera</caption>" in page
    assert "Of the 12 test pictures, predicted by the exported model." in page
    assert "Accuracy by slice" not in (project.root / "stages/evaluate/report.html").read_text(encoding="utf-8")
    with pytest.raises(UserError, match="no such property"):
        evaluate(tiny.make_params(evaluate={"slices": ["weather"]}), root)


def test_a_detectors_stage_writes_them_too(detect_project: Project, tmp_path: Path) -> None:
    val, test = random_boxes(1, 12), random_boxes(2, 16)
    images = tuple(image.model_copy(update={"group": f"site {image.id % 2}"}) for image in test.images)
    test = test.model_copy(update={"images": images})
    found = SplitDetections(random_detections(3, val), random_detections(4, test))
    out = write_evaluation(tmp_path, val, test, found, found)
    by_group = tiny.read_json(out / "metrics.json")["slices"]["group"]
    assert {name: values["pictures"] for name, values in by_group.items()} == {"site 0": 8, "site 1": 8}
    for values in by_group.values():
        assert 0 <= values["AP50_low"] < values["AP50"] < values["AP50_high"] <= 1
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<caption>AP50 by group; the intervals are for more pictures of the same group</caption>" in page
    assert "Of the 16 test pictures, with the boxes of the exported model." in page
    assert "slices" not in tiny.read_json(detect_project.root / "stages/evaluate/metrics.json")
    with pytest.raises(UserError, match=r"evaluate\.slices: 'weather': no such property"):
        evaluate(tiny.make_detect_params(evaluate={"slices": ["weather"]}), detect_project.root)
