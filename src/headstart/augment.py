"""The augment stage: changed copies of training pictures, their boxes moved with them, and a sheet to look at."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow
from PIL import ImageDraw
from torch import Tensor

from headstart import changes, coco
from headstart.coco import Annotation, Image, Manifest
from headstart.compute import keep_memory
from headstart.files import write_json
from headstart.moves import Corners, move
from headstart.params import Params
from headstart.pool import each

SHEET_COLUMNS, SHEET_ROWS, SHEET_SIDE, SHEET_TOP = 6, 5, 160, 24
Copy = tuple[Image, tuple[Annotation, ...]]


def augment(params: Params, root: Path) -> None:
    """Write stages/augment: `copies` changed copies of each training picture, the manifest of both, a preview sheet."""
    out = root / "stages/augment"
    train = coco.read(root / "stages/split/train.json")
    (out / "images").mkdir(parents=True, exist_ok=True)
    originals = sorted(train.images, key=lambda image: image.id)
    boxes = {image.id: tuple(a for a in train.annotations if a.image_id == image.id) for image in originals}
    _preview(originals, boxes, params, root, out / "preview.jpg")

    def copies(image: Image) -> list[Copy]:
        return [_store(image, boxes[image.id], number, params, root) for number in range(params.augment.copies)]

    keep_memory()
    torch.set_num_threads(1)  # the pictures share the cores among them
    made = [copy for some in each(copies, originals, "copies") for copy in some]
    manifest = _joined(train, originals, made)
    coco.write(manifest, out / "train.json")
    write_json(out / "metrics.json", {"originals": len(originals), "copies": len(made)})
    print(f"augment: {len(originals):,} training pictures, {len(made):,} copies stored; stages/augment/preview.jpg")


def _joined(train: Manifest, originals: Sequence[Image], made: Sequence[Copy]) -> Manifest:
    """Originals and copies, numbered on from the last original."""
    first = max((image.id for image in originals), default=0) + 1
    images, annotations = list(originals), list(train.annotations)
    number = max((annotation.id for annotation in annotations), default=0)
    for offset, (image, boxes) in enumerate(made):
        images.append(image.model_copy(update={"id": first + offset}))
        for box in boxes:
            number += 1
            annotations.append(box.model_copy(update={"id": number, "image_id": first + offset}))
    return train.model_copy(update={"images": tuple(images), "annotations": tuple(annotations)})


def _store(image: Image, boxes: Sequence[Annotation], number: int, params: Params, root: Path) -> Copy:
    """Write one changed copy as PNG or JPEG, as the original is, and describe it."""
    detect = params.task == "detect"
    with Pillow.open(root / image.file_name) as opened:
        # A grey picture stays grey, one channel of work instead of three, unless something gives it colour.
        kind, grey = opened.format, opened.mode == "L" and not params.augment.noise
        pixels = np.asarray(opened.convert("L" if grey else "RGB"))
    picture = torch.from_numpy(pixels.copy()).reshape(*pixels.shape[:2], -1).permute(2, 0, 1)
    drawn = changes.draw(params.augment, params.seed, image.sha256, number)
    changed = changes.apply(picture, drawn, grey=detect)
    suffix = ".jpg" if kind == "JPEG" else ".png"
    path = root / "stages/augment/images" / f"{image.id:06d}-{number:02d}{suffix}"
    how = {"quality": 95} if kind == "JPEG" else {"compress_level": 1}
    bands = [Pillow.fromarray(band) for band in changed.numpy()]
    stored = Pillow.merge("RGB", bands) if len(bands) == 3 else bands[0]
    stored.save(path, **how)  # type: ignore[arg-type]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    name = path.relative_to(root).as_posix()
    copy = image.model_copy(update={"file_name": name, "sha256": digest, "copy_of": image.id})
    return copy, tuple(_moved(boxes, drawn, image))


def _corners(boxes: Sequence[Annotation]) -> Corners:
    found = np.array([box.bbox for box in boxes], np.float64).reshape(-1, 4)
    found[:, 2:] += found[:, :2]
    return found


def _moved(boxes: Sequence[Annotation], drawn: changes.Draw, image: Image) -> list[Annotation]:
    places, seen = move(_corners(boxes), drawn, image.width, image.height)
    moved = []
    for box, (x1, y1, x2, y2), there in zip(boxes, places.round(3).tolist(), seen, strict=True):
        if there:
            sides = (round(x2 - x1, 3), round(y2 - y1, 3))
            moved.append(box.model_copy(update={"bbox": (x1, y1, *sides), "area": round(sides[0] * sides[1], 3)}))
    return moved


def _preview(
    images: Sequence[Image], boxes: dict[int, tuple[Annotation, ...]], params: Params, root: Path, path: Path
) -> None:
    """One row a picture: the original first, then what training may see of it, with the boxes."""
    step = max(1, len(images) // SHEET_ROWS)
    sheet = Pillow.new(
        "RGB", (SHEET_COLUMNS * (SHEET_SIDE + 4) + 8, SHEET_TOP + SHEET_ROWS * (SHEET_SIDE + 4)), "white"
    )
    pen = ImageDraw.Draw(sheet)
    pen.text((4, 6), "original", fill="black")
    pen.text((SHEET_SIDE + 16, 6), "the same picture as training may see it", fill="black")
    for row, image in enumerate(images[::step][:SHEET_ROWS]):
        with Pillow.open(root / image.file_name) as opened:
            square = opened.convert("RGB").resize((SHEET_SIDE, SHEET_SIDE), Pillow.Resampling.BICUBIC)
        original = torch.from_numpy(np.asarray(square).copy()).permute(2, 0, 1)
        there = _corners(boxes[image.id]) * (SHEET_SIDE / np.array([image.width, image.height] * 2))
        top = SHEET_TOP + row * (SHEET_SIDE + 4)
        for column in range(SHEET_COLUMNS):
            drawn = changes.draw(params.augment, params.seed, image.sha256, column - 1)
            shown, places = original, there
            if column:
                shown = changes.apply(original, drawn, grey=params.task == "detect")
                moved, seen = move(there, drawn, SHEET_SIDE, SHEET_SIDE)
                places = moved[seen]
            left = column * (SHEET_SIDE + 4) + (8 if column else 0)
            sheet.paste(_with_boxes(shown, places), (left, top))
    sheet.save(path, quality=90)


def _with_boxes(picture: Tensor, places: Corners) -> Pillow.Image:
    shown = Pillow.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
    for x1, y1, x2, y2 in places.tolist():
        ImageDraw.Draw(shown).rectangle((x1, y1, x2 - 1, y2 - 1), outline="#ffb000", width=2)
    return shown
