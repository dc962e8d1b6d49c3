"""Matches of detections and boxes, where pictures hold more of them than COCO counts."""

import pytest

from headstart.metrics.coco_matching import match_detections
from synthetic_boxes import make_detections, manifest


def test_the_hundred_highest_scores_of_a_label_count() -> None:
    cells = [("cell", (n % 20 * 10.0, n // 20 * 10.0, 8.0, 8.0)) for n in range(160)]
    truth = manifest([cells], ("cell",))
    detections = make_detections(
        *((1, name, box, 1 - n / 1000) for n, (name, box) in enumerate(cells)), names=("cell",)
    )
    matches = match_detections(truth, detections)
    assert matches.stats[8] == pytest.approx(100 / 160)
    assert matches.classes[0].score.min() == pytest.approx(0.901)
