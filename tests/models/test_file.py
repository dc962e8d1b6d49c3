"""A model file: tensors, a spec, and the same bytes for the same model."""

import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from headstart.base.errors import UserError
from headstart.engine.input_spec import InputSpec
from headstart.models.file import ModelSpec, read_model_file, save_model_file
from headstart.params.root import HeadParams

SPEC = ModelSpec(
    task="classify",
    backbone="test_efficientnet",
    labels=("Ameise", "Käfer, groß"),
    features=256,
    head=HeadParams(hidden=(8, 4), dropout=0.1),
    input=InputSpec(size=32, resize="crop", interpolation="bicubic", crop=0.9, mean=(0.1, 0.2, 0.3), std=(1, 1, 1)),
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    tensors = {"b": torch.randn(3, 4).t(), "a": torch.arange(5), "c": torch.nn.Parameter(torch.ones(2))}
    save_model_file(tmp_path / "new/model.safetensors", tensors, SPEC)
    found, spec = read_model_file(tmp_path / "new/model.safetensors")
    assert spec == SPEC
    assert set(found) == set(tensors)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model.safetensors"], "no partial file is left"


def test_equal_models_are_equal_bytes(tmp_path: Path) -> None:
    tensors = {name: torch.full((3,), number) for number, name in enumerate("abc")}
    save_model_file(tmp_path / "1", tensors, SPEC)
    save_model_file(tmp_path / "2", dict(reversed(tensors.items())), SPEC)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"m\.safetensors: no such file; run the stage that writes it: dvc repro"):
        read_model_file(tmp_path / "m.safetensors")


def test_files_that_are_no_headstart_models(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"nonsense")
    _refused(path)
    save_file({"a": torch.zeros(1)}, path)
    _refused(path)
    for spec in ('{"task": "classify"}', "no JSON"):
        save_file({"a": torch.zeros(1)}, path, metadata={"headstart": spec})
        _refused(path)


def _refused(path: Path) -> None:
    with pytest.raises(UserError, match=r"m\.safetensors: not a headstart model \(.+\); run `dvc repro`") as caught:
        read_model_file(path)
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_an_error_of_the_system_and_leaves_nothing(tmp_path: Path) -> None:
    """safetensors' own writer raises an error of its own, which nobody would take for a full disk."""
    (tmp_path / "model.safetensors").write_bytes(b"before")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_model_file(tmp_path / "model.safetensors", {"a": torch.ones(5000)}, SPEC)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert (tmp_path / "model.safetensors").read_bytes() == b"before"
