"""A detector as ONNX, decoding and NMS in the graph, proven to detect the same boxes as the PyTorch model."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from headstart.base.arrays import Bools, Floats32, Ints
from headstart.base.files import write_json
from headstart.engine.fold_batch_norm import fold_batch_norm
from headstart.engine.inference import DETECTOR_BATCH
from headstart.engine.input_spec import Pixels
from headstart.export.labels_json import labels_json
from headstart.export.onnx_file import NormalizedNetwork, reject_model, write_onnx
from headstart.export.predictor import DetectorOutput, Predictor, run_in_batches
from headstart.models import detector
from headstart.models.detector import Detector
from headstart.models.file import ModelSpec
from headstart.models.heads.onnx_ops import onnx_translation_table
from headstart.params.root import ExportParams, Params

MAX_CORNER_DIFFERENCE = 1.0  # pixels
IOU_MARGIN = 1e-3  # NMS may decide differently about two boxes whose IoU is that near to its limit
USAGE = (
    "upright RGB picture, resized as `input` says (Pillow), uint8 (batch, height, width, 3) as `pixels`; "
    "normalisation, decoding and NMS (across labels, if `class_agnostic_nms`) are in the graph. `boxes` are corners "
    "(xmin, ymin, xmax, ymax) in pixels of the input, highest score first, `labels` count from 0; a score of 0 is no "
    "box. `threshold`: believe scores from there on."
)


class ExportedDetector(nn.Module):
    """Pixels (n, height, width, 3) uint8 -> boxes (n, k, 4) in pixels of the input, scores and labels (n, k)."""

    # The names `whole`, `network` and `trunk` are in the names of the ONNX file's initializers.
    def __init__(self, network: Detector, spec: ModelSpec, class_agnostic_nms: bool) -> None:
        super().__init__()
        self.network, self.whole = network, NormalizedNetwork(network, spec.input)
        self.class_agnostic_nms = class_agnostic_nms

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return detector.predict(self.network, self.whole(pixels), class_agnostic_nms=self.class_agnostic_nms)


def export_detector(
    out: Path, tensors: dict[str, Tensor], spec: ModelSpec, pixels: Pixels, metrics: dict[str, Any], params: Params
) -> tuple[dict[str, Any], DetectorOutput, str]:
    """Write model.onnx and labels.json, and check the file against the PyTorch model; an `export.stage.ExportModel`.

    Raises:
        UserError: the boxes differ.
    """
    threshold, class_agnostic = metrics["test"]["threshold"], metrics["class_agnostic_nms"]["used"]
    expected, nms_iou = write_detector_model(out, tensors, spec, pixels, class_agnostic_nms=class_agnostic)
    own = {"threshold": threshold, "class_agnostic_nms": class_agnostic}
    write_json(out / "labels.json", labels_json(spec, USAGE, **own))
    outputs = run_in_batches(Predictor(out).detector_output, pixels, DETECTOR_BATCH)
    parity = check_detector_parity(
        out, outputs, expected, threshold, nms_iou, params.export, class_agnostic_nms=class_agnostic
    )
    difference = parity["largest_difference_in_pixels"]
    return parity, outputs, f"{parity['boxes']} boxes, the largest difference {difference:.2g} pixels"


@torch.no_grad()
def write_detector_model(
    out: Path, tensors: dict[str, Tensor], spec: ModelSpec, pixels: Pixels, *, class_agnostic_nms: bool = False
) -> tuple[DetectorOutput, float]:
    """Write model.onnx; the PyTorch model's boxes for `pixels`, in fp32, and the IoU limit of its NMS."""
    network = detector.build(tensors, spec)
    unfolded = ExportedDetector(network, spec, class_agnostic_nms).eval()
    expected = run_in_batches(
        lambda batch: DetectorOutput(*(tensor.numpy() for tensor in unfolded(torch.from_numpy(np.array(batch))))),
        pixels,
        DETECTOR_BATCH,
    )
    network.trunk, _ = fold_batch_norm(network.trunk, spec.input.size)
    write_onnx(
        ExportedDetector(network, spec, class_agnostic_nms),
        out / "model.onnx",
        size=spec.input.size,
        outputs=DetectorOutput._fields,
        operations=onnx_translation_table(),
    )
    return expected, network.head.nms_iou


