"""A network as an ONNX file that takes pixels as they are decoded."""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headstart.pixels import Input


class Normalised(nn.Module):
    """Pixels (n, size, size, 3) uint8 -> what the network says of them, normalised."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, wanted: Input) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(wanted.mean).reshape(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(wanted.std).reshape(1, 3, 1, 1) * 255)

    def forward(self, pixels: Tensor) -> Tensor:
        said: Tensor = self.network((pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std)
        return said


def write(
    network: nn.Module,
    path: Path,
    *,
    size: int,
    outputs: Sequence[str],
    operations: Mapping[Callable[..., Any], Callable[..., Any]] | None = None,
) -> None:
    """Write a network whole or not at all; its input is `pixels`, the batch is free.

    Args:
        network: pixels (n, size, size, 3) uint8 -> a tensor for each of `outputs`.
        path: the file.
        size: pixels' side.
        outputs: their names.
        operations: how our own operations are said in ONNX.
    """
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    # The exporter narrates every pass, and warns of its own deprecated internals.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network.eval(),
            (example,),
            dynamo=True,
            verbose=False,
            input_names=["pixels"],
            output_names=list(outputs),
            dynamic_shapes={"pixels": {0: torch.export.Dim("batch")}},
            custom_translation_table=dict(operations or {}),
        )
    assert program is not None
    part = path.with_suffix(".part.onnx")
    program.save(part, external_data=False)
    part.replace(path)
