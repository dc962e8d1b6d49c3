"""How fast the exported model answers on this machine. The only figures of the pipeline that no second run repeats."""

import statistics
import time
from pathlib import Path
from typing import Any

from headstart.pixels import Pixels
from headstart.pool import cores
from headstart.predict import Model

BATCH = 8  # pictures in one pass, as `headstart serve` takes them
_PATIENCE = 1.5  # seconds of measuring one kind of pass
_PASSES = 30


def measure(folder: Path, seen: Pixels) -> dict[str, Any]:
    """Median times of the model in a folder, from pixels to answers, decoding aside.

    Args:
        folder: holds model.onnx and labels.json.
        seen: pictures (n, size, size, 3).

    Returns:
        milliseconds of one picture alone, pictures_per_second in batches, the threads used, the file's bytes.
    """
    model = Model(folder)
    alone = _median(model, seen[:1])
    together = seen[[number % len(seen) for number in range(BATCH)]]
    return {
        "milliseconds": round(1000 * alone, 1),
        "pictures_per_second": round(BATCH / _median(model, together), 1),
        "threads": cores(),
        "bytes": (folder / "model.onnx").stat().st_size,
    }


def _median(model: Model, pixels: Pixels) -> float:
    model.answer(pixels)  # the first pass lays out memory
    seconds: list[float] = []
    while len(seconds) < _PASSES and sum(seconds) < _PATIENCE:
        begin = time.perf_counter()
        model.answer(pixels)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)
