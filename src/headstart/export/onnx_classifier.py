"""A classifier as ONNX: logits and calibrated probabilities from pixels, proven equal to the PyTorch model."""

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from headstart.base.arrays import Floats32
from headstart.base.files import write_json
from headstart.engine.device import configure_torch
from headstart.engine.fold_batch_norm import fold_batch_norm
from headstart.engine.inference import INFERENCE_BATCH, run_inference
from headstart.engine.input_spec import Pixels
from headstart.export.labels_json import labels_json
from headstart.export.onnx_file import NormalizedNetwork, reject_model, write_onnx
from headstart.export.predictor import ClassifierOutput, Predictor, run_in_batches
from headstart.models import classifier
from headstart.models.file import ModelSpec
from headstart.params.root import ExportParams, Params
from headstart.params.training import TrainParams

MAX_TIE_GAP = 0.02  # of two logits: of these two labels alone the probabilities are 0.505 and 0.495
USAGE = (
    "upright RGB picture, resized as `input` says (Pillow), uint8 (batch, size, size, 3) as `pixels`; "
    "normalisation is in the graph. `logits` are raw, `probabilities` calibrated by the temperature."
)


class ExportedClassifier(nn.Module):
    """Pixels (n, size, size, 3) uint8 -> logits and calibrated probabilities, both (n, labels)."""

    # The names `whole`, `network` and `trunk` are in the names of the ONNX file's initializers.
    def __init__(self, network: nn.Module, spec: ModelSpec, temperature: float) -> None:
        super().__init__()
        self.whole, self.temperature = NormalizedNetwork(network, spec.input), temperature

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.whole(pixels)
        return logits, (logits / self.temperature).softmax(-1)


def export_classifier(
    out: Path, tensors: dict[str, Tensor], spec: ModelSpec, pixels: Pixels, metrics: dict[str, Any], params: Params
) -> tuple[dict[str, Any], ClassifierOutput, str]:
    """Write model.onnx and labels.json, and check the file against the PyTorch model; an `export.stage.ExportModel`.

    Raises:
        UserError: the outputs differ.
    """
    temperature = metrics["test"]["temperature"]
    expected = write_classifier_model(out, tensors, spec, pixels, temperature, params.seed)
    write_json(out / "labels.json", labels_json(spec, USAGE, temperature=temperature))
    outputs = run_in_batches(Predictor(out).classifier_output, pixels, INFERENCE_BATCH)
    parity = check_classifier_parity(out, outputs, expected, params.export)
    difference, ties = parity["largest_logit_difference"], parity["ties"]
    but = f" but {ties} where two labels tie" if ties else ""
    return parity, outputs, f"largest difference of a logit {difference:.2g}, same label for all{but}"


def write_classifier_model(
    out: Path, tensors: dict[str, Tensor], spec: ModelSpec, pixels: Pixels, temperature: float, seed: int
) -> Floats32:
    """Write model.onnx; the PyTorch model's logits (n, labels) for `pixels`, in fp32."""
    network = classifier.build(tensors, spec)
    compute = configure_torch(TrainParams(precision="fp32"), seed)
    expected: Floats32 = run_inference(network, pixels, spec.input, compute).numpy()
    folded, _ = fold_batch_norm(network.trunk, spec.input.size)
    write_onnx(
        ExportedClassifier(classifier.Classifier(folded, network.head), spec, temperature),
        out / "model.onnx",
        size=spec.input.size,
        outputs=ClassifierOutput._fields,
    )
    return expected


def check_classifier_parity(
    out: Path, outputs: ClassifierOutput, expected: Floats32, params: ExportParams
) -> dict[str, Any]:
    """Compare onnxruntime's logits with PyTorch's.

    Where the PyTorch model's two highest logits are nearer than twice the largest difference, rounding decides which is
    the highest: another label is a tie there, and no failure. So near means at most MAX_TIE_GAP.

    Args:
        out: folder of the model, which is removed if it fails.
        outputs: of the ONNX model.
        expected: logits of the PyTorch model, (n, labels).
        params: the section `export`.

    Returns:
        parity.json.

    Raises:
        UserError: a logit differs by more than the tolerance, or a predicted label differs that is no tie.
    """
    difference = float(np.abs(outputs.logits - expected).max())
    same_label = outputs.logits.argmax(1) == expected.argmax(1)
    gap = np.diff(np.sort(expected, axis=1)[:, -2:], axis=1)[:, 0] if expected.shape[1] > 1 else np.inf
    ties = int((~same_label & (gap <= min(2 * difference, MAX_TIE_GAP))).sum())
    same = int(same_label.sum())
    if not difference <= params.tolerance or same + ties < len(expected):  # a difference of NaN fails too
        reject_model(
            out,
            f"params.yaml: export.tolerance: {params.tolerance:g}: the ONNX model differs by {difference:.3g} in a "
            f"logit and agrees on {same} of {len(expected)} labels; raise the tolerance only if you can live with that",
        )
    return {
        "pictures": len(expected),
        "largest_logit_difference": float(f"{difference:.3g}"),
        "same_label": same,
        "ties": ties,
        "tolerance": params.tolerance,
    }
