"""Whether NMS also drops boxes of other labels: as `model.class_agnostic_nms` says, or chosen on the validation set.

Across labels it can only be right where objects of different labels exclude each other. It is chosen by the F1 at the
threshold: average precision hardly falls where one object gets several labels, as long as the right one scores higher.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from headstart.base.detections import Detection
from headstart.base.manifest import Manifest
from headstart.evaluation.report_tables import format_percent
from headstart.metrics.coco_matching import match_detections
from headstart.metrics.estimate import rounded
from headstart.metrics.label_overlap import overlapping_share
from headstart.metrics.threshold import choose_threshold

MAX_OVERLAPPING_SHARE = 0.01  # of the annotated boxes that may overlap one of another label


@dataclass(frozen=True)
class Suppression:
    """Within labels or across them, and on what grounds.

    Attributes:
        across_labels: whether the lower-scoring of two boxes of different labels is dropped.
        param: `model.class_agnostic_nms`.
        overlapping_share: of the annotated boxes; None where it had no say.
        f1_within: highest F1 on the validation set with NMS within labels; None where it was not compared.
        f1_across: the same across labels.
    """

    across_labels: bool
    param: bool | Literal["auto"] = "auto"
    overlapping_share: float | None = None
    f1_within: float | None = None
    f1_across: float | None = None

    def to_json(self) -> dict[str, object]:
        """Its part of metrics.json."""
        return {
            "used": self.across_labels,
            "param": self.param,
            **rounded(
                {
                    "overlapping_share": self.overlapping_share,
                    "val_f1_within_labels": self.f1_within,
                    "val_f1_across_labels": self.f1_across,
                }
            ),
        }

    def sentence(self) -> str:
        """For the report; empty where there is one label."""
        rule = (
            "Of two boxes that overlap, the lower-scoring one is dropped whatever their labels"
            if self.across_labels
            else "Of two boxes that overlap, the lower-scoring one is dropped only if they have one label"
        )
        if self.param != "auto":
            return f"{rule}: model.class_agnostic_nms is {str(self.param).lower()}."
        if self.overlapping_share is None:
            return ""
        overlap = f"{format_percent(self.overlapping_share)} of the annotated boxes overlap one of another label"
        if self.f1_within is None or self.f1_across is None:
            return f"{rule}: {overlap}."
        return (
            f"{rule}: {overlap}, and the F1 on the validation set is {format_percent(self.f1_across)} across labels, "
            f"{format_percent(self.f1_within)} within."
        )


def overlap_of_labels(param: bool | Literal["auto"], splits: Sequence[Manifest], iou: float) -> float | None:
    """The share of the annotated boxes that overlap one of another label; None where the param decides, or one label.

    Args:
        param: `model.class_agnostic_nms`.
        splits: train and val.
        iou: limit of the model's NMS.
    """
    if param != "auto" or len(splits[0].categories) < 2:
        return None
    return overlapping_share(splits, iou)


def candidate_settings(param: bool | Literal["auto"], overlap: float | None) -> tuple[bool, ...]:
    """The settings of `across_labels` that the validation set has to be tried with; one: there is nothing to choose."""
    if param != "auto":
        return (param,)
    return (False, True) if overlap is not None and overlap <= MAX_OVERLAPPING_SHARE else (False,)


def choose_suppression(
    param: bool | Literal["auto"], overlap: float | None, val: Manifest, detections: Mapping[bool, Sequence[Detection]]
) -> Suppression:
    """Across labels where that does not lower the highest F1 on the validation set.

    Args:
        param: `model.class_agnostic_nms`.
        overlap: as `overlap_of_labels` returns it.
        val: the validation pictures.
        detections: in them, by each of the `candidate_settings`.
    """
    if len(detections) == 1:
        return Suppression(next(iter(detections)), param, overlap)
    within, across = (choose_threshold(match_detections(val, detections[setting]).classes) for setting in (False, True))
    is_better = within.f1 is not None and across.f1 is not None and across.f1 >= within.f1
    return Suppression(is_better, param, overlap, within.f1, across.f1)
