"""The exported model as MLflow serves it: pictures in, labels with probabilities or boxes out.

A logged model holds this file and the modules it imports (`registry.CODE`) beside ONNX and JSON. MLflow imports it by
name; nothing is unpickled, and neither headstart nor torch need be installed where it is served.
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headstart.door import MAX_BYTES, PictureError
from headstart.pixels import Input
from headstart.predict import Look, Model, Said, look

_PATH_MAX = 4096  # bytes, the ending 0 included; what is longer can only be base64


class Servable:
    """A model's folder as an MLflow python_function."""

    def __init__(self, folder: Path) -> None:
        self._model = Model(folder)

    def predict(self, pictures: Any, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """One answer a picture.

        Args:
            pictures: a data frame whose column `image` holds a picture file's bytes, the same in base64 (also as a
                data URI), or the path of a file on the machine that answers.
            params: none are known.

        Returns:
            of a classifier `label`, its `probability`, and `probabilities` of all labels; of a detector `boxes`, those
            that reach its threshold, each with `label`, `score` and `box`: left, top, right, bottom in pixels.

        Raises:
            ValueError: one of them is no picture; it is counted from 0.
        """
        seen = []
        for number, picture in enumerate(pictures["image"]):
            try:
                seen.append(_look(picture, self._model.input))
            except PictureError as error:  # `from None`: MLflow's server sends the whole traceback to who asked
                raise ValueError(f"picture {number}: {error}") from None
        return [_row(said) for one in seen for said in self._model.say([one], self._model.threshold or 0.0)]


def _load_pyfunc(data_path: str) -> Servable:
    """What MLflow calls."""
    return Servable(Path(data_path))


def _look(picture: object, wanted: Input) -> Look:
    """Of a file on this machine an error says what kind it is, and nothing of what stands in the file."""
    data = _file(picture) if isinstance(picture, str) else None
    if data is None:
        return look(_bytes(picture), wanted)
    try:
        return look(data, wanted)
    except PictureError as error:
        raise PictureError(error.kind, f"{picture}: {error.kind.replace('_', ' ')}") from None


def _file(name: str) -> bytes | None:
    """A file's bytes; None: there is none of that name, or it cannot be read."""
    if len(name) >= _PATH_MAX or "\0" in name:
        return None
    try:
        path = Path(name)
        if not path.is_file():
            return None
        if path.stat().st_size > MAX_BYTES:
            raise PictureError("too_large", f"{name}: more than {MAX_BYTES:,} bytes")
        return path.read_bytes()
    except OSError:  # base64 may make a name that is too long
        return None


def _bytes(picture: object) -> bytes:
    if isinstance(picture, bytes | bytearray | memoryview):
        return bytes(picture)
    if not isinstance(picture, str):
        raise PictureError("not_a_picture", f"bytes, base64 or a path are wanted, not {type(picture).__name__}")
    text = picture.partition(",")[2] if picture.startswith("data:") else picture
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        said = f"neither base64 nor a file that can be read: {picture[:60]!r}"
        raise PictureError("not_a_picture", said) from None


def _row(said: Said) -> dict[str, Any]:
    if said.boxes is not None:
        return {"boxes": [{"label": b.label, "score": b.score, "box": list(b.corners)} for b in said.boxes]}
    label = max(said.probabilities, key=said.probabilities.__getitem__)
    return {"label": label, "probability": said.probabilities[label], "probabilities": said.probabilities}
