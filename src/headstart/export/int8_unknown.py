"""The rule for "none of these" of a quantized classifier: int8 moves the features, and so their distances."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from headstart.base.arrays import Floats, Floats32, Ints
from headstart.base.files import read_json, write_json
from headstart.base.manifest import Manifest, read_manifest
from headstart.base.units import unit_numbers
from headstart.engine.inference import INFERENCE_BATCH
from headstart.engine.input_spec import Pixels
from headstart.engine.pixels import load_pixels
from headstart.export.predictor import Predictor, run_in_batches
from headstart.images.foreign_pictures import PER_KIND, foreign_pictures
from headstart.metrics.estimate import METRIC_DIGITS, estimate_json
from headstart.metrics.intervals import difference_interval, mean_interval
from headstart.metrics.rejection import rejection, threshold_that_keeps


def refit_unknown(out: Path, root: Path, test: Manifest, fp32: Floats32, int8: Floats32, seed: int) -> dict[str, Any]:
    """Choose `unknown.threshold` of labels.json anew, on the quantized model's own scores, and measure it.

    The scores are of the validation pictures alone: out-of-fold scores of training pictures, from which the fp32
    model's threshold comes too where its backbone was frozen, are not what the file gives.

    Args:
        out: folder of the quantized classifier.
        root: the repository root.
        test: the test set.
        fp32: strangeness of the test pictures before quantization, (n,).
        int8: the same of the quantized model.
        seed: of the generated pictures.

    Returns:
        `int8.unknown` of parity.json.
    """
    model, val = Predictor(out), read_manifest(root / "stages/split/val.json")

    def strangeness(pixels: Pixels) -> Floats:
        return run_in_batches(model.classifier_output, pixels, INFERENCE_BATCH).strangeness.astype(np.float64)

    scores = strangeness(load_pixels(val.images, root, model.input, "decode"))
    threshold, note = threshold_that_keeps(scores, unit_numbers(val.images))
    labels = read_json(out / "labels.json")
    before = labels["unknown"]["threshold"]
    labels["unknown"]["threshold"] = threshold if math.isfinite(threshold) else None
    write_json(out / "labels.json", labels)
    generated = foreign_pictures(model.input.shape[0], PER_KIND, seed)
    return {
        **unknown_figures(
            unit_numbers(test.images),
            (fp32.astype(np.float64), math.inf if before is None else before),
            (int8.astype(np.float64), threshold),
            strangeness(np.concatenate(list(generated.values()))),
        ),
        "threshold_from": len(scores),
        **({"note": note} if note else {}),
    }


def unknown_figures(
    units: Ints, fp32: tuple[Floats, float], int8: tuple[Floats, float], generated: Floats
) -> dict[str, Any]:
    """Which test pictures the quantized file keeps, beside the fp32 model, and which generated ones it turns away.

    Args:
        units: of the test pictures, (n,).
        fp32: their scores before quantization, (n,), and the threshold there, infinite where nothing is turned away.
        int8: both after it.
        generated: scores of generated pictures by the quantized model, (m,).
    """
    (was, was_threshold), (scores, threshold) = fp32, int8
    was_kept, kept = was <= was_threshold, scores <= threshold
    foreign = rejection(scores, units, generated, units.max() + 1 + np.arange(len(generated)), threshold)
    return {
        **estimate_json("kept", mean_interval(kept.astype(np.float64), units)),
        "kept_fp32": round(float(was_kept.mean()), METRIC_DIGITS),
        "kept_at_fp32_threshold": round(float((scores <= was_threshold).mean()), METRIC_DIGITS),
        "difference": estimate_json(
            "kept", difference_interval(kept.astype(np.float64) - was_kept.astype(np.float64), units)
        ),
        **estimate_json("fpr95", foreign.fpr95),
        **estimate_json("auroc", foreign.auroc),
        "pictures": foreign.pictures,
        **{f"threshold{of}": at for of, at in (("", threshold), ("_fp32", was_threshold)) if math.isfinite(at)},
    }
