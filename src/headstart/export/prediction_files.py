"""`headstart predict`: which picture files, and their predictions as text, JSON, or pictures with boxes drawn."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headstart.base.errors import UserError, first_line, missing_file
from headstart.export.answer_text import MAX_NAMED
from headstart.export.model_prediction import FilePrediction, ModelPrediction
from headstart.export.predictor import read_picture
from headstart.images.decode import PictureError, open_upright
from headstart.images.draw_boxes import DrawnBox, draw_boxes
from headstart.images.picture_files import PICTURE_SUFFIXES, list_pictures
from headstart.images.thumbnail import encode_jpeg

JPEG_QUALITY = 92


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The given files, and all pictures in the given folders (those that fetch would read), sorted.

    Raises:
        UserError: a path does not exist or cannot be read, or a folder holds no picture.
    """
    images: list[Path] = []
    for path in paths:
        try:
            path.stat()
        except FileNotFoundError:
            raise missing_file(path, "name pictures or folders of pictures") from None
        except OSError as error:
            raise UserError(
                f"{path}: cannot be read ({error.strerror}); name pictures or folders of pictures"
            ) from None
        inside = list_pictures(path) if path.is_dir() else [path]
        if not inside:
            suffixes = " ".join(sorted(PICTURE_SUFFIXES))
            raise UserError(f"{path}: no picture in this folder (looked for {suffixes}, hidden files aside)")
        images += inside
    return images


def to_json_row(prediction: FilePrediction) -> dict[str, Any]:
    """A prediction for programs."""
    row: dict[str, Any] = {"image": printable_path(prediction.path)}
    if prediction.boxes is None:
        row |= classification_row(prediction)
    else:
        row["boxes"] = [box.to_json() for box in prediction.boxes]
    return row | {"error": prediction.error}


def classification_row(prediction: ModelPrediction) -> dict[str, Any]:
    """A classifier's answer for programs: `label` is the most probable one, `answer` what is to be said."""
    return {
        "label": prediction.label,
        "probabilities": prediction.probabilities,
        "answer": prediction.answer,
        "labels_in_set": list(prediction.labels_in_set),
        "unknown": prediction.unknown,
        "strangeness": prediction.strangeness,
    }


def printable_path(path: Path) -> str:
    """A path as text: bytes of a name that are not UTF-8 are escaped."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def to_text(prediction: FilePrediction) -> str:
    """A prediction for people."""
    if prediction.error:
        return f"not read: {prediction.error}"
    if prediction.boxes is None:
        return _classification_text(prediction)
    boxes = (
        f"{box.label} {box.score:.3f} at {', '.join(f'{value:.0f}' for value in box.corners)}"
        for box in prediction.boxes
    )
    return "; ".join(boxes) or "no detections"


def _classification_text(prediction: FilePrediction) -> str:
    """`cat 0.990`, `cat or dog (cat 0.550, dog 0.440)` or `none of these (nearest: cat 0.610)`."""

    def scored(label: str) -> str:
        return f"{label} {prediction.probabilities[label]:.3f}"

    if prediction.unknown:
        return f"{prediction.answer} (nearest: {scored(prediction.label)})"
    labels = prediction.labels_in_set
    if len(labels) == 1:
        return scored(labels[0])
    more = ", …" if len(labels) > MAX_NAMED else ""
    return f"{prediction.answer} ({', '.join(map(scored, labels[:MAX_NAMED]))}{more})"


def save_images_with_boxes(predictions: Sequence[FilePrediction], out: Path) -> list[Path]:
    """Write each picture with its boxes to the folder `out`, as JPEG under the picture's name; the files written.

    A picture that could not be read is left out. No file is replaced: where one of that name is there (another
    picture's, an input, a link to one, or an earlier result) the new one gets a number.

    Raises:
        UserError: the model is not a detector, `out` is a file, or a picture was changed since its prediction.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--draw {out}: a file of that name is there; name a folder")
    written: list[Path] = []
    for prediction in predictions:
        if prediction.error:
            continue
        if prediction.boxes is None:
            raise UserError("--draw: the model is a classifier and detects no boxes; leave --draw out")
        boxes = [DrawnBox(box.corners, f"{box.label} {box.score:.2f}") for box in prediction.boxes]
        try:
            with open_upright(read_picture(prediction.path)) as picture:
                drawn = draw_boxes(picture, boxes)
        except (PictureError, OSError) as error:
            raise UserError(f"{prediction.path}: {first_line(error)}; it was changed meanwhile: try again") from None
        written.append(_write_new_file(out, prediction.path.stem, encode_jpeg(drawn, JPEG_QUALITY)))
    return written


def _write_new_file(folder: Path, stem: str, data: bytes) -> Path:
    """Write `stem.jpg`, or the first of `stem~2.jpg`, `stem~3.jpg`, … of which there is neither a file nor a link."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        path = folder / (f"{stem}~{number}.jpg" if number > 1 else f"{stem}.jpg")
        try:
            with path.open("xb") as file:
                try:
                    file.write(data)
                    file.flush()
                except OSError:  # a full disk: half a picture is none
                    path.unlink()
                    raise
        except FileExistsError:
            continue
        return path
    raise AssertionError("unreachable")
