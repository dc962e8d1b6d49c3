"""`headstart predict`: which picture files, and their predictions as text, JSON, or pictures with boxes drawn."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from headstart.base.errors import UserError, missing_file
from headstart.base.files import write_bytes
from headstart.export.predictor import FilePrediction
from headstart.images.decode import validate_picture
from headstart.images.draw_boxes import DrawnBox, draw_boxes
from headstart.images.thumbnail import encode_jpeg

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
JPEG_QUALITY = 92


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The given files, and all pictures in the given folders, sorted.

    Raises:
        UserError: a path does not exist, or a folder holds no picture.
    """
    images: list[Path] = []
    for path in paths:
        if not path.exists():
            raise missing_file(path, "name pictures or folders of pictures")
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise UserError(f"{path}: no picture in this folder (looked for {' '.join(sorted(IMAGE_SUFFIXES))})")
        images += inside
    return images


def to_json_row(prediction: FilePrediction) -> dict[str, Any]:
    """A prediction for programs."""
    row: dict[str, Any] = {"image": str(prediction.path)}
    if prediction.boxes is None:
        row |= {"label": prediction.label, "probabilities": prediction.probabilities}
    else:
        row["boxes"] = [box.to_json() for box in prediction.boxes]
    return row | {"error": prediction.error}


def to_text(prediction: FilePrediction) -> str:
    """A prediction for people."""
    if prediction.error:
        return f"not read: {prediction.error}"
    if prediction.boxes is None:
        return f"{prediction.label} {prediction.probabilities[prediction.label]:.3f}"
    boxes = (
        f"{box.label} {box.score:.3f} at {', '.join(f'{value:.0f}' for value in box.corners)}"
        for box in prediction.boxes
    )
    return "; ".join(boxes) or "no detections"


def save_images_with_boxes(predictions: Sequence[FilePrediction], out: Path) -> list[Path]:
    """Write each picture with its boxes to the folder `out`, as JPEG under the picture's name; the files written.

    A picture that could not be read is left out. Of two pictures of one name the second gets a number.

    Raises:
        UserError: the model is not a detector, or `out` is a file.
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
        with Image.open(io.BytesIO(validate_picture(prediction.path.read_bytes()).data)) as picture:
            drawn = draw_boxes(picture, boxes)
        stem = prediction.path.stem
        same = sum(path.stem.rpartition("~")[0] == stem or path.stem == stem for path in written)
        written.append(out / (f"{stem}~{same + 1}.jpg" if same else f"{stem}.jpg"))
        write_bytes(written[-1], encode_jpeg(drawn, JPEG_QUALITY))
    return written
