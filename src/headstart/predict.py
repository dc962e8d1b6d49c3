"""Pictures -> labels and probabilities, by the exported model. onnxruntime only: torch is not imported."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headstart.door import MAX_PIXELS, PictureError, upright
from headstart.errors import UserError, missing_file
from headstart.files import read_json
from headstart.pixels import Input, Pixels, fit

Floats = npt.NDArray[np.float32]

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


@dataclass(frozen=True)
class Prediction:
    """What the model says of one picture: probabilities in the order of the labels; or why it could not be read."""

    path: Path
    probabilities: dict[str, float]
    error: str = ""

    @property
    def label(self) -> str:
        """The most probable label."""
        return max(self.probabilities, key=lambda label: self.probabilities[label]) if self.probabilities else ""


@dataclass(frozen=True)
class Seen:
    """A picture as the network sees it, (size, size, 3), and the size of the upright original."""

    pixels: Pixels
    width: int
    height: int


def look(data: bytes, wanted: Input, max_pixels: int = MAX_PIXELS) -> Seen:
    """A picture file's bytes, through the door and in the network's size.

    Raises:
        PictureError: the bytes are no picture, not a whole one, or it has more than `max_pixels`.
    """
    with upright(data, max_pixels) as picture:
        width, height = picture.size
        return Seen(fit(picture, wanted), width, height)


def find(paths: Sequence[Path]) -> list[Path]:
    """The files named, and all pictures in the folders named, sorted.

    Raises:
        UserError: a path does not exist, or a folder holds no picture.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise missing_file(path, "name pictures or folders of pictures")
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise UserError(f"{path}: no picture in this folder (looked for {' '.join(sorted(SUFFIXES))})")
        found += inside
    return found


class Model:
    """The exported model: pixels in, probabilities out."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime

        if not (folder / "model.onnx").is_file() or not (folder / "labels.json").is_file():
            raise missing_file(folder / "model.onnx", "make it: dvc repro")
        about = read_json(folder / "labels.json")
        self.labels: list[str] = about["labels"]
        self.input = Input.model_validate(about["input"])
        options = onnxruntime.SessionOptions()
        # Threads that spin while they wait take the cores from those that decode the next picture.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])

    def probabilities(self, pixels: Pixels) -> Floats:
        """Calibrated probabilities (n, labels) of pixels (n, size, size, 3)."""
        return self._run("probabilities", pixels)

    def logits(self, pixels: Pixels) -> Floats:
        """Raw logits (n, labels) of pixels (n, size, size, 3)."""
        return self._run("logits", pixels)

    def _run(self, output: str, pixels: Pixels) -> Floats:
        (found,) = self._session.run([output], {"pixels": pixels})
        array: Floats = found
        return array

    def predict(self, paths: Sequence[Path]) -> Iterator[Prediction]:
        """One prediction a picture, in order; a picture that cannot be read carries its reason."""
        for path in paths:
            try:
                seen = look(path.read_bytes(), self.input)
            except (PictureError, OSError) as error:
                yield Prediction(path, {}, str(error))
                continue
            row = self.probabilities(seen.pixels[None])[0]
            yield Prediction(path, dict(zip(self.labels, map(float, row), strict=True)))
