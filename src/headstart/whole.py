"""torchvision's complete detectors by name: the models, their tensors, and what their pictures must become."""

import re
from collections.abc import Mapping

from torch import Tensor, nn

# Tensors that depend on which labels there are; all others are kept.
_PREDICTOR = re.compile(r"box_predictor\.|classification_head\.(cls_logits\.|module_list\.\d+\.(1\.)?(weight|bias)$)")


def make(name: str, labels: int) -> nn.Module:
    """The model, untrained, with a predictor for so many labels."""
    from torchvision.models import get_model

    nothing = 0 if name.startswith(("retinanet", "fcos")) else 1  # the others have a label for it
    model: nn.Module = get_model(name, weights=None, weights_backbone=None, num_classes=labels + nothing)
    return model


def kept(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A model's tensors without its predictor."""
    return {name: tensor for name, tensor in tensors.items() if not _PREDICTOR.search(name)}


def download(name: str) -> tuple[dict[str, Tensor], str]:
    """Its tensors as torchvision has trained them on COCO, and their address.

    Raises:
        OSError, RuntimeError: it cannot be reached, or what arrived is broken.
    """
    from torchvision.models import get_model_weights

    weights = get_model_weights(name).DEFAULT
    return weights.get_state_dict(progress=False, check_hash=True, map_location="cpu"), weights.url


def input_of(model: nn.Module) -> dict[str, object]:
    """What a picture must become, as weights.json has it."""
    how = model.transform
    assert isinstance(how, nn.Module)
    size = how.fixed_size[0] if how.fixed_size else how.min_size[0]  # type: ignore[index]
    return {"size": size, "interpolation": "bilinear", "crop": 1.0, "mean": how.image_mean, "std": how.image_std}
