"""A detector as ONNX, decoding and NMS in the graph, proven to find the boxes that the examined one finds."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from headstart import detect, nms, onnxfile
from headstart.batches import VAL_BATCH
from headstart.detect import Detector
from headstart.errors import UserError
from headstart.fold import fold
from headstart.modelfile import Card
from headstart.params import ExportParams
from headstart.pixels import Pixels
from headstart.predict import Boxes, Floats, Ints

Flags = npt.NDArray[np.bool_]

NEAR = 1.0  # pixels by which a corner may differ
HAIR = 1e-3  # of overlap: two boxes that near to the limit may be one box to one model and two to the other


class Exported(nn.Module):
    """Pixels (n, size, size, 3) uint8 -> boxes (n, k, 4) in pixels of the input, scores and labels (n, k)."""

    def __init__(self, network: Detector, card: Card) -> None:
        super().__init__()
        self.network, self.whole = network, onnxfile.Normalised(network, card.input)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return detect.predict(self.network, self.whole(pixels))


@torch.no_grad()
def write(out: Path, tensors: dict[str, Tensor], card: Card, seen: Pixels) -> tuple[Boxes, float]:
    """Write model.onnx; what the torch model, as it was examined, finds, and from which IoU on two boxes are one."""
    network = detect.build(tensors, card)
    plain = Exported(network, card).eval()
    parts = [torch.from_numpy(np.array(seen[start : start + VAL_BATCH])) for start in range(0, len(seen), VAL_BATCH)]
    found = zip(*(plain(part) for part in parts), strict=True)
    expected = Boxes(*(torch.cat(some).numpy() for some in found))
    network.trunk, _ = fold(network.trunk, card.input.size)
    onnxfile.write(
        Exported(network, card),
        out / "model.onnx",
        size=card.input.size,
        outputs=Boxes._fields,
        operations=nms.translation(),
    )
    return expected, network.head.overlap


def labels(card: Card, threshold: float) -> dict[str, Any]:
    """What labels.json says; from confidence `threshold` on a box is believed."""
    return {
        "task": card.task,
        "labels": list(card.labels),
        "input": card.input.model_dump(mode="json"),
        "threshold": threshold,
        "how": "upright RGB picture, resized as `input` says (Pillow), uint8 (batch, size, size, 3) as `pixels`; "
        "normalisation, decoding and NMS are in the graph. `boxes` are corners (xmin, ymin, xmax, ymax) in pixels of "
        "the input, the surest first, `labels` count from 0; a score of 0 is no box. `threshold`: believe scores from "
        "there on.",
    }


def parity(
    out: Path, found: Boxes, expected: Boxes, threshold: float, overlap: float, params: ExportParams
) -> dict[str, Any]:
    """What parity.json says: each box that counts has its like in the other model's answer, and the other way round.

    A box that overlaps a surer one by just the limit, `overlap`, may be missing: a last bit decides.

    Raises:
        UserError: some have not.
    """
    least = threshold + params.tolerance  # the very threshold may lie between two equal scores
    pairs, lost = [], 0
    for one, other in ((expected, found), (found, expected)):
        where = np.nonzero(one.scores >= least)
        pairs.append(_nearest(one, other, *where))
        alone = np.flatnonzero(~_like(*pairs[-1], params.tolerance))
        lost += sum(not _by_a_hair(one, other, where[0][row], where[1][row], overlap) for row in alone)
    pixels, score = (np.concatenate(some) for some in zip(*pairs, strict=True))
    like = _like(pixels, score, params.tolerance)
    if lost:
        (out / "model.onnx").unlink()  # what is not proven does not lie around
        raise UserError(
            f"params.yaml: export.tolerance: {params.tolerance:g}: of {len(pixels)} boxes that the torch and the ONNX "
            f"model find, {lost} have no like in the other's answer within {NEAR:g} pixel; raise the "
            "tolerance of the score only if you can live with that"
        )
    return {
        "pictures": len(found.scores),
        "boxes": len(pixels),
        "same_box": int(like.sum()),
        "largest_difference_in_pixels": float(f"{pixels[like].max(initial=0):.3g}"),
        "largest_score_difference": float(f"{score[like].max(initial=0):.3g}"),
        "tolerance": params.tolerance,
    }


def _nearest(one: Boxes, other: Boxes, picture: Ints, place: Ints) -> tuple[Floats, Floats]:
    """For each of these boxes of `one`: largest difference of a corner, and of the score, to its like in `other`."""
    corners = np.abs(one.boxes[picture, place, None] - other.boxes[picture]).max(-1)
    corners[(other.labels[picture] != one.labels[picture, place, None]) | (other.scores[picture] <= 0)] = np.inf
    scores = np.abs(one.scores[picture, place, None] - other.scores[picture])
    best = (corners + scores).argmin(1)
    rows = np.arange(len(best))
    return corners[rows, best], scores[rows, best]


def _like(pixels: Floats, score: Floats, tolerance: float) -> Flags:
    """Whether boxes that differ by so much are one."""
    found: Flags = (pixels <= NEAR) & (score <= tolerance)
    return found


def _by_a_hair(one: Boxes, other: Boxes, picture: int, place: int, overlap: float) -> bool:
    """Whether one of its label in `other` overlaps this box of `one` by just the limit."""
    rivals = (other.labels[picture] == one.labels[picture, place]) & (other.scores[picture] > 0)
    own, others = (torch.from_numpy(some) for some in (one.boxes[picture, place, None], other.boxes[picture][rivals]))
    return bool(((box_iou(own, others) - overlap).abs() < HAIR).any())
