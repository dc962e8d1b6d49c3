"""The preview sheet of the augment stage: some training pictures, each beside random transforms of it."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow
from PIL import ImageDraw
from torch import Tensor

from headstart.augment.box_transforms import BoxArray, transform_boxes
from headstart.augment.transforms import sample_transform, transform_image
from headstart.base.files import write_bytes
from headstart.base.manifest import Image
from headstart.base.stored_picture import open_stored_picture
from headstart.params.root import Params

COLUMNS, ROWS = 6, 5
SIDE = 160  # pixels of a picture on the sheet
TOP = 24  # pixels above the pictures, for the heading
GAP = 4  # pixels between pictures


def write_preview(
    images: Sequence[Image],
    boxes: Mapping[int, BoxArray],
    params: Params,
    root: Path,
    path: Path,
    *,
    gray_fill: bool,
) -> None:
    """Write the sheet as a JPEG: one row a picture, the original first, then transforms, with their boxes.

    Args:
        images: the training pictures; evenly spaced ones of them are shown.
        boxes: corners (b, 4) in pixels, by image id.
        params: all of params.yaml.
        root: the repository root.
        path: the file to write.
        gray_fill: as in `transform_image`.
    """
    step = max(1, len(images) // ROWS)
    sheet = Pillow.new("RGB", (COLUMNS * (SIDE + GAP) + 8, TOP + ROWS * (SIDE + GAP)), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((4, 6), "original", fill="black")
    pen.text((SIDE + 16, 6), "the same picture as training may see it", fill="black")
    for row, image in enumerate(images[::step][:ROWS]):
        with open_stored_picture(root / image.file_name) as opened:
            square = opened.convert("RGB").resize((SIDE, SIDE), Pillow.Resampling.BICUBIC)
        original = torch.from_numpy(np.asarray(square).copy()).permute(2, 0, 1)
        original_boxes = boxes[image.id] * (SIDE / np.array([image.width, image.height] * 2))
        top = TOP + row * (SIDE + GAP)
        sheet.paste(_outline_boxes(original, original_boxes), (0, top))
        for column in range(1, COLUMNS):
            transform = sample_transform(params.augment, params.seed, image.sha256, column - 1)
            transformed = transform_image(original, transform, gray_fill=gray_fill)
            moved, visible = transform_boxes(original_boxes, transform, SIDE, SIDE)
            sheet.paste(_outline_boxes(transformed, moved[visible]), (column * (SIDE + GAP) + 8, top))
    encoded = io.BytesIO()
    sheet.save(encoded, "JPEG", quality=90)
    write_bytes(path, encoded.getvalue())


def _outline_boxes(picture: Tensor, boxes: BoxArray) -> Pillow.Image:
    """The picture (3, h, w), uint8, with the outlines of its boxes."""
    outlined = Pillow.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
    for x1, y1, x2, y2 in boxes.tolist():
        ImageDraw.Draw(outlined).rectangle((x1, y1, x2 - 1, y2 - 1), outline="#ffb000", width=2)
    return outlined
