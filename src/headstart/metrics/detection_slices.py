"""AP50 of a detector by slice of the pictures, with intervals by half-sampling that hold for all slices at once."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from headstart.base.arrays import Bools, Ints
from headstart.metrics.average_precision import AP_ROWS, average_precision, mean_ap
from headstart.metrics.coco_matching import ClassMatches, DetectionMatches
from headstart.metrics.estimate import Estimate
from headstart.metrics.half_samples import half_sample_interval, half_samples, make_support
from headstart.metrics.slices import SliceFigure, Slicing, compare_slices

NAME = "AP50"
MOST_HALVES = 200  # of a slice: their spread is all that is asked for, and there are many slices


def ap50_slice_figures(
    slicings: Sequence[Slicing], matches: DetectionMatches, *, resamples: int, seed: int
) -> list[SliceFigure]:
    """AP50 of all slices, as `compare_slices` gives it.

    AP50 is the mean over the labels that have a box in the slice, and on the rest over the same labels, so that a slice
    is not called worse for the labels it happens to have.

    Args:
        slicings: divisions of the pictures.
        matches: of these pictures.
        resamples: number of halves, of which MOST_HALVES are drawn.
        seed: of the halves.
    """
    halves = min(resamples, MOST_HALVES)

    def compare(inside: Bools, pictures_alone: bool, level: float) -> tuple[Estimate, Estimate]:
        classes = [own for own in matches.classes if own.ground_truth_counts[inside].any()]
        own_units = np.arange(len(inside)) if pictures_alone else matches.units
        own, rest = (
            _ap50([_of_pictures(one, chosen) for one in classes], units[chosen], halves, seed, level)
            for chosen, units in ((inside, own_units), (~inside, matches.units))
        )
        return own, rest

    return compare_slices(slicings, compare)


def _ap50(classes: Sequence[ClassMatches], units: Ints, halves: int, seed: int, level: float) -> Estimate:
    support = make_support([own.ground_truth_counts for own in classes], units)
    if support is None:
        return Estimate(None, absent="no box")
    rows, width = AP_ROWS[NAME], max(len(own.score) for own in classes)
    value, samples = (
        np.concatenate([mean_ap(np.stack([average_precision(own, part, rows) for own in classes])) for part in weights])
        for weights in ([np.ones((1, len(units)))], half_samples(units, halves, seed, width))
    )
    return half_sample_interval(float(value[0]), samples, support, level)


def _of_pictures(matches: ClassMatches, chosen: Bools) -> ClassMatches:
    """The matches in some of the pictures."""
    kept = chosen[matches.image_index]
    return replace(
        matches,
        image_index=(np.cumsum(chosen) - 1)[matches.image_index[kept]],
        detection_index=matches.detection_index[kept],
        score=matches.score[kept],
        matched=matches.matched[:, kept],
        ignored=matches.ignored[:, kept],
        annotation_id=matches.annotation_id[kept],
        ground_truth_counts=matches.ground_truth_counts[chosen],
    )
