"""A model file: tensors, a card, and the same bytes for the same model."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from headstart import modelfile
from headstart.errors import UserError
from headstart.modelfile import Card
from headstart.params import HeadParams
from headstart.pixels import Input

CARD = Card(
    task="classify",
    backbone="test_efficientnet",
    labels=("Ameise", "Käfer, groß"),
    features=256,
    head=HeadParams(hidden=(8, 4), dropout=0.1),
    input=Input(size=32, resize="crop", interpolation="bicubic", crop=0.9, mean=(0.1, 0.2, 0.3), std=(1, 1, 1)),
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    tensors = {"b": torch.randn(3, 4).t(), "a": torch.arange(5), "c": torch.nn.Parameter(torch.ones(2))}
    modelfile.save(tmp_path / "new/model.safetensors", tensors, CARD)
    found, card = modelfile.read(tmp_path / "new/model.safetensors")
    assert card == CARD
    assert set(found) == set(tensors)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model.safetensors"], "nothing half-written is left"


def test_equal_models_are_equal_bytes(tmp_path: Path) -> None:
    tensors = {name: torch.full((3,), number) for number, name in enumerate("abc")}
    modelfile.save(tmp_path / "1", tensors, CARD)
    modelfile.save(tmp_path / "2", dict(reversed(tensors.items())), CARD)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"m\.safetensors: no such file; run the stage that writes it: dvc repro"):
        modelfile.read(tmp_path / "m.safetensors")


def test_files_that_are_no_models_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"nonsense")
    _refused(path)
    save_file({"a": torch.zeros(1)}, path)
    _refused(path)
    for card in ('{"task": "classify"}', "no JSON"):
        save_file({"a": torch.zeros(1)}, path, metadata={"headstart": card})
        _refused(path)


def _refused(path: Path) -> None:
    with pytest.raises(UserError, match=r"m\.safetensors: not a model of ours \(.+\); run `dvc repro`") as caught:
        modelfile.read(path)
    assert "\n" not in str(caught.value)
