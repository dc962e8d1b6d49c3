"""The server without a trained model: a fake detector and its ModelInfo, and pictures as a multipart upload."""

from collections.abc import Sequence

import numpy as np

from headstart.export.predictor import PreprocessedImage
from headstart.images.decode import validate_picture
from headstart.serve.schema import MetricEstimate, ModelInfo, ModelOutput, ScoredBox
from pictures import encoded, picture

MODEL_INFO = ModelInfo(
    task="detect",
    labels=["cat", "dog"],
    input={"size": 32},
    metrics=[MetricEstimate(name="AP at IoU 0.5", value=0.81, low=0.7, high=0.9)],
    pictures=40,
    threshold=0.3,
)
PNG = encoded(picture())


class FakeDetector:
    """Always the same boxes relative to the picture: a dog in the left half, a cat in a corner, an improbable dog."""

    def preprocess(self, data: bytes, max_pixels: int) -> PreprocessedImage:
        valid = validate_picture(data, max_pixels=max_pixels)
        return PreprocessedImage(np.zeros((1, 1, 1, 3), np.uint8), valid.width, valid.height)

    def predict_batch(self, images: Sequence[PreprocessedImage]) -> list[ModelOutput]:
        return [ModelOutput(boxes=self.boxes(image.width, image.height)) for image in images]

    @staticmethod
    def boxes(width: int, height: int) -> list[ScoredBox]:
        return [
            ScoredBox(label="dog", score=0.9, box=(0, 0, width / 2, height)),
            ScoredBox(label="cat", score=0.6, box=(width * 0.75, height * 0.5, width, height)),
            ScoredBox(label="dog", score=0.1, box=(0, 0, width, height)),
        ]


def upload(*pictures: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    """The `files` argument of a POST to /predict; the names are 0.png, 1.png ..."""
    return [("files", (f"{number}.png", data)) for number, data in enumerate(pictures)]
