"""Large pictures in tiles: the grid, cutting, and merging what overlapping tiles found. No torch.

Source: Akyon et al. 2022 (SAHI, arXiv 2202.06934): sliced inference, and merging by intersection over smaller area.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from headstart.base.arrays import Bools, Floats32, Ints
from headstart.engine.input_spec import LETTERBOX_GRAY, TileSpec

MERGE_OVERLAP = 0.5  # of the smaller box's area: two boxes of different tiles that share more are one thing
MERGE_SCORE = 0.5  # of the higher score: a box of a lower one does not make another larger
CUT_MARGIN = 0.02  # of a tile's side: a box that comes so near to its border may be cut off there
Tile = tuple[int, int]  # left and top in the picture, in pixels


def tile_grid(width: int, height: int, spec: TileSpec) -> list[Tile]:
    """The tiles that cover a picture, row by row. The last of a row or column ends with the picture.

    A picture smaller than a tile is in one that reaches beyond it.
    """

    def starts(side: int) -> list[int]:
        step = max(1, spec.size - int(spec.overlap * spec.size))
        last = max(0, side - spec.size)
        return [*range(0, last, step), last]

    return [(left, top) for top in starts(height) for left in starts(width)]


def cut_tile(picture: Pillow.Image, tile: Tile, spec: TileSpec) -> Pillow.Image:
    """One tile of an RGB or grey picture, RGB (size, size); grey where it reaches beyond the picture."""
    left, top = tile
    right, bottom = min(left + spec.size, picture.width), min(top + spec.size, picture.height)
    part = picture.crop((left, top, right, bottom)).convert("RGB")
    if part.size == (spec.size, spec.size):
        return part
    canvas = Pillow.new("RGB", (spec.size, spec.size), (LETTERBOX_GRAY,) * 3)
    canvas.paste(part)
    return canvas


def merge_tiles(
    boxes: Floats32,
    scores: Floats32,
    labels: Ints,
    corners: Ints,
    picture: tuple[int, int],
    spec: TileSpec,
    *,
    across_labels: bool = False,
) -> tuple[Floats32, Floats32, Ints]:
    """Boxes that the tiles of one picture found, one for each thing.

    The highest-scoring box takes in the boxes of other tiles that share more than MERGE_OVERLAP of the smaller one's
    area with it. As in SAHI's greedy non-maximum merging it becomes the box round all of them, but only if its own tile
    cuts it off, and only of those with at least MERGE_SCORE of its score: a whole thing's box is as good as it gets.
    Enlarged, it takes in what it overlaps then. Boxes of one tile have gone through NMS and are not merged.

    Args:
        boxes: xmin, ymin, xmax, ymax in pixels of the picture, (b, 4).
        scores: (b,).
        labels: numbers of the labels, (b,).
        corners: left and top of the tile that each is from, in pixels of the picture, (b, 2).
        picture: its width and height.
        spec: of the tiles.
        across_labels: boxes of different labels are merged too; the highest score has the label.

    Returns:
        boxes, scores, falling, and labels of what is left.
    """
    order = np.argsort(-scores, kind="stable")
    boxes, scores, labels, corners = boxes[order], scores[order], labels[order], corners[order]
    is_cut = _touches_next_tile(boxes, corners, picture, spec)
    left = np.ones(len(boxes), bool)
    merged, kept = boxes.copy(), []
    for number in range(len(boxes)):
        if not left[number]:
            continue
        kept.append(number)
        left[number] = False
        is_rival: Bools = np.any(corners != corners[number], axis=1)
        if not across_labels:
            is_rival = np.logical_and(is_rival, labels == labels[number])
        while len(rivals := np.flatnonzero(left & is_rival)):
            same = rivals[_share_of_smaller(merged[number], boxes[rivals]) > MERGE_OVERLAP]
            left[same] = False
            sure = same[scores[same] >= MERGE_SCORE * scores[number]]
            if not (is_cut[number] and len(sure)):
                break
            group = np.concatenate([merged[[number]], boxes[sure]])
            merged[number] = [*group[:, :2].min(0), *group[:, 2:].max(0)]
    return merged[kept], scores[kept], labels[kept]


def _touches_next_tile(boxes: Floats32, corners: Ints, picture: tuple[int, int], spec: TileSpec) -> Bools:
    """Whether a box ends at a border of its tile beyond which the picture goes on, (b,)."""
    near = CUT_MARGIN * spec.size
    ends = corners + spec.size
    before = (corners > 0) & (boxes[:, :2] - corners < near)
    after = (ends < np.array(picture)) & (ends - boxes[:, 2:] < near)
    touches: Bools = np.any(before | after, axis=1)
    return touches


def _share_of_smaller(box: Floats32, others: Floats32) -> npt.NDArray[np.float32]:
    """Intersection over the smaller area of a box (4,) and each of others (b, 4), (b,)."""
    sides = (np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])).clip(0)
    areas = np.minimum(np.prod(box[2:] - box[:2]), np.prod(others[:, 2:] - others[:, :2], axis=1))
    shared: npt.NDArray[np.float32] = np.prod(sides, axis=1) / np.maximum(areas, 1e-9)
    return shared
