"""Pictures -> labels and probabilities, or boxes, by the exported model. onnxruntime only: torch is not imported."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from headstart.door import MAX_PIXELS, PictureError, admit, upright
from headstart.draw import Corners, Mark, draw
from headstart.errors import UserError, missing_file
from headstart.files import read_json, write_bytes
from headstart.pixels import Input, Pixels, fit, from_input

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


@dataclass(frozen=True)
class Seen:
    """A box that a detector found: corners in pixels of the upright picture, and its confidence."""

    label: str
    score: float
    corners: Corners


class Boxes(NamedTuple):
    """What a detector gives: corners (n, k, 4) in pixels of the input, scores (n, k), falling, labels (n, k).

    A score of 0 is no box.
    """

    boxes: Floats
    scores: Floats
    labels: Ints


class Odds(NamedTuple):
    """What a classifier gives, (n, labels): raw logits, and calibrated probabilities."""

    logits: Floats
    probabilities: Floats


class Said(NamedTuple):
    """What the model says of one picture.

    Of a classifier probabilities in the order of the labels, and `boxes` is None; of a detector boxes, the surest
    first, and no probabilities.
    """

    probabilities: dict[str, float]
    boxes: tuple[Seen, ...] | None = None


@dataclass(frozen=True)
class Prediction:
    """What the model says of one picture file (as in `Said`), or why it could not be read."""

    path: Path
    probabilities: dict[str, float]
    error: str = ""
    boxes: tuple[Seen, ...] | None = None

    @property
    def label(self) -> str:
        """The most probable label."""
        return max(self.probabilities, key=lambda label: self.probabilities[label]) if self.probabilities else ""


@dataclass(frozen=True)
class Look:
    """A picture as the network sees it, (size, size, 3), and the size of the upright original."""

    pixels: Pixels
    width: int
    height: int


def look(data: bytes, wanted: Input, max_pixels: int = MAX_PIXELS) -> Look:
    """A picture file's bytes, through the door and in the network's size.

    Raises:
        PictureError: the bytes are no picture, not a whole one, or it has more than `max_pixels`.
    """
    with upright(data, max_pixels) as picture:
        width, height = picture.size
        return Look(fit(picture, wanted), width, height)


def as_row(found: Prediction) -> dict[str, Any]:
    """A prediction for programs."""
    row: dict[str, Any] = {"image": str(found.path)}
    if found.boxes is None:
        return row | {"label": found.label, "probabilities": found.probabilities, "error": found.error}
    boxes = [{"label": box.label, "score": box.score, "box": list(box.corners)} for box in found.boxes]
    return row | {"boxes": boxes, "error": found.error}


def as_words(found: Prediction) -> str:
    """A prediction for people."""
    if found.error:
        return f"not read: {found.error}"
    if found.boxes is None:
        return f"{found.label} {found.probabilities[found.label]:.3f}"
    boxes = (f"{box.label} {box.score:.3f} at {', '.join(f'{c:.0f}' for c in box.corners)}" for box in found.boxes)
    return "; ".join(boxes) or "nothing found"


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
    """The exported model: pixels in, probabilities or boxes out.

    Attributes:
        labels: their names.
        input: what a picture must become.
        threshold: confidence from which a detector's box is believed; None: the model is a classifier.
    """

    def __init__(self, folder: Path) -> None:
        import onnxruntime

        if not (folder / "model.onnx").is_file() or not (folder / "labels.json").is_file():
            raise missing_file(folder / "model.onnx", "make it: dvc repro")
        about = read_json(folder / "labels.json")
        self.labels: list[str] = about["labels"]
        self.input = Input.model_validate(about["input"])
        self.threshold: float | None = about.get("threshold")
        options = onnxruntime.SessionOptions()
        # Threads that spin while they wait take the cores from those that decode the next picture.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])

    def odds(self, pixels: Pixels) -> Odds:
        """A classifier's answer to pixels (n, size, size, 3)."""
        return Odds(*self._run(Odds._fields, pixels))

    def boxes(self, pixels: Pixels) -> Boxes:
        """A detector's answer to pixels (n, size, size, 3)."""
        return Boxes(*self._run(Boxes._fields, pixels))

    def answer(self, pixels: Pixels) -> Odds | Boxes:
        """The answer of either kind, in one pass."""
        return self.odds(pixels) if self.threshold is None else self.boxes(pixels)

    def _run(self, outputs: Sequence[str], pixels: Pixels) -> list[npt.NDArray[Any]]:
        found: list[npt.NDArray[Any]] = self._session.run(list(outputs), {"pixels": pixels})
        return found

    def predict(self, paths: Sequence[Path]) -> Iterator[Prediction]:
        """One prediction a picture, in order; a picture that cannot be read carries its reason."""
        for path in paths:
            try:
                seen = look(path.read_bytes(), self.input)
            except (PictureError, OSError) as error:
                yield Prediction(path, {}, str(error), None if self.threshold is None else ())
                continue
            (said,) = self.say([seen], self.threshold or 0.0)
            yield Prediction(path, said.probabilities, boxes=said.boxes)

    def say(self, seen: Sequence[Look], least: float = 0.0) -> list[Said]:
        """What the model says of pictures, in one pass; of boxes those whose score is at least `least`, and above 0."""
        return self.said(self.answer(np.stack([one.pixels for one in seen])), seen, least)

    def said(self, found: Odds | Boxes, seen: Sequence[Look], least: float = 0.0) -> list[Said]:
        """An answer in words, one a picture; `least` as in `say`."""
        if isinstance(found, Odds):
            return [Said(dict(zip(self.labels, map(float, row), strict=True))) for row in found.probabilities]
        return [Said({}, self._seen(Boxes(*some), one, least)) for one, *some in zip(seen, *found, strict=True)]

    def _seen(self, found: Boxes, look: Look, least: float) -> tuple[Seen, ...]:
        """Of one picture's boxes those that are sure enough, in pixels of the upright original; none without area."""
        kept = (found.scores >= least) & (found.scores > 0)
        corners = from_input(found.boxes[kept], look.width, look.height, self.input).tolist()
        rows = zip(corners, found.scores[kept].tolist(), found.labels[kept].tolist(), strict=True)
        return tuple(
            Seen(self.labels[label], score, (x1, y1, x2, y2))
            for (x1, y1, x2, y2), score, label in rows
            if x2 > x1 and y2 > y1
        )


def draw_boxes(predictions: Sequence[Prediction], out: Path) -> list[Path]:
    """Write each picture with its boxes to the folder `out`, as JPEG under the picture's name; the files written.

    A picture that could not be read is left out. Of two pictures of one name the second gets a number.

    Raises:
        UserError: the model is no detector, or `out` is a file.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--draw {out}: a file of that name is there; name a folder")
    written: list[Path] = []
    for one in predictions:
        if one.error:
            continue
        if one.boxes is None:
            raise UserError("--draw: the model is a classifier and finds no boxes; leave --draw out")
        with Pillow.open(io.BytesIO(admit(one.path.read_bytes()).data)) as picture:
            drawn = draw(picture, [Mark(box.corners, f"{box.label} {box.score:.2f}") for box in one.boxes])
        buffer = io.BytesIO()
        drawn.save(buffer, "JPEG", quality=92)
        same = sum(path.stem.rpartition("~")[0] == one.path.stem or path.stem == one.path.stem for path in written)
        written.append(out / (f"{one.path.stem}~{same + 1}.jpg" if same else f"{one.path.stem}.jpg"))
        write_bytes(written[-1], buffer.getvalue())
    return written
