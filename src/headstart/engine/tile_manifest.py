"""The tiles of a manifest's pictures as a manifest of their own, and what was found in them put together again."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from headstart.base.clip_boxes import clip_boxes
from headstart.base.detections import Detection
from headstart.base.manifest import Annotation, Image, Manifest, xywh_to_xyxy, xyxy_to_xywh
from headstart.engine.input_spec import TileSpec
from headstart.engine.tiles import merge_tiles, tile_grid


def cut_manifest(manifest: Manifest, spec: TileSpec | None) -> Manifest:
    """All tiles of all pictures; boxes are cut at their frames by the rule of `clip_boxes`. None: the pictures as such.

    A tile has the side `spec.size`, `tile` and `tile_of`, and a sha256 that is made of its picture's and its place.
    """
    if spec is None:
        return manifest
    of_picture = manifest.annotations_by_image()
    images: list[Image] = []
    annotations: list[Annotation] = []
    for image in manifest.images:
        boxes = np.array([xywh_to_xyxy(a.bbox) for a in of_picture[image.id]], np.float64).reshape(-1, 4)
        for tile in tile_grid(image.width, image.height, spec):
            name = f"{image.sha256} {spec.size} px at {tile[0]}, {tile[1]}"
            part = {
                "id": len(images) + 1,
                "sha256": hashlib.sha256(name.encode()).hexdigest(),
                "width": spec.size,
                "height": spec.size,
                "tile": tile,
                "tile_of": image.id,
            }
            images.append(image.model_copy(update=part))
            clipped, stay = clip_boxes(boxes - [*tile, *tile], spec.size, spec.size)
            for number in np.flatnonzero(stay):
                bbox = xyxy_to_xywh(clipped[number].tolist())
                cut = {"id": len(annotations) + 1, "image_id": part["id"], "bbox": bbox, "area": bbox[2] * bbox[3]}
                annotations.append(of_picture[image.id][number].model_copy(update=cut))
    return Manifest(images=tuple(images), annotations=tuple(annotations), categories=manifest.categories)


def training_tiles(manifest: Manifest, spec: TileSpec | None) -> Manifest:
    """The tiles that are trained on: all that show a box, and as many others (at least one), chosen by their hash.

    Most tiles of a large picture show background alone, and little of it is new. None: the pictures as such.
    """
    if spec is None:
        return manifest
    tiled = cut_manifest(manifest, spec)
    with_boxes = {annotation.image_id for annotation in tiled.annotations}
    others = sorted((image for image in tiled.images if image.id not in with_boxes), key=lambda image: image.sha256)
    chosen = {image.id for image in others[: max(1, len(with_boxes))]} | with_boxes
    return tiled.subset(image for image in tiled.images if image.id in chosen)


def merge_detections(
    detections: Sequence[Detection],
    tiled: Manifest,
    manifest: Manifest,
    spec: TileSpec,
    *,
    across_labels: bool = False,
) -> list[Detection]:
    """What was found in tiles as detections in their pictures; arguments and rule as of `merge_tiles`.

    Args:
        detections: in the tiles.
        tiled: the tiles, as `cut_manifest` returns them.
        manifest: the pictures.
        spec: of the tiles.
        across_labels: boxes of different labels are merged too.
    """
    tiles = {image.id: image for image in tiled.images}
    of_picture: dict[int, list[Detection]] = defaultdict(list)
    for detection in detections:
        of_picture[tiles[detection["image_id"]].tile_of or 0].append(detection)
    merged: list[Detection] = []
    for image in manifest.images:
        found = of_picture[image.id]
        corners = np.array([tiles[one["image_id"]].tile for one in found], np.int64).reshape(-1, 2)
        boxes = np.array([xywh_to_xyxy(one["bbox"]) for one in found], np.float32).reshape(-1, 4)
        boxes += np.tile(corners, 2)
        boxes = boxes.clip(0, [image.width, image.height, image.width, image.height]).astype(np.float32)
        result = merge_tiles(
            boxes,
            np.array([one["score"] for one in found], np.float32),
            np.array([one["category_id"] for one in found], np.int64),
            corners,
            (image.width, image.height),
            spec,
            across_labels=across_labels,
        )
        for box, score, category in zip(*(array.tolist() for array in result), strict=True):
            left, top, width, height = xyxy_to_xywh(box)
            if width > 0 and height > 0:
                bbox = (left, top, width, height)
                merged.append(Detection(image_id=image.id, category_id=category, bbox=bbox, score=score))
    return merged
