"""The threshold of "none of these" for a quantized classifier: int8 moves the features, and so their distances."""

import math
from pathlib import Path

from headstart.base.files import read_json, write_json
from headstart.base.manifest import read_manifest
from headstart.base.units import unit_numbers
from headstart.engine.inference import INFERENCE_BATCH
from headstart.engine.pixels import load_pixels
from headstart.export.predictor import Predictor, run_in_batches
from headstart.metrics.rejection import threshold_that_keeps


def refit_unknown_threshold(out: Path, root: Path) -> None:
    """Choose `unknown.threshold` of labels.json anew, on the validation pictures as the quantized model sees them.

    Args:
        out: folder of the quantized classifier.
        root: the repository root.
    """
    model, val = Predictor(out), read_manifest(root / "stages/split/val.json")
    pixels = load_pixels(val.images, root, model.input, "decode")
    strangeness = run_in_batches(model.classifier_output, pixels, INFERENCE_BATCH).strangeness
    threshold, _ = threshold_that_keeps(strangeness.astype(float), unit_numbers(val.images))
    labels = read_json(out / "labels.json")
    labels["unknown"]["threshold"] = threshold if math.isfinite(threshold) else None
    write_json(out / "labels.json", labels)
