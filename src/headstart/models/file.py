"""The model file, model.safetensors: tensors, and in its metadata the spec of the network they belong to."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from headstart.base.errors import UserError, first_line, missing_file
from headstart.base.files import write_bytes
from headstart.engine.input_spec import InputSpec
from headstart.params.root import HeadParams


class ModelSpec(BaseModel):
    """What is needed to build the network and to prepare its input; JSON in the model file.

    Attributes:
        task: classify or detect.
        backbone: timm's name; empty for a complete torchvision detector.
        labels: in the order of the outputs.
        features: width of what the head takes: the backbone's pooled features, and those of its blocks.
        head: of a classifier.
        levels: of `head.features: blocks`, as `block_features.find_levels` returns them; empty: the pooled ones alone.
        input: preprocessing.
        detector: of task detect, one of params.root.DETECTORS.
        pyramid: channels of the feature pyramid; 0: a classifier, or a complete detector with a pyramid of its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    backbone: str
    labels: tuple[str, ...]
    features: int
    head: HeadParams
    levels: tuple[str, ...] = ()
    input: InputSpec
    detector: str = ""
    pyramid: int = 0

    def description(self) -> str:
        """The architecture, for people: `fcos on a feature pyramid of 256 channels, backbone resnet50`."""
        if self.detector and not self.backbone:
            return f"torchvision's {self.detector}, with a new predictor"
        if self.detector:
            return f"{self.detector} on a feature pyramid of {self.pyramid} channels, backbone {self.backbone}"
        layers = f"hidden layers {', '.join(map(str, self.head.hidden))}" if self.head.hidden else "no hidden layer"
        kind = "RBF kernel" if self.head.kind == "kernel" else layers
        of_blocks = f", on features of {len(self.levels)} blocks" if self.levels else ""
        return f"{self.backbone} with a new head: {kind}{of_blocks}, dropout {self.head.dropout:g}"


# safetensors writes several metadata keys in random order; one key keeps the bytes of equal models equal.
_METADATA_KEY = "headstart"


def save_model_file(path: Path, tensors: Mapping[str, Tensor], spec: ModelSpec) -> None:
    """Write a model atomically.

    Raises:
        OSError: the disk is full, or the folder cannot be written to; safetensors' own writer raises its own error.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(contiguous, metadata={_METADATA_KEY: spec.model_dump_json()}))


def read_model_file(path: Path) -> tuple[dict[str, Tensor], ModelSpec]:
    """Read a model's tensors and its spec.

    Raises:
        UserError: the file is missing, or `save_model_file` did not write it.
    """
    _check_readable(path)
    try:
        with safe_open(path, framework="pt") as file:
            spec = ModelSpec.model_validate(json.loads((file.metadata() or {})[_METADATA_KEY]))
            return {name: file.get_tensor(name) for name in file.keys()}, spec  # noqa: SIM118 (it is no dict)
    except (SafetensorError, KeyError, ValueError) as error:
        reason = first_line(error)
        raise UserError(f"{path}: not a headstart model ({reason}); run `dvc repro` to make it anew") from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file that a stage wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    _check_readable(path)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path}: damaged ({first_line(error)}); run `dvc repro` to make it anew") from None


def _check_readable(path: Path) -> None:
    """Raise what opening the file raises: safetensors calls a file without permission a missing one."""
    if not path.is_file():
        raise missing_file(path, "run the stage that writes it: dvc repro")
    with path.open("rb"):
        pass


def strip_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, dtypes, shapes and values, in hex: identifies weights in cache keys."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
