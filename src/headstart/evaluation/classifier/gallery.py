"""The most confident mistakes as thumbnails: errors of the model and wrong labels are found by eye."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart.base.manifest import Image
from headstart.evaluation.gallery import Gallery, GalleryItem, by_confidence, slug
from headstart.images.thumbnail import make_thumbnail
from headstart.metrics.calibration import ClassifierPredictions


@dataclass(frozen=True)
class Mistake:
    """A wrong prediction for a test picture, its calibrated probability, and a thumbnail as JPEG."""

    image: Image
    predicted: str
    confidence: float
    jpeg: bytes


def find_mistakes(
    root: Path, images: Sequence[Image], labels: Sequence[str], predictions: ClassifierPredictions, max_items: int
) -> list[Mistake]:
    """The wrong predictions with the highest confidence, the most confident first.

    Args:
        root: folder to which the pictures' file names are relative.
        images: the test pictures, in the order of `predictions`.
        labels: names of the classes.
        predictions: of one model.
        max_items: number of mistakes at most.

    Raises:
        UserError: a picture file is missing.
    """
    confidence = predictions.calibrated.max(axis=1)
    wrong: list[int] = np.flatnonzero(predictions.correct == 0).tolist()
    ranked = sorted(wrong, key=lambda i: by_confidence(images[i], confidence[i]))[:max_items]
    return [
        Mistake(
            image=images[i],
            predicted=labels[predictions.predicted[i]],
            confidence=float(confidence[i]),
            jpeg=make_thumbnail(root / images[i].file_name),
        )
        for i in ranked
    ]


def mistake_gallery(mistakes: Sequence[Mistake]) -> Gallery:
    """Thumbnails named by actual and predicted label and confidence, and mistakes.csv."""
    items = [
        GalleryItem(
            f"{slug(f'{mistake.image.label} called {mistake.predicted}')}-{mistake.confidence:.3f}",
            mistake.jpeg,
            (mistake.image.file_name, mistake.image.label, mistake.predicted, round(mistake.confidence, 6)),
        )
        for mistake in mistakes
    ]
    return Gallery("mistakes.csv", ("file_name", "label", "predicted", "confidence"), items)
