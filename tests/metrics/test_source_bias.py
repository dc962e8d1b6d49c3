"""Predicting the source within a label: well where it shows, at chance where not, undefined where there is one."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
from conftest import Project
from headstart.base.arrays import Floats
from headstart.metrics import source_bias
from headstart.metrics.source_bias import (
    CONFOUNDED,
    ONE_SOURCE,
    TOO_FEW,
    LabelSources,
    measure_source_bias,
    source_collection,
)
from html_page import HtmlPage


def measure(
    labels: str, sources: str, *, shift: float = 0.0, groups: str = "", tested: tuple[tuple[str, str], ...] = ()
) -> dict[str, LabelSources]:
    """One letter a picture; the embeddings of source `x` lie `shift` standard deviations off in one of 16 features."""
    features: Floats = np.random.default_rng(0).normal(size=(len(labels), 16))
    features[:, 3] += [shift * (source == "x") for source in sources]
    of_group = [None if group == " " else group for group in groups or " " * len(labels)]
    found = measure_source_bias(features, [*labels], [*sources], of_group, tested=tested, seed=0)
    return {one.label: one for one in found}


def test_a_source_that_shows_is_predicted() -> None:
    found = measure("a" * 80, "xy" * 40, shift=12)["a"]
    assert found.source_accuracy.value == pytest.approx(1, abs=0.03)
    assert found.source_accuracy.low is not None
    assert found.source_accuracy.low > 0.9
    assert found.sources == found.compared == {"x": 40, "y": 40}


def test_a_source_that_does_not_show_is_at_chance() -> None:
    found = measure("a" * 400, "xxxy" * 100)["a"]
    assert found.source_accuracy.low is not None
    assert found.source_accuracy.high is not None
    assert found.source_accuracy.low < 0.5 < found.source_accuracy.high
    assert found.source_accuracy.high - found.source_accuracy.low < 0.2


def test_each_label_has_its_own_accuracy_and_three_sources_are_three() -> None:
    found = measure("a" * 240 + "b" * 60, "xyz" * 80 + "xy" * 30, shift=12)
    assert list(found) == ["a", "b"]
    assert len(found["a"].compared) == 3
    assert 0.55 < (found["a"].source_accuracy.value or 0) < 0.85, "x is predicted, y and z are guessed"
    assert (found["b"].source_accuracy.value or 0) > 0.95


def test_where_label_and_source_coincide_there_is_no_accuracy() -> None:
    found = measure("a" * 20 + "b" * 20, "x" * 20 + "y" * 20, shift=6)
    assert all(
        one.confounded and one.source_accuracy.absent == CONFOUNDED and one.source_accuracy.value is None
        for one in found.values()
    )
    assert found["a"].sources == {"x": 20}
    assert found["a"].compared == {}


def test_a_source_that_another_label_has_does_not_coincide() -> None:
    found = measure("a" * 20 + "b" * 40, "x" * 20 + "xy" * 20)
    assert found["a"].source_accuracy.absent == ONE_SOURCE
    assert found["b"].source_accuracy.value is not None
    assert not any(one.confounded for one in found.values())


def test_test_pictures_of_another_source_set_label_and_source_apart() -> None:
    found = measure("a" * 20 + "b" * 20, "x" * 20 + "y" * 20, tested=(("a", "z"), ("b", "y")))
    assert [one.source_accuracy.absent for one in found.values()] == [ONE_SOURCE, CONFOUNDED]


def test_one_source_has_nothing_to_compare() -> None:
    assert measure("aabb", "xxxx") == {}


def test_too_few_pictures_of_a_second_source() -> None:
    found = measure("a" * 24, "x" * 20 + "yyyy", shift=6)["a"]
    assert found.source_accuracy.absent == TOO_FEW
    assert found.sources == {"x": 20, "y": 4}
    of_groups = measure("a" * 40, "x" * 20 + "y" * 20, groups=" " * 20 + "dddddeeeeefffffggggg", shift=6)["a"]
    assert of_groups.source_accuracy.absent == TOO_FEW, "four groups are too few for five folds"


def test_pictures_of_one_group_are_never_on_both_sides() -> None:
    """Each group is a cluster of its own, and no source is: a picture's own group would predict its source."""
    groups = [*"abcdefghij"]
    centre = np.random.default_rng(1).normal(size=(10, 40)) * 9
    features = np.repeat(centre, 12, axis=0) + np.random.default_rng(2).normal(size=(120, 40))
    sources = ["x"] * 60 + ["y"] * 60
    split = {
        grouped: measure_source_bias(
            features,
            ["a"] * 120,
            sources,
            np.repeat(groups, 12).tolist() if grouped else [None] * 120,
            seed=0,
        )[0].source_accuracy
        for grouped in (True, False)
    }
    assert (split[False].value or 0) > 0.95
    assert (split[True].value or 0) < 0.85
    assert (split[True].high or 0) - (split[True].low or 0) > 0.2, "ten groups give a wide interval"


