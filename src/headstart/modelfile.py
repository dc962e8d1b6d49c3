"""model.safetensors: tensors, and a card that says what network they belong to."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from headstart.errors import UserError, missing_file
from headstart.params import HeadParams
from headstart.pixels import Input


class Card(BaseModel):
    """What stands in a model file beside the tensors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    backbone: str
    labels: tuple[str, ...]
    features: int
    head: HeadParams
    input: Input
    detector: str = ""  # of task detect
    pyramid: int = 0  # channels of its maps; 0: the detector is whole, with backbone and pyramid of its own


# safetensors writes several metadata keys in random order; one key keeps the bytes of equal models equal.
_KEY = "headstart"


def save(path: Path, tensors: Mapping[str, Tensor], card: Card) -> None:
    """Write a model whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
        part,
        metadata={_KEY: card.model_dump_json()},
    )
    part.replace(path)


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Hash of names, kinds and values, in hex: what a cache knows weights by."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def read(path: Path) -> tuple[dict[str, Tensor], Card]:
    """Read a model and its card.

    Raises:
        UserError: the file is missing or was not written by `save`.
    """
    if not path.is_file():
        raise missing_file(path, "run the stage that writes it: dvc repro")
    try:
        with safe_open(path, framework="pt") as file:
            card = Card.model_validate(json.loads((file.metadata() or {})[_KEY]))
            return {name: file.get_tensor(name) for name in file.keys()}, card  # noqa: SIM118 (it is no dict)
    except (SafetensorError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: not a model of ours ({reason}); run `dvc repro` to make it anew") from None
