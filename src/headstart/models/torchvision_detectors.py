"""torchvision's complete detectors by name: models, COCO weights, preprocessing."""

import re
from collections.abc import Mapping

from torch import Tensor, nn

# Tensors whose shapes depend on the number of labels.
_PREDICTOR = re.compile(r"box_predictor\.|classification_head\.(cls_logits\.|module_list\.\d+\.(1\.)?(weight|bias)$)")


def create_detector(name: str, labels: int) -> nn.Module:
    """The model, randomly initialized, with a predictor for so many labels."""
    from torchvision.models import get_model

    background = 0 if name.startswith(("retinanet", "fcos")) else 1  # the others have a class for it
    model: nn.Module = get_model(name, weights=None, weights_backbone=None, num_classes=labels + background)
    return model


def drop_predictor(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A model's tensors without those of its predictor."""
    return {name: tensor for name, tensor in tensors.items() if not _PREDICTOR.search(name)}


def download_coco_weights(name: str) -> tuple[dict[str, Tensor], str]:
    """The tensors that torchvision has trained on COCO, and their address.

    Raises:
        OSError, RuntimeError: the download fails, or the file is broken.
    """
    from torchvision.models import get_model_weights

    weights = get_model_weights(name).DEFAULT
    return weights.get_state_dict(progress=False, check_hash=True, map_location="cpu"), weights.url


def describe_input(model: nn.Module) -> dict[str, object]:
    """Preprocessing of a model, as weights.json has it."""
    transform = model.transform
    assert isinstance(transform, nn.Module)
    size = transform.fixed_size[0] if transform.fixed_size else transform.min_size[0]  # type: ignore[index]
    return {
        "size": size,
        "interpolation": "bilinear",
        "crop": 1.0,
        "mean": transform.image_mean,
        "std": transform.image_std,
    }