def check_detector_parity(
    out: Path,
    outputs: DetectorOutput,
    expected: DetectorOutput,
    threshold: float,
    nms_iou: float,
    params: ExportParams,
    *,
    class_agnostic_nms: bool = False,
) -> dict[str, Any]:
    """Compare the boxes of onnxruntime and PyTorch: each box above the threshold has its counterpart, both ways.

    A box that overlaps a higher-scoring one by just the limit of NMS may be missing: the last bit decides.

    Args:
        out: folder of the model, which is removed if it fails.
        outputs: of the ONNX model.
        expected: outputs of the PyTorch model.
        threshold: boxes with lower scores are not compared.
        nms_iou: limit of NMS.
        params: the section `export`.
        class_agnostic_nms: NMS is across labels.

    Returns:
        parity.json.

    Raises:
        UserError: a box has no counterpart.
    """
    min_score = threshold + params.tolerance  # the very threshold may lie between two equal scores
    differences, lost = [], 0
    for one, other in ((expected, outputs), (outputs, expected)):
        images, positions = np.nonzero(one.scores >= min_score)
        differences.append(_nearest_boxes(one, other, images, positions))
        unmatched = np.flatnonzero(~_same_box(*differences[-1], params.tolerance))
        lost += sum(
            not _near_nms_limit(one, other, images[row], positions[row], nms_iou, class_agnostic_nms)
            for row in unmatched
        )
    corner, score = (np.concatenate(both_ways) for both_ways in zip(*differences, strict=True))
    same = _same_box(corner, score, params.tolerance)
    if lost:
        reject_model(
            out,
            f"params.yaml: export.tolerance: {params.tolerance:g}: of {len(corner)} boxes of the PyTorch and the ONNX "
            f"model, {lost} have no counterpart in the other's output within {MAX_CORNER_DIFFERENCE:g} pixel; raise "
            "the tolerance of the score only if you can live with that",
        )
    return {
        "pictures": len(outputs.scores),
        "boxes": len(corner),
        "same_box": int(same.sum()),
        "largest_difference_in_pixels": float(f"{corner[same].max(initial=0):.3g}"),
        "largest_score_difference": float(f"{score[same].max(initial=0):.3g}"),
        "tolerance": params.tolerance,
    }


def _nearest_boxes(
    one: DetectorOutput, other: DetectorOutput, images: Ints, positions: Ints
) -> tuple[Floats32, Floats32]:
    """For each of these boxes of `one` the difference to the nearest box of its label in `other`, (b,).

    Returns:
        largest difference of a coordinate, in pixels, and difference of the score.
    """
    corners = np.abs(one.boxes[images, positions, None] - other.boxes[images]).max(-1)
    corners[(other.labels[images] != one.labels[images, positions, None]) | (other.scores[images] <= 0)] = np.inf
    scores = np.abs(one.scores[images, positions, None] - other.scores[images])
    nearest = (corners + scores).argmin(1)
    rows = np.arange(len(nearest))
    return corners[rows, nearest], scores[rows, nearest]


def _same_box(corner: Floats32, score: Floats32, tolerance: float) -> Bools:
    """Whether boxes with these differences are the same, (b,)."""
    same: Bools = (corner <= MAX_CORNER_DIFFERENCE) & (score <= tolerance)
    return same


def _near_nms_limit(
    one: DetectorOutput, other: DetectorOutput, image: int, position: int, nms_iou: float, any_label: bool
) -> bool:
    """Whether a box in `other`, of the same label or of any, overlaps this box of `one` by just the limit of NMS."""
    rivals = (any_label | (other.labels[image] == one.labels[image, position])) & (other.scores[image] > 0)
    boxes = (one.boxes[image, position, None], other.boxes[image][rivals])
    iou = box_iou(*(torch.from_numpy(array) for array in boxes))
    return bool(((iou - nms_iou).abs() < IOU_MARGIN).any())
