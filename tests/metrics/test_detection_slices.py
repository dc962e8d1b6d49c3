"""AP50 by slice: pycocotools' of the slice's pictures, the rest over the same labels, and what is called worse."""

import dataclasses

import numpy as np
import pytest

from headstart.base.arrays import Ints
from headstart.base.manifest import Manifest
from headstart.metrics.coco_matching import match_detections
from headstart.metrics.detection import ap_interval
from headstart.metrics.detection_slices import ap50_slice_figures
from headstart.metrics.slices import SliceFigure, slice_by_value
from synthetic_boxes import make_detections, manifest, random_boxes, random_detections

CAT, DOG = (10.0, 10.0, 50.0, 40.0), (90.0, 20.0, 60.0, 60.0)


def of_pictures(test: Manifest, ids: set[int]) -> Manifest:
    return test.subset(image for image in test.images if image.id in ids)


def test_the_figures_are_pycocotools_of_these_pictures() -> None:
    test = random_boxes(3, 40)
    detections = random_detections(4, test)
    slicing = slice_by_value("source", ["phone" if n % 3 else "scan" for n in range(40)])
    found = ap50_slice_figures([slicing], match_detections(test, detections), resamples=200, seed=0)
    assert {figure.name: figure.pictures for figure in found} == {"phone": 26, "scan": 14}
    assert [figure.own.value for figure in found] == sorted(figure.own.value or 0 for figure in found)
    for figure in found:
        ids = {n for n, image in enumerate(test.images) if slicing.names[slicing.numbers[n]] == figure.name}
        inside, outside = (
            {image.id for n, image in enumerate(test.images) if (n in ids) is chosen} for chosen in (True, False)
        )
        for estimate, own in ((figure.own, inside), (figure.rest, outside)):
            matches = match_detections(of_pictures(test, own), [one for one in detections if one["image_id"] in own])
            assert estimate.value == pytest.approx(matches.stats[1], abs=1e-9)
            alone = ap_interval(matches, "AP50", resamples=200, seed=0)
            assert estimate.low is not None
            assert estimate.high is not None
            assert alone.low is not None
            assert alone.high is not None
            assert estimate.low < alone.low < alone.high < estimate.high, "wider, for two slices at once"
            assert estimate.note == (
                "only 14 units" if len(own) == 14 and alone.note == "only 14 units" else alone.note
            )


def cats_and_dogs(found_cats: int, found_dogs: int, units: Ints | None = None) -> list[SliceFigure]:
    """30 pictures with a cat, 30 with a cat and a dog, of which so many are found; the slices are these halves."""
    test = manifest([[("cat", CAT)]] * 30 + [[("cat", CAT), ("dog", DOG)]] * 30, ("cat", "dog"))
    rows = [(n + 1, "cat", CAT, 0.9 - n / 1000) for n in range(60) if n >= 30 or n < found_cats]
    rows += [(n + 31, "dog", DOG, 0.5 - n / 1000) for n in range(found_dogs)]
    matches = match_detections(test, make_detections(*rows, names=("cat", "dog")))
    if units is not None:
        matches = dataclasses.replace(matches, units=units)
    slicing = slice_by_value("source", ["cats"] * 30 + ["both"] * 30)
    return ap50_slice_figures([slicing], matches, resamples=200, seed=0)


def test_a_slice_is_compared_on_the_labels_that_it_has() -> None:
    """Dogs are found badly; but the pictures of cats alone are no better at cats than the rest is."""
    both, cats = cats_and_dogs(30, 10)
    assert (both.name, cats.name) == ("both", "cats")
    assert cats.rest.value == cats.own.value == pytest.approx(1)
    assert both.own.value == pytest.approx((1 + 34 / 101) / 2, abs=1e-9), "recall 0 to 0.33 of the dogs"
    assert both.rest.value == pytest.approx(1), "there are no dogs in the rest"
    assert not cats.is_worse


def test_a_slice_that_is_much_worse_is_called_so_unless_it_is_one_unit() -> None:
    worst, _ = cats_and_dogs(5, 30)
    assert (worst.name, worst.is_worse) == ("cats", True)
    worst, _ = cats_and_dogs(5, 30, np.concatenate([np.zeros(30, np.int64), np.arange(1, 31)]))
    assert worst.own.low is None
    assert worst.own.note == "no interval: one unit shows no spread"
    assert not worst.is_worse, "its pictures may be alike"


def test_a_group_is_asked_about_its_own_pictures() -> None:
    test = manifest([[("cat", CAT)]] * 200, ("cat",))
    rows = [(n + 1, "cat", CAT, 0.9 - n / 1000) for n in range(200) if n >= 20 or n % 10 == 0]
    matches = dataclasses.replace(
        match_detections(test, make_detections(*rows, names=("cat",))), units=np.arange(200) // 20
    )
    slicing = slice_by_value("group", [f"g{n // 20}" for n in range(200)], pictures_alone=True)
    first, *others = ap50_slice_figures([slicing], matches, resamples=200, seed=0)
    assert (first.name, first.is_worse) == ("g0", True)
    assert not any(figure.is_worse for figure in others)


def test_a_slice_without_a_box_has_no_figure_and_comes_last() -> None:
    test = manifest([[("cat", CAT)]] * 8 + [[]] * 8, ("cat",))
    matches = match_detections(test, make_detections((1, "cat", CAT, 0.9), names=("cat",)))
    found = ap50_slice_figures([slice_by_value("source", ["a"] * 8 + ["b"] * 8)], matches, resamples=100, seed=0)
    assert [figure.name for figure in found] == ["a", "b"]
    assert (found[1].own.value, found[1].own.absent, found[1].is_worse) == (None, "no box", False)
    assert (found[0].rest.value, found[0].is_worse) == (None, False)


def test_slices_that_are_alike_are_seldom_called_worse() -> None:
    """Six slices of two properties; in at most 5 % of the data sets may any of them be called worse."""
    rng, alarms = np.random.default_rng(0), 0
    for seed in range(60):
        test = random_boxes(seed, 60, ("cat",))
        matches = match_detections(test, random_detections(seed + 1000, test))
        slicings = [slice_by_value(key, rng.integers(0, 3, 60).astype(str).tolist()) for key in "ab"]
        alarms += any(figure.is_worse for figure in ap50_slice_figures(slicings, matches, resamples=100, seed=0))
    assert alarms <= 3