def test_the_same_seed_gives_the_same_numbers_and_of_many_pictures_a_sample_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert measure("a" * 60, "xxy" * 20, shift=1) == measure("a" * 60, "xxy" * 20, shift=1)
    monkeypatch.setattr(source_bias, "_MAX_PER_SOURCE", 10)
    assert measure("a" * 60, "xxy" * 20, shift=6)["a"].compared == {"x": 10, "y": 10}


def test_the_splits_of_open_images_are_one_collection() -> None:
    assert source_collection("open_images:train") == source_collection("open_images:test") == "open_images"
    assert source_collection("folder:data/hike") == "folder:data/hike"


# --- the stage ---


def evaluated(project: Project, root: Path, source_of: dict[str, list[str]], weights: str = "") -> tuple[Any, str]:
    """metrics.json and report.html of the project, its pictures attributed to these sources in turn, by label."""
    shutil.copytree(project.root, root, dirs_exist_ok=True)
    for path in (root / "stages/split").glob("*.json"):
        manifest = tiny.read_json(path)
        for number, image in enumerate(manifest.get("images", [])):
            turns = source_of[image["label"]]
            image["source"] = turns[number % len(turns)]
        path.write_text(json.dumps(manifest))
    about = tiny.read_json(root / "stages/weights/weights.json")
    (root / "stages/weights/weights.json").write_text(json.dumps(about | ({"source": weights} if weights else {})))
    tiny.run(root, project.params, "evaluate")
    page = (root / "stages/evaluate/report.html").read_text(encoding="utf-8")
    assert HtmlPage(page).open == []
    return tiny.read_json(root / "stages/evaluate/metrics.json"), page


def test_a_project_of_one_source_is_as_before(project: Project, tmp_path: Path) -> None:
    metrics, page = evaluated(
        project, tmp_path, {"red": ["open_images:train", "open_images:test"], "blue": ["open_images:test"]}
    )
    assert "Source bias" not in page
    assert "Note." not in page
    assert list(metrics) == ["test", "head_only", "difference", "unknown", "prediction_sets"]
    before = (project.root / "stages/evaluate/metrics.json").read_bytes()
    assert (tmp_path / "stages/evaluate/metrics.json").read_bytes() == before


def test_sources_that_both_labels_have(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_bias, "FOLDS", 2)
    metrics, page = evaluated(
        project, tmp_path, {"red": ["folder:own", "stanford_dogs"], "blue": ["folder:own"]}, "timm/x"
    )
    assert metrics["sources"]["blue"] == {"balanced_accuracy_absent": ONE_SOURCE, "pictures": 9}
    red = metrics["sources"]["red"]
    assert (red["chance"], red["pictures"]) == (0.5, 9)
    assert red["balanced_accuracy_low"] <= red["balanced_accuracy"] <= red["balanced_accuracy_high"]
    assert "Source bias" in page
    assert "chance: 50.0" in page
    assert "pretrained on it (here: timm/x) may have seen them" in page
    assert "coincide" not in page


def test_coinciding_label_and_source_are_noted_first(project: Project, tmp_path: Path) -> None:
    metrics, page = evaluated(project, tmp_path, {"red": ["stanford_dogs"], "blue": ["folder:own"]})
    assert {one["balanced_accuracy_absent"] for one in metrics["sources"].values()} == {CONFOUNDED}
    assert "Label and source coincide: “blue” only from folder:own, “red” only from stanford_dogs." in page
    assert "no metric here can separate the two" in page
    assert "may have seen" not in page, "the backbone is untrained"
