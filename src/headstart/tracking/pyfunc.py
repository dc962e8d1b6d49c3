"""The exported model as an MLflow python_function: pictures in, labels with probabilities or boxes out.

A logged model holds this file and the modules it imports (`registry.BUNDLED_MODULES`) beside ONNX and JSON. MLflow
imports it by name; nothing is unpickled, and neither headstart nor torch need be installed where it is served.
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headstart.engine.input_spec import InputSpec
from headstart.export.model_prediction import ModelPrediction
from headstart.export.predictor import Predictor, PreprocessedImage, preprocess
from headstart.images.decode import MAX_BYTES, PictureError

_PATH_MAX = 4096  # bytes, with the terminating 0; anything longer can only be base64


class PyfuncPredictor:
    """An exported model's folder as an MLflow python_function."""

    def __init__(self, folder: Path) -> None:
        self._model = Predictor(folder)

    def predict(self, pictures: Any, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """One prediction a picture.

        Args:
            pictures: a data frame whose column `image` holds a picture file's bytes, the same in base64 (also as a
                data URI), or the path of a file on the machine that serves the model.
            params: unused.

        Returns:
            of a classifier `label`, the most probable one, its `probability`, `probabilities` of all labels, `answer`
            in words (the label, `cat or dog`, or `none of these`), `labels_in_set`, `unknown` and, unless the model is
            an older one, `strangeness`; of a detector `boxes`, those whose score reaches its threshold, each with
            `label`, `score` and `box`: xmin, ymin, xmax, ymax in pixels of the upright picture.

        Raises:
            ValueError: a picture cannot be decoded; the message has its number, from 0.
        """
        images = []
        for number, picture in enumerate(pictures["image"]):
            try:
                images.append(_preprocess_picture(picture, self._model.input))
            except PictureError as error:  # `from None`: MLflow's server sends the whole traceback to the client
                raise ValueError(f"picture {number}: {error}") from None
        return [
            _output_row(prediction)
            for image in images
            for prediction in self._model.predict_images([image], self._model.threshold or 0.0)
        ]


def _load_pyfunc(data_path: str) -> PyfuncPredictor:
    """MLflow's entry point of a `loader_module`."""
    return PyfuncPredictor(Path(data_path))


def _preprocess_picture(picture: object, input_spec: InputSpec) -> PreprocessedImage:
    """Decode and resize. Of a file on this machine the error has only its kind, and no part of the file's content."""
    data = _read_file(picture) if isinstance(picture, str) else None
    if data is None:
        return preprocess(_decode_picture(picture), input_spec)
    try:
        return preprocess(data, input_spec)
    except PictureError as error:
        raise PictureError(error.kind, f"{picture}: {error.kind.replace('_', ' ')}") from None


def _read_file(name: str) -> bytes | None:
    """A file's bytes; None: no file has that name, or it cannot be read."""
    if len(name) >= _PATH_MAX or "\0" in name:
        return None
    try:
        path = Path(name)
        if not path.is_file():
            return None
        if path.stat().st_size > MAX_BYTES:
            raise PictureError("too_large", f"{name}: more than {MAX_BYTES:,} bytes")
        return path.read_bytes()
    except OSError:  # base64 may be too long for a file name
        return None


def _decode_picture(picture: object) -> bytes:
    """The bytes of a picture file, given as bytes or in base64."""
    if isinstance(picture, bytes | bytearray | memoryview):
        return bytes(picture)
    if not isinstance(picture, str):
        raise PictureError("not_a_picture", f"expected bytes, base64 or a path, not {type(picture).__name__}")
    text = picture.partition(",")[2] if picture.startswith("data:") else picture
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        message = f"neither base64 nor a file that can be read: {picture[:60]!r}"
        raise PictureError("not_a_picture", message) from None


def _output_row(prediction: ModelPrediction) -> dict[str, Any]:
    if prediction.boxes is not None:
        return {"boxes": [box.to_json() for box in prediction.boxes]}
    label, probabilities = prediction.label, prediction.probabilities
    row = {
        "label": label,
        "probability": probabilities[label],
        "probabilities": probabilities,
        "answer": prediction.answer,
        "labels_in_set": list(prediction.labels_in_set),
        "unknown": prediction.unknown,
    }
    return row if prediction.strangeness is None else {**row, "strangeness": prediction.strangeness}
