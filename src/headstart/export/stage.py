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
from headstart.engine.tile_manifest import cut_manifest, training_tiles
from headstart.engine.tiles import tile_grid
from headstart.export.int8_unknown import refit_unknown
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
        metric: of the test set, which int8 may lower by at most `export.max_drop`, at the worst end of the interval.

    Raises:
        UserError: a file of an earlier stage is missing, the ONNX model's outputs differ from the PyTorch model's, or
            int8 may lower the metric by too much.
    """
    out = root / "stages/export"
    tensors, spec = read_model_file(root / "stages/fine-tune/model.safetensors")
    metrics = read_json(root / "stages/evaluate/metrics.json")
    out.mkdir(parents=True, exist_ok=True)
    test = read_manifest(root / "stages/split/test.json")
    pixels = load_pixels(cut_manifest(test, spec.input.tiles).images, root, spec.input, "decode")
    parity, outputs, summary = export_model(out, tensors, spec, pixels, metrics, params)
    fp32_speed: dict[str, Any] = {}
    if params.export.quantize == "int8":
        fp32_speed = {"fp32": measure_speed(out, pixels)}
        calibration = _calibration_pixels(root, spec, params.seed)
        fp32 = outputs
        parity, outputs = _quantize_to_int8(
            out, parity, outputs, pixels, test, calibration, metric, params.export.max_drop
        )
        if isinstance(fp32, ClassifierOutput) and isinstance(outputs, ClassifierOutput):
            own = refit_unknown(out, root, test, fp32.strangeness, outputs.strangeness, params.seed)
            parity["int8"]["unknown"] = own
    write_json(out / "parity.json", parity)
    write_predictions(_collect_predictions(out, outputs, pixels, test), out)
    speed = measure_speed(out, pixels) | fp32_speed
    write_json(out / "speed.json", speed)
    write_model_card(out / "model_card.md", spec, metrics, parity, speed, root)
    print(
        f"export: {len(test.images)} test pictures, {summary}; {speed['milliseconds']:g} ms a "
        f"{'tile' if spec.input.tiles else 'picture'}; "
        "stages/export/model.onnx"
    )
    if int8 := parity.get("int8"):
        change = int8["difference"]
        interval = "the same answers"
        if f"{metric}_low" in change:
            interval = (
                f"95 % interval of the difference {change[f'{metric}_low']:.4f} to {change[f'{metric}_high']:.4f}"
            )
        print(
            f"export: int8 is {int8['bytes'] / int8['bytes_fp32']:.3f} of the size, test {metric} {int8[metric]:.4f} "
            f"(fp32 {int8[f'{metric}_fp32']:.4f}; {interval}), {speed['milliseconds']:g} ms a picture (fp32 "
            f"{speed['fp32']['milliseconds']:g})"
        )


def _collect_predictions(out: Path, outputs: Output, pixels: Pixels, test: Manifest) -> SavedPredictions:
    model = Predictor(out)
    tiles = model.input.tiles
    counts = [len(tile_grid(image.width, image.height, tiles)) if tiles else 1 for image in test.images]
    images = [
        PreprocessedImage(pixels[end - count : end], image.width, image.height)
        for image, count, end in zip(test.images, counts, np.cumsum(counts), strict=True)
    ]
    return collect_predictions(test, model.labels, model.to_predictions(outputs, images))


def _calibration_pixels(root: Path, spec: ModelSpec, seed: int) -> Pixels:
    """A random sample of the training pictures."""
    train = read_manifest(root / "stages/split/train.json")
    images = training_tiles(train, spec.input.tiles).images
    sample = np.random.default_rng(seed).permutation(len(images))[:CALIBRATION_IMAGES]
    return load_pixels([images[number] for number in sorted(sample)], root, spec.input, "calibrate")


def _quantize_to_int8(
    out: Path,
    parity: dict[str, Any],
    outputs: Output,
    pixels: Pixels,
    test: Manifest,
    calibration: Pixels,
    metric: str,
    max_drop: float,
) -> tuple[dict[str, Any], Output]:
    """Replace model.onnx by its 8-bit version.

    Args:
        out: folder of the model, which is removed if it fails.
        parity: of the fp32 file with the PyTorch model.
        outputs: of the fp32 file on the test set.
        pixels: of the test set.
        test: its manifest.
        calibration: pixels of training pictures.
        metric: accuracy or AP.
        max_drop: by which the metric may fall, at the worst end of the interval of its difference.

    Returns:
        parity.json, which speaks of the 8-bit file and has that of the fp32 file as `fp32`, its figures and its size as
        `int8`; and the 8-bit model's outputs on the test set.

    Raises:
        UserError: the metric may fall by more.
    """
    from headstart.export.int8 import (
        ModelAnswers,
        measure_change,
        refusal,
    )  # imports scikit-learn, which only int8 needs

    model, size = out / "model.onnx", (out / "model.onnx").stat().st_size
    fp32 = ModelAnswers(outputs, _collect_predictions(out, outputs, pixels, test))
    with atomic_path(model) as part:
        quantize(model, part, calibration)
    quantized = run_in_batches(Predictor(out).output, pixels, DETECTOR_BATCH)
    int8 = ModelAnswers(quantized, _collect_predictions(out, quantized, pixels, test))
    change = measure_change(test, fp32, int8, read_json(out / "labels.json"), metric)
    if problem := refusal(change, metric, max_drop, len(test.images)):
        reject_model(out, problem)
    sizes = {"bytes": model.stat().st_size, "bytes_fp32": size, "calibrated_on": len(calibration)}
    return {**change.parity, "fp32": parity, "int8": {**change.figures, **sizes}}, quantized
