"""A network as an ONNX file that takes pixels as they are decoded, and its removal if it is not proven equal."""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from headstart.base.errors import UserError
from headstart.base.files import atomic_path
from headstart.engine.input_spec import ImageSize, InputSpec, to_shape


class NormalizedNetwork(nn.Module):
    """The network behind its normalisation: pixels (n, height, width, 3) uint8 -> outputs (n, ...)."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, input_spec: InputSpec) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(input_spec.mean).reshape(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(input_spec.std).reshape(1, 3, 1, 1) * 255)

    def forward(self, pixels: Tensor) -> Tensor:
        outputs: Tensor = self.network((pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std)
        return outputs


def write_onnx(
    network: nn.Module,
    path: Path,
    *,
    size: ImageSize,
    outputs: Sequence[str],
    operations: Mapping[Callable[..., Any], Callable[..., Any]] | None = None,
) -> None:
    """Write a network atomically as ONNX; its input is `pixels`, the batch size is free.

    Args:
        network: pixels (n, height, width, 3) uint8 -> a tensor for each of `outputs`.
        path: the file.
        size: side of the pictures, or height and width, in pixels.
        outputs: their names.
        operations: torch.onnx.export's `custom_translation_table`.
    """
    import onnx

    example = torch.zeros(2, *to_shape(size), 3, dtype=torch.uint8)
    # The exporter logs every pass, and warns of its own deprecated internals.
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
    model = program.model_proto
    clear_metadata(model)
    with atomic_path(path) as part:
        onnx.save(model, part)


def clear_metadata(message: Any) -> None:
    """Remove the `metadata_props` of an ONNX model, its graphs, functions, nodes and values.

    The exporter keeps stack traces in them: paths and code of the machine that exported, a quarter of a small file.
    Nothing reads them, and without them a model's bytes depend on neither.
    """
    for field, value in message.ListFields():
        if field.name == "metadata_props":
            message.ClearField(field.name)
        elif field.message_type is not None:
            for submessage in [value] if hasattr(value, "ListFields") else value:
                clear_metadata(submessage)


def reject_model(out: Path, message: str) -> NoReturn:
    """Remove the model.onnx of the folder `out`, which failed a check, and raise UserError with the message."""
    (out / "model.onnx").unlink()
    raise UserError(message)
