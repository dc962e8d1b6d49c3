"""An ONNX model in 8 bits: weights and activations, calibrated on training pictures."""

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from headstart.pixels import Pixels

CALIBRATION = 128  # pictures; on solar-cells entropy or a moving average instead of extremes was no better
# Where a convolutional network has its time and its bytes. No Softmax: 256 steps are no probability.
PRODUCTS = ("Conv", "Gemm", "MatMul")
OPERATORS = [*PRODUCTS, "Add", "Mul", "Clip", "Relu", "GlobalAveragePool", "AveragePool", "MaxPool"]


def quantize(model: Path, out: Path, pictures: Pixels) -> None:
    """Write `model` in 8 bits to `out`; `pictures` (n, size, size, 3) show the ranges of the activations.

    Static quantization by onnxruntime (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html):
    QDQ format, weights per channel (depthwise channels differ by orders of magnitude), ranges from the extremes seen.
    An output of a classifier's head stays float, and so does what a detector makes of its maps: see `in_float`.
    """
    import onnx
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
                nodes_to_exclude=in_float(onnx.load(prepared).graph),
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                calibrate_method=quantization.CalibrationMethod.MinMax,
                extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
            )
    finally:
        log.setLevel(level)


def in_float(graph: Any) -> list[str]:
    """Names of an ONNX graph's nodes that no convolution or matrix product builds on, and of the last convolutions.

    These give a detector's logits and offsets, and boxes from them, where 256 steps are too few. What is cropped from
    the maps (RoiAlign, Where) comes from maps; where it is cropped comes from boxes, which stay float too.
    """
    maker = {name: node for node in graph.node for name in node.output}
    below = [node for node in graph.node if node.op_type in ("Gemm", "MatMul")]
    waiting = [name for node in graph.node if node.op_type in PRODUCTS for name in node.input]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in maker:
            continue
        seen.add(name)
        node = maker[name]
        below.append(node)
        waiting += {"RoiAlign": node.input[:1], "Where": node.input[1:]}.get(node.op_type, node.input)
    low = {node.name for node in below}
    return [node.name for node in graph.node if node.name not in low]
