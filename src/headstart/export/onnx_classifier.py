"""A classifier as ONNX: pixels -> logits, probabilities and strangeness, proven equal to the PyTorch model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headstart.base.arrays import Floats32
from headstart.base.files import write_json
from headstart.engine.device import configure_torch
from headstart.engine.fold_batch_norm import fold_batch_norm
from headstart.engine.inference import INFERENCE_BATCH, run_inference
from headstart.engine.input_spec import Pixels
from headstart.export.labels_json import labels_json, rules_json
from headstart.export.onnx_file import NormalizedNetwork, reject_model, write_onnx
from headstart.export.predictor import ClassifierOutput, Predictor, run_in_batches
from headstart.models import classifier
from headstart.models.answer_rules import FILE_NAME as RULES_FILE
from headstart.models.answer_rules import AnswerRules, StrangenessScore, read_answer_rules
from headstart.models.file import ModelSpec
from headstart.models.strangeness_features import ClassifierWithFeatures
from headstart.params.root import ExportParams, Params
from headstart.params.training import TrainParams

MAX_TIE_GAP = 0.02  # of two logits: of these two labels alone the probabilities are 0.505 and 0.495
USAGE = (
    "upright RGB picture, resized as `input` says (Pillow), uint8 (batch, height, width, 3) as `pixels`; "
    "normalisation is in the graph. `logits` are raw, `probabilities` calibrated by the temperature. `strangeness` is "
    "the distance from the training pictures: above `unknown.threshold` a picture is none of the labels. Labels whose "
    "probability reaches theirs of `prediction_sets.thresholds`, and the most probable one, may be the picture's."
)


class LogitsAndStrangeness(ClassifierWithFeatures):
    """Normalized pictures -> logits, and strangeness as the last column, (n, labels + 1)."""

    def __init__(self, network: classifier.Classifier, rules: AnswerRules) -> None:
        super().__init__(network, rules.plan)
        self.strangeness = StrangenessScore(rules.bank)

    def forward(self, pictures: Tensor) -> Tensor:
        logits, features = self.logits_and_features(pictures)
        return torch.cat([logits, self.strangeness(features)[:, None]], 1)


class ExportedClassifier(nn.Module):
    """Pixels (n, height, width, 3) uint8 -> logits and calibrated probabilities, (n, labels), and strangeness (n,)."""

    # The names `whole`, `network` and `trunk` are in the names of the ONNX file's initializers.
    def __init__(self, network: LogitsAndStrangeness, spec: ModelSpec, temperature: float) -> None:
        super().__init__()
        self.whole, self.temperature = NormalizedNetwork(network, spec.input), temperature

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        outputs = self.whole(pixels)
        logits = outputs[:, :-1]
        return logits, (logits / self.temperature).softmax(-1), outputs[:, -1]


def export_classifier(
    out: Path, tensors: dict[str, Tensor], spec: ModelSpec, pixels: Pixels, metrics: dict[str, Any], params: Params
) -> tuple[dict[str, Any], ClassifierOutput, str]:
    """Write model.onnx and labels.json, and check the file against the PyTorch model; an `export.stage.ExportModel`.

    Raises:
        UserError: the outputs differ, or the evaluation's rules are missing.
    """
    temperature = metrics["test"]["temperature"]
    rules = read_answer_rules(out.parent / "evaluate" / RULES_FILE)
    expected = write_classifier_model(out, tensors, spec, rules, pixels, temperature, params.seed)
    write_json(out / "labels.json", labels_json(spec, USAGE, temperature=temperature, **rules_json(rules)))
    outputs = run_in_batches(Predictor(out).classifier_output, pixels, INFERENCE_BATCH)
    parity = check_classifier_parity(out, outputs, expected, params.export)
    difference, ties = parity["largest_logit_difference"], parity["ties"]
    but = f" but {ties} where two labels tie" if ties else ""
    return parity, outputs, f"largest difference of a logit {difference:.2g}, same label for all{but}"


def write_classifier_model(
    out: Path,
    tensors: dict[str, Tensor],
    spec: ModelSpec,
    rules: AnswerRules,
    pixels: Pixels,
    temperature: float,
    seed: int,
) -> Floats32:
    """Write model.onnx; the PyTorch model's logits for `pixels` in fp32, and strangeness beside them, (n, labels + 1).

    `rules` say what strangeness is measured from.
    """
    network = LogitsAndStrangeness(classifier.build(tensors, spec), rules).eval()
    # On the CPU, where folding and tracing have their examples, and where the file will be compared.
    compute = replace(configure_torch(TrainParams(precision="fp32"), seed), device=torch.device("cpu"))
    expected: Floats32 = run_inference(network, pixels, spec.input, compute).numpy()
    network.trunk, _ = fold_batch_norm(network.trunk, spec.input.size)
    write_onnx(
        ExportedClassifier(network, spec, temperature),
        out / "model.onnx",
        size=spec.input.size,
        outputs=ClassifierOutput._fields,
    )
    return expected


def check_classifier_parity(
    out: Path, outputs: ClassifierOutput, expected: Floats32, params: ExportParams
) -> dict[str, Any]:
    """Compare onnxruntime's logits and strangeness with PyTorch's.

    Where the PyTorch model's two highest logits are nearer than twice the largest difference, rounding decides which is
    the highest: another label is a tie there, and no failure. So near means at most MAX_TIE_GAP.

    Args:
        out: folder of the model, which is removed if it fails.
        outputs: of the ONNX model.
        expected: logits and strangeness of the PyTorch model, (n, labels + 1).
        params: the section `export`.

    Returns:
        parity.json.

    Raises:
        UserError: a logit or the strangeness differs by more than the tolerance, or a predicted label differs that is
            no tie.
    """
    expected, strangeness = expected[:, :-1], expected[:, -1]
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
    strange = float(np.abs(outputs.strangeness - strangeness).max())
    if not strange <= params.tolerance:
        reject_model(
            out,
            f"params.yaml: export.tolerance: {params.tolerance:g}: the ONNX model differs by {strange:.3g} in the "
            "strangeness of a picture; raise the tolerance only if you can live with that",
        )
    return {
        "pictures": len(expected),
        "largest_logit_difference": float(f"{difference:.3g}"),
        "largest_strangeness_difference": float(f"{strange:.3g}"),
        "same_label": same,
        "ties": ties,
        "tolerance": params.tolerance,
    }
