"""Speed of the exported model on this machine: the only numbers of the pipeline that differ from run to run."""

import statistics
import time
from pathlib import Path
from typing import Any

from headstart.base.parallel import process_cpu_count
from headstart.engine.input_spec import Pixels
from headstart.export.predictor import Predictor

SERVING_BATCH = 8  # pictures in one forward pass of `headstart serve`
_MAX_SECONDS = 1.5  # of measuring one batch size
_MAX_PASSES = 30


def measure_speed(folder: Path, pixels: Pixels) -> dict[str, Any]:
    """Median times of a model's forward passes, without decoding.

    Args:
        folder: with model.onnx and labels.json.
        pixels: pictures (n, height, width, 3).

    Returns:
        milliseconds of one picture alone, pictures_per_second in batches, the threads used, the file's bytes.
    """
    model = Predictor(folder)
    alone = _median_seconds(model, pixels[:1])
    batch = pixels[[number % len(pixels) for number in range(SERVING_BATCH)]]
    return {
        "milliseconds": round(1000 * alone, 1),
        "pictures_per_second": round(SERVING_BATCH / _median_seconds(model, batch), 1),
        "threads": process_cpu_count(),
        "bytes": (folder / "model.onnx").stat().st_size,
    }


def _median_seconds(model: Predictor, pixels: Pixels) -> float:
    model.output(pixels)  # the first pass allocates memory
    seconds: list[float] = []
    while len(seconds) < _MAX_PASSES and sum(seconds) < _MAX_SECONDS:
        begin = time.perf_counter()
        model.output(pixels)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)
