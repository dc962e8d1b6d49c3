"""The export stage: the fine-tuned model as ONNX, proven equal to the PyTorch model; optionally in 8 bits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from headstart.base.files import atomic_path, read_json, write_json
from headstart.base.manifest import Manifest, read_manifest
from headstart.engine.inference import DETECTOR_BATCH
from headstart.engine.input_spec import Pixels
from headstart.engine.pixels import load_pixels
from headstart.export.model_card import write_model_card
from headstart.export.onnx_file import reject_model
from headstart.export.predictor import ClassifierOutput, DetectorOutput, Predictor, PreprocessedImage, run_in_batches
from headstart.export.quantize import CALIBRATION_IMAGES, quantize
from headstart.export.saved_predictions import SavedPredictions, collect_predictions, write_predictions
from headstart.export.speed import measure_speed
from headstart.models.file import ModelSpec, read_model_file
from headstart.params.root import Params

Output = ClassifierOutput | DetectorOutput
# Folder, tensors, spec, pixels of the test set, metrics.json, params -> parity.json, outputs on the test set, summary.
ExportModel = Callable[
    [Path, dict[str, Tensor], ModelSpec, Pixels, dict[str, Any], Params], tuple[dict[str, Any], Output, str]
]


def export(params: Params, root: Path, export_model: ExportModel, *, metric: str) -> None:
    """Write stages/export: model.onnx, labels.json, parity.json, answers.json, speed.json, model_card.md.

    The same params give the same bytes, except for the times in speed.json and the model card.

    Args:
        params: all of params.yaml.
        root: the repository root.
        export_model: writes the task's model.onnx and labels.json, and checks them against the PyTorch model.
        metric: of the test set, which int8 may lower by at most `export.max_drop`.

    Raises:
        UserError: a file of an earlier stage is missing, the ONNX model's outputs differ from the PyTorch model's, or
            int8 lowers the metric by too much.
    """
    out = root / "stages/export"
    tensors, spec = read_model_file(root / "stages/fine-tune/model.safetensors")
    metrics = read_json(root / "stages/evaluate/metrics.json")
    out.mkdir(parents=True, exist_ok=True)
    test = read_manifest(root / "stages/split/test.json")
    pixels = load_pixels(test.images, root, spec.input, "decode")
    parity, outputs, summary = export_model(out, tensors, spec, pixels, metrics, params)
    fp32_speed: dict[str, Any] = {}
    if params.export.quantize == "int8":
        fp32_speed = {"fp32": measure_speed(out, pixels)}
        calibration = _calibration_pixels(root, spec, params.seed)
        parity["int8"], outputs = _quantize_to_int8(
            out, outputs, pixels, test, calibration, metric, params.export.max_drop
        )
    write_json(out / "parity.json", parity)
    write_predictions(_collect_predictions(out, outputs, pixels, test), out)
    speed = measure_speed(out, pixels) | fp32_speed
    write_json(out / "speed.json", speed)
    write_model_card(out / "model_card.md", spec, metrics, parity, speed, root)
    print(
        f"export: {parity['pictures']} test pictures, {summary}; {speed['milliseconds']:g} ms a picture; "
        "stages/export/model.onnx"
    )
    if int8 := parity.get("int8"):
        print(
            f"export: int8 is {int8['bytes'] / int8['bytes_fp32']:.3f} of the size, test {metric} {int8[metric]:.4f} "
            f"(fp32 {int8[f'{metric}_fp32']:.4f}), {speed['milliseconds']:g} ms a picture (fp32 "
            f"{speed['fp32']['milliseconds']:g})"
        )


def _collect_predictions(out: Path, outputs: Output, pixels: Pixels, test: Manifest) -> SavedPredictions:
    model = Predictor(out)
    images = [
        PreprocessedImage(of_image, image.width, image.height)
        for of_image, image in zip(pixels, test.images, strict=True)
    ]
    return collect_predictions(test, model.labels, model.to_predictions(outputs, images))


def _calibration_pixels(root: Path, spec: ModelSpec, seed: int) -> Pixels:
    """A random sample of the training pictures."""
    images = read_manifest(root / "stages/split/train.json").images
    sample = np.random.default_rng(seed).permutation(len(images))[:CALIBRATION_IMAGES]
    return load_pixels([images[number] for number in sorted(sample)], root, spec.input, "calibrate")


def _quantize_to_int8(
    out: Path, outputs: Output, pixels: Pixels, test: Manifest, calibration: Pixels, metric: str, max_drop: float
) -> tuple[dict[str, Any], Output]:
    """Replace model.onnx by its 8-bit version.

    Args:
        out: folder of the model, which is removed if it fails.
        outputs: of the fp32 model on the test set.
        pixels: of the test set.
        test: its manifest.
        calibration: pixels of training pictures.
        metric: accuracy or AP.
        max_drop: by which the metric may fall.

    Returns:
        metric and size before and after, for parity.json, and the 8-bit model's outputs on the test set.

    Raises:
        UserError: the metric falls by more.
    """
    before = _metric_and_size(out, outputs, pixels, test, metric)
    with atomic_path(out / "model.onnx") as part:
        quantize(out / "model.onnx", part, calibration)
    outputs = run_in_batches(Predictor(out).output, pixels, DETECTOR_BATCH)
    after = _metric_and_size(out, outputs, pixels, test, metric)
    drop = before[metric] - after[metric]
    if not drop <= max_drop:
        reject_model(
            out,
            f"params.yaml: export.max_drop: {max_drop:g}: int8 costs {drop:.4f} of test {metric} "
            f"({before[metric]:.4f} to {after[metric]:.4f}); raise it, or export.quantize: none",
        )
    fp32 = {f"{key}_fp32": value for key, value in before.items()}
    return after | fp32 | {"calibrated_on": len(calibration)}, outputs


def _metric_and_size(out: Path, outputs: Output, pixels: Pixels, test: Manifest, metric: str) -> dict[str, Any]:
    from headstart.export.comparison import metric_value  # imports scikit-learn, which only int8 needs

    value = metric_value(test, _collect_predictions(out, outputs, pixels, test), metric)
    return {metric: round(value, 6), "bytes": (out / "model.onnx").stat().st_size}
