"""An ONNX model in 8 bits: weights and activations, calibrated on training pictures."""

import logging
import tempfile
from pathlib import Path

import numpy as np

from headstart.pixels import Pixels

CALIBRATION = 128  # pictures; on solar-cells entropy or a moving average instead of extremes was no better
# Where a convolutional network has its time and its bytes. No Softmax: 256 steps are no probability.
OPERATORS = ["Conv", "Gemm", "MatMul", "Add", "Mul", "Clip", "Relu", "GlobalAveragePool", "AveragePool", "MaxPool"]


def quantize(model: Path, out: Path, pictures: Pixels) -> None:
    """Write `model` in 8 bits to `out`; `pictures` (n, size, size, 3) show the ranges of the activations.

    Static quantization by onnxruntime (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html):
    QDQ format, weights per channel (depthwise channels differ by orders of magnitude), ranges from the extremes seen,
    and an output of the head that stays float.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._parts = iter(range(0, len(pictures), 16))

        def get_next(self) -> dict[str, Pixels] | None:
            start = next(self._parts, None)
            return None if start is None else {"pixels": np.ascontiguousarray(pictures[start : start + 16])}

    log = logging.getLogger()
    level = log.level
    log.setLevel(logging.ERROR)  # it advises to do what has just been done
    try:
        with tempfile.TemporaryDirectory() as scratch:
            prepared = Path(scratch) / "prepared.onnx"
            quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
            quantization.quantize_static(
                str(prepared),
                str(out),
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=OPERATORS,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                calibrate_method=quantization.CalibrationMethod.MinMax,
                extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
            )
    finally:
        log.setLevel(level)
