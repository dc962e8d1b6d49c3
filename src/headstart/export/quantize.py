"""Static quantization: an ONNX model with 8-bit weights and activations, calibrated on training pictures."""

import logging
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from headstart.engine.input_spec import Pixels

CALIBRATION_IMAGES = 128  # on solar-cells entropy or a moving average instead of min and max was no better
CALIBRATION_BATCH = 16
# Where a convolutional network has its time and its bytes. No Softmax: 256 levels are too few for probabilities.
WEIGHTED_OPERATORS = ("Conv", "Gemm", "MatMul")
QUANTIZED_OPERATORS = [*WEIGHTED_OPERATORS, "Add", "Mul", "Clip", "Relu", "GlobalAveragePool", "AveragePool", "MaxPool"]


def quantize(model: Path, out: Path, calibration: Pixels) -> None:
    """Write a model in 8 bits.

    Static quantization by onnxruntime (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html):
    QDQ format, weights per channel (the ranges of depthwise channels differ by orders of magnitude), ranges of
    activations from their minimum and maximum. A classifier's head stays in float, and so does what a detector computes
    from its feature maps: see `find_float_nodes`.

    Args:
        model: ONNX file in fp32, with the input `pixels`.
        out: ONNX file to write.
        calibration: pictures (n, height, width, 3) that show the ranges of the activations.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._starts = iter(range(0, len(calibration), CALIBRATION_BATCH))

        def get_next(self) -> dict[str, Pixels] | None:
            start = next(self._starts, None)
            if start is None:
                return None
            return {"pixels": np.ascontiguousarray(calibration[start : start + CALIBRATION_BATCH])}

    log = logging.getLogger()
    level = log.level
    log.setLevel(logging.ERROR)  # it advises the preprocessing that has just been done
    try:
        with tempfile.TemporaryDirectory() as scratch:
            prepared = Path(scratch) / "prepared.onnx"
            quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
            quantization.quantize_static(
                str(prepared),
                str(out),
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=QUANTIZED_OPERATORS,
                nodes_to_exclude=find_float_nodes(onnx.load(prepared).graph),
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                calibrate_method=quantization.CalibrationMethod.MinMax,
                extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
            )
    finally:
        log.setLevel(level)


def find_float_nodes(graph: Any) -> list[str]:
    """Names of the nodes that stay in float: a classifier's head, a detector's last convolutions, and what follows.

    A detector's compute logits and offsets, and boxes from them, where 256 levels are too few. RoiAlign and Where pass
    a feature map on, which is quantized; their other inputs (boxes, a choice between maps) stay in float.

    A classifier's features stay in float too, from the last weighted node of the backbone on. Those of several blocks
    have ranges that differ a hundredfold, so that 256 levels for all of them leave a few to the last ones: a head of
    `features: blocks` lost 18 points of accuracy on 394 pictures of solar-cells. And strangeness is a small difference
    of distances.

    Args:
        graph: ONNX GraphProto.
    """
    producer = {name: node for node in graph.node for name in node.output}
    above = _above_features(graph)
    weighted = {node.name: node for node in graph.node if node.op_type in WEIGHTED_OPERATORS and node.name not in above}
    quantized = {name for name, node in weighted.items() if node.op_type != "Conv"}
    quantized |= _last_weighted(graph, above, weighted)
    waiting = [name for node in weighted.values() for name in node.input]
    visited: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in visited or name not in producer:
            continue
        visited.add(name)
        node = producer[name]
        quantized.add(node.name)
        waiting += {"RoiAlign": node.input[:1], "Where": node.input[1:]}.get(node.op_type, node.input)
    return [node.name for node in graph.node if node.name not in quantized]


def _last_weighted(graph: Any, above: Collection[str], weighted: Collection[str]) -> set[str]:
    """Names of the weighted nodes from which a classifier's features come without another one between."""
    producer = {name: node for node in graph.node for name in node.output}
    waiting = [name for node in graph.node if node.name in above for name in node.input]
    found: set[str] = set()
    visited: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in visited or name not in producer:
            continue
        visited.add(name)
        node = producer[name]
        if node.name in weighted:
            found.add(node.name)
        else:
            waiting += node.input
    return found


def _above_features(graph: Any) -> set[str]:
    """Names of the nodes that compute a classifier's outputs from its features.

    They have weights of `models.classifier.Classifier.head` or `models.answer_rules.StrangenessScore`, by their names,
    or take what such a node makes. A detector's head is of convolutions.
    """
    names: set[str] = set()
    made: set[str] = set()
    for node in graph.node:  # an ONNX graph is sorted: a node comes after those that make its inputs
        of_head = node.op_type in ("Gemm", "MatMul") and any(".network.head." in name for name in node.input)
        if of_head or any(".strangeness." in name or name in made for name in node.input):
            names.add(node.name)
            made.update(node.output)
    return names
