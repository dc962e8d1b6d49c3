"""The augment stage: transformed copies of training pictures with their boxes, and a preview sheet."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow

from headstart.augment.box_transforms import BoxArray, transform_boxes
from headstart.augment.preview import write_preview
from headstart.augment.transforms import SampledTransform, sample_transform, transform_image
from headstart.base.files import write_bytes, write_json
from headstart.base.manifest import Annotation, Image, Manifest, read_manifest, write_manifest, xywh_to_xyxy
from headstart.base.memory import keep_freed_memory
from headstart.base.parallel import parallel_map
from headstart.base.stored_picture import open_stored_picture
from headstart.base.threads import one_torch_thread
from headstart.params.root import Params

AugmentedCopy = tuple[Image, tuple[Annotation, ...]]


def augment(params: Params, root: Path, *, boxes: bool) -> None:
    """Write stages/augment: `copies` transformed copies of each training picture, the manifest of both, a preview.

    Args:
        params: all of params.yaml.
        root: the repository root.
        boxes: the task learns from boxes; else from one label a picture.
    """
    out = root / "stages/augment"
    train = read_manifest(root / "stages/split/train.json")
    (out / "images").mkdir(parents=True, exist_ok=True)
    originals = sorted(train.images, key=lambda image: image.id)
    annotations = train.annotations_by_image()
    corners = {image_id: _to_xyxy(of_image) for image_id, of_image in annotations.items()}
    write_preview(originals, corners, params, root, out / "preview.jpg", gray_fill=boxes)

    def make_copies(image: Image) -> list[AugmentedCopy]:
        return [
            write_copy(image, annotations[image.id], number, params, root, gray_fill=boxes)
            for number in range(params.augment.copies)
        ]

    keep_freed_memory()
    with one_torch_thread():  # pictures are transformed in parallel, one a core
        copies = [copy for of_image in parallel_map(make_copies, originals, "copies") for copy in of_image]
    write_manifest(_merge_copies(train, originals, copies), out / "train.json")
    write_json(out / "metrics.json", {"originals": len(originals), "copies": len(copies)})
    print(f"augment: {len(originals):,} training pictures, {len(copies):,} copies stored; stages/augment/preview.jpg")


def _merge_copies(train: Manifest, originals: Sequence[Image], copies: Sequence[AugmentedCopy]) -> Manifest:
    """Originals and copies; ids of copies and of their boxes continue after those of the originals."""
    first_id = max((image.id for image in originals), default=0) + 1
    images, annotations = list(originals), list(train.annotations)
    annotation_id = max((annotation.id for annotation in annotations), default=0)
    for image_id, (image, boxes) in enumerate(copies, first_id):
        images.append(image.model_copy(update={"id": image_id}))
        for box in boxes:
            annotation_id += 1
            annotations.append(box.model_copy(update={"id": annotation_id, "image_id": image_id}))
    return train.model_copy(update={"images": tuple(images), "annotations": tuple(annotations)})


def write_copy(
    image: Image,
    annotations: Sequence[Annotation],
    number: int,
    params: Params,
    root: Path,
    *,
    gray_fill: bool,
    folder: str = "stages/augment/images",
) -> AugmentedCopy:
    """Write one transformed copy in the format of the original, PNG or JPEG; returns its records.

    Args:
        image: the original.
        annotations: its boxes.
        number: of the copy; with seed and sha256 it decides on the transform.
        params: all of params.yaml.
        root: the repository root.
        gray_fill: fill what the transform leaves empty with grey.
        folder: of the copy, below `root`.
    """
    with open_stored_picture(root / image.file_name) as opened:
        # A grey picture stays grey, one channel of work instead of three, unless something gives it colour.
        file_format, is_gray = opened.format, opened.mode == "L" and not params.augment.noise
        pixels = np.asarray(opened.convert("L" if is_gray else "RGB"))
    picture = torch.from_numpy(pixels.copy()).reshape(*pixels.shape[:2], -1).permute(2, 0, 1)
    transform = sample_transform(params.augment, params.seed, image.sha256, number)
    transformed = transform_image(picture, transform, gray_fill=gray_fill)
    is_jpeg = file_format == "JPEG"
    suffix, options = (".jpg", {"quality": 95}) if is_jpeg else (".png", {"compress_level": 1})
    path = root / folder / f"{image.id:06d}-{number:02d}{suffix}"
    bands = [Pillow.fromarray(band) for band in transformed.numpy()]
    stored = Pillow.merge("RGB", bands) if len(bands) == 3 else bands[0]
    encoded = io.BytesIO()
    stored.save(encoded, "JPEG" if is_jpeg else "PNG", **options)
    write_bytes(path, encoded.getvalue())  # not by Pillow, which for a full disk raises an error without its number
    digest = hashlib.sha256(encoded.getvalue()).hexdigest()
    name = path.relative_to(root).as_posix()
    copy = image.model_copy(update={"file_name": name, "sha256": digest, "copy_of": image.id})
    return copy, tuple(_transform_annotations(annotations, transform, image))


def _to_xyxy(annotations: Sequence[Annotation]) -> BoxArray:
    return np.array([xywh_to_xyxy(annotation.bbox) for annotation in annotations], np.float64).reshape(-1, 4)


def _transform_annotations(
    annotations: Sequence[Annotation], transform: SampledTransform, image: Image
) -> list[Annotation]:
    """The annotations whose boxes are still visible, with their new boxes, rounded to a thousandth of a pixel."""
    boxes, visible = transform_boxes(_to_xyxy(annotations), transform, image.width, image.height)
    transformed = []
    for annotation, (x1, y1, x2, y2), is_visible in zip(annotations, boxes.round(3).tolist(), visible, strict=True):
        if is_visible:
            width, height = round(x2 - x1, 3), round(y2 - y1, 3)
            changes = {"bbox": (x1, y1, width, height), "area": round(width * height, 3)}
            transformed.append(annotation.model_copy(update=changes))
    return transformed
