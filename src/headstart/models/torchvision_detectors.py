"""torchvision's complete detectors by name: models, COCO weights, the predictor for other labels, preprocessing."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

# Tensors whose shapes depend on the number of labels; those of boxes have four rows a label.
_PREDICTOR = re.compile(r"box_predictor\.|classification_head\.(cls_logits\.|module_list\.\d+\.(1\.)?(weight|bias)$)")
_BOXES = "box_predictor.bbox_pred."


def create_detector(name: str, labels: int) -> nn.Module:
    """The model, randomly initialized, with a predictor for so many labels."""
    from torchvision.models import get_model

    model: nn.Module = get_model(
        name, weights=None, weights_backbone=None, num_classes=labels + _has_background_class(name)
    )
    return model


def coco_labels(name: str) -> list[str]:
    """Label of each class of the COCO weights, a class for the background left out; `N/A`: a number without a label."""
    from torchvision.models import get_model_weights

    labels: list[str] = get_model_weights(name).DEFAULT.meta["categories"]
    return labels[1:] if _has_background_class(name) else labels


def _has_background_class(name: str) -> bool:
    """Whether class 0 of the predictor is the background; else its numbers are those of the labels."""
    return not name.startswith(("retinanet", "fcos"))


def drop_predictor(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A model's tensors without those of its predictor."""
    return {name: tensor for name, tensor in tensors.items() if not _PREDICTOR.search(name)}


def coco_predictor(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The predictor's tensors, if they are for COCO's labels; else none, for nobody knows whose rows they are."""
    with torch.device("meta"):
        model = create_detector(name, len(coco_labels(name)))
    needed = {key: tensor.shape for key, tensor in model.state_dict().items() if _PREDICTOR.search(key)}
    found = {key: tensors[key] for key, shape in needed.items() if key in tensors and tensors[key].shape == shape}
    return found if len(found) == len(needed) else {}


def transfer_predictor(
    name: str, coco: Mapping[str, Tensor], new: Mapping[str, Tensor], labels: Sequence[str]
) -> dict[str, Tensor]:
    """The predictor of a new model with what one trained on COCO knows of these labels.

    A label that COCO has, in any case and with `_` or `-` for a space, has COCO's rows, and so has the background.
    Another label's classifier stays as it is in the new model; its box regression is the mean over COCO's labels.

    Args:
        name: of the detector.
        coco: tensors of the COCO model; without a predictor nothing is transferred.
        new: tensors of the new model, of which the predictor's are read.
        labels: in the order of the new model's outputs.

    Returns:
        the transferred tensors; empty: nothing is.
    """
    first = int(_has_background_class(name))
    numbers = _coco_numbers(name)
    source = {first + row: numbers.get(_normalized(label)) for row, label in enumerate(labels)}
    classes, coco_classes = first + len(labels), first + len(coco_labels(name))
    found = {}
    for key in new:
        if not _PREDICTOR.search(key) or key not in coco:
            continue
        width = 4 if _BOXES in key else 1  # rows are anchors x classes x width
        rows = new[key].clone().reshape(-1, classes, width, *new[key].shape[1:])
        coco_rows = coco[key].reshape(-1, coco_classes, width, *coco[key].shape[1:])
        if first:
            rows[:, 0] = coco_rows[:, 0]
        for row, coco_row in source.items():
            if coco_row is not None:
                rows[:, row] = coco_rows[:, coco_row]
            elif width == 4:
                rows[:, row] = coco_rows[:, sorted(numbers.values())].mean(1)
        found[key] = rows.flatten(0, 2)
    return found


def shared_labels(name: str, labels: Sequence[str]) -> list[str]:
    """Those of the labels that COCO has too."""
    return [label for label in labels if _normalized(label) in _coco_numbers(name)]


def _coco_numbers(name: str) -> dict[str, int]:
    """The predictor's class of each label of COCO."""
    first = int(_has_background_class(name))
    unused = (_normalized("N/A"), _normalized("__background__"))  # COCO's numbers have gaps, from 0 on
    numbers = {_normalized(label): number for number, label in enumerate(coco_labels(name), first)}
    return {label: number for label, number in numbers.items() if label not in unused}


def _normalized(label: str) -> str:
    return re.sub(r"[\s_-]+", " ", label).strip().casefold()


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
