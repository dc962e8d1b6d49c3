"""A simulated detector on simulated pictures: the matches of its boxes, drawn at once, for `coverage_detection.py`.

A picture holds one box and Poisson(1) more, and is easy or hard as a whole. Every box has a margin: the detector's
skill, the picture's ease and its own luck. The margin decides whether it is seen at all, its score, and with more luck
its IoU. Some boxes are detected a second time or, of several labels, as another one, and some detections have nothing
under them. A unit of several pictures is one scene, of which each picture shows most of the same (0.85 of the variance
of every draw): the boxes are as many, and most are found or missed together.
"""

from dataclasses import dataclass

import numpy as np

from headstart.base.arrays import Bools, Floats, Ints
from headstart.metrics.average_precision import AP_ROWS, average_precision
from headstart.metrics.coco_matching import IOU_THRESHOLDS, SIZES, ClassMatches, DetectionMatches
from headstart.metrics.detection_figures import COCO_STATS

SHARES = {1: (1.0,), 3: (0.5, 0.3, 0.2)}  # of the boxes, by label
_ALIKE = 0.85  # share of a draw's variance that all pictures of a unit have in common
_SAME_LUCK = 0.8  # the same of two detectors of one picture


@dataclass(frozen=True)
class SimulatedDetector:
    """Detectors of the same architecture: `skills` are of one, or of two that are compared on the same pictures."""

    skills: tuple[float, ...]
    labels: int = 1
    unit: int = 1  # pictures in a unit

    def draw(self, rng: np.random.Generator, pictures: int) -> list[DetectionMatches]:
        """The matches of each detector in new pictures, which all together have boxes of every label."""
        while True:
            scene = _Scene(rng, pictures, self)
            if all(own.any() for own in scene.ground_truths):
                return [scene.matches(skill) for skill in self.skills]


class _Scene:
    """The pictures and boxes that all detectors see."""

    def __init__(self, rng: np.random.Generator, pictures: int, of: SimulatedDetector) -> None:
        self.rng, self.pictures, self.of = rng, pictures, of
        scenes = -(-pictures // of.unit)
        self.ease = rng.normal(0, 1, scenes)
        self.clutter = rng.normal(0, 1, scenes)
        self.box_scene, self.box, self.picture = self._in_pictures(1 + rng.poisson(1.0, scenes))
        self.label = rng.choice(of.labels, len(self.box_scene), p=SHARES[of.labels])[self.box]
        self.luck = self._normal(self.box)
        self.ground_truths = [np.bincount(self.picture[self.label == k], minlength=pictures) for k in range(of.labels)]

    def _in_pictures(self, counts: Ints) -> tuple[Ints, Ints, Ints]:
        """Things of each scene -> the scene of each; each with its picture, once for every picture of the unit."""
        scene = np.repeat(np.arange(len(counts)), counts)
        thing = np.tile(np.arange(len(scene)), self.of.unit)
        picture = np.repeat(np.arange(self.of.unit), len(scene)) + scene[thing] * self.of.unit
        return scene, thing[picture < self.pictures], picture[picture < self.pictures]

    def _normal(self, thing: Ints) -> Floats:
        common = self.rng.normal(0, 1, int(thing.max(initial=-1)) + 1)[thing]
        if self.of.unit == 1:
            return common
        return np.asarray(np.sqrt(_ALIKE) * common + np.sqrt(1 - _ALIKE) * self.rng.normal(0, 1, len(thing)))

    def matches(self, skill: float) -> DetectionMatches:
        """What a detector of this skill finds."""
        rng, labels, box = self.rng, self.of.labels, self.box
        luck = np.sqrt(_SAME_LUCK) * self.luck + np.sqrt(1 - _SAME_LUCK) * self._normal(box)
        margin = skill + 0.8 * self.ease[self.box_scene][box] + luck
        iou = _sigmoid(1.0 + 0.35 * skill + 0.4 * margin + 0.7 * self._normal(box))
        score = _sigmoid(margin + 0.7 * self._normal(box))
        seen = margin > -1.0
        confused = (rng.random(len(self.box_scene)) < _sigmoid(-3 - 0.5 * skill))[box] & (labels > 1)
        twice = (rng.random(len(self.box_scene)) < 0.08)[box] & seen
        label = np.where(confused, (self.label + 1) % labels, self.label)
        scene, thing, picture = self._in_pictures(rng.poisson(np.exp(0.6 * self.clutter - 0.3 * skill)))
        false_label = rng.choice(labels, len(scene), p=SHARES[labels])[thing]
        everywhere = np.concatenate([self.picture[seen], self.picture[twice], picture])
        labelled = np.concatenate([label[seen], label[twice], false_label])
        scores = np.concatenate([score[seen], 0.7 * score[twice], _sigmoid(-1.0 + 1.2 * self._normal(thing))])
        ious = np.concatenate([np.where(confused, 0, iou)[seen], np.zeros(twice.sum() + len(picture))])
        return self._pack([_class_matches(everywhere, scores, ious, labelled == k, self, k) for k in range(labels)])

    def _pack(self, classes: list[ClassMatches]) -> DetectionMatches:
        units = np.arange(self.pictures) // self.of.unit
        every = np.ones((1, self.pictures))
        by_class = np.stack([average_precision(own, every)[:, 0] for own in classes], axis=1)
        precision = np.repeat(by_class[:, None], 101, axis=1)  # its means are what is read of it
        stats = np.full(len(COCO_STATS), -1.0)
        stats[:3] = [by_class[rows].mean() for rows in AP_ROWS.values()]
        stats[-1] = np.mean([own.matched.sum() / len(own.matched) / own.ground_truth_counts.sum() for own in classes])
        sizes = {size: tuple(classes) for size in SIZES}
        return DetectionMatches(tuple(classes), stats, precision, units, sizes)


def _class_matches(
    picture: Ints, score: Floats, iou: Floats, chosen: Bools, scene: _Scene, number: int
) -> ClassMatches:
    order = np.flatnonzero(chosen)[np.argsort(-score[chosen], kind="stable")]
    matched = iou[order] >= np.array(IOU_THRESHOLDS)[:, None]
    nothing = np.zeros(len(order), np.int64)
    counts = scene.ground_truths[number]
    return ClassMatches(picture[order], nothing, score[order], matched, np.zeros_like(matched), nothing, counts)


def _sigmoid(x: Floats | float) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.asarray(x))))
