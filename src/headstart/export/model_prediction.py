"""What the exported model says of one picture: probabilities and the answer in words, or boxes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.export.answer_text import answer_text


@dataclass(frozen=True)
class DetectedBox:
    """A detected box: xmin, ymin, xmax, ymax in pixels of the upright picture, and its confidence."""

    label: str
    score: float
    corners: tuple[float, float, float, float]

    def to_json(self) -> dict[str, Any]:
        """Its fields, for JSON."""
        return {"label": self.label, "score": self.score, "box": list(self.corners)}


@dataclass(frozen=True)
class ModelPrediction:
    """The prediction for one picture.

    Attributes:
        probabilities: by label, in the labels' order; empty for a detector.
        boxes: the highest-scoring first; None for a classifier.
        strangeness: distance from the training pictures; None: the model does not give it.
        unknown: the picture is none of the labels.
        labels_in_set: labels that the picture may have, the most probable one first; empty for a detector.
    """

    probabilities: dict[str, float]
    boxes: tuple[DetectedBox, ...] | None = None
    strangeness: float | None = None
    unknown: bool = False
    labels_in_set: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The most probable label; empty where there are no probabilities."""
        return max(self.probabilities, key=self.probabilities.__getitem__, default="")

    @property
    def answer(self) -> str:
        """The label, `cat or dog` or `none of these`; empty where there are no probabilities."""
        return answer_text(self.labels_in_set, self.unknown) if self.probabilities else ""


@dataclass(frozen=True, kw_only=True)
class FilePrediction(ModelPrediction):
    """The prediction for a picture file, or the reason why it could not be read."""

    path: Path
    error: str = ""
