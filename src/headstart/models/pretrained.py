"""What a new model starts from: the weights stage's tensors, the spec, and the backbone with these tensors."""

from pathlib import Path

import torch
from torch import Tensor, nn

from headstart.base.errors import UserError, missing_file
from headstart.base.files import read_json
from headstart.engine.input_spec import InputSpec, TileSpec
from headstart.models.backbone import create_backbone, image_size_error
from headstart.models.file import ModelSpec, read_tensors
from headstart.params.root import ModelParams


def load_pretrained(
    task: str, model: ModelParams, labels: list[str], root: Path
) -> tuple[ModelSpec, dict[str, Tensor]]:
    """The spec of a new model, and the pretrained tensors by their names in timm or torchvision.

    Args:
        task: classify or detect.
        model: that section of params.yaml.
        labels: in the order of the outputs.
        root: the repository root.

    Raises:
        UserError: the weights stage has not run, or `model.head.features: blocks` is not for this backbone.
    """
    folder = root / "stages/weights"
    if not (folder / "weights.json").is_file():
        raise missing_file(folder / "weights.json", "run the stage that writes it: dvc repro weights")
    facts = read_json(folder / "weights.json")
    levels = tuple(facts["block_levels"]) if task == "classify" and model.head.features == "blocks" else ()
    if model.head.features == "blocks" and not levels:
        raise UserError(
            f"params.yaml: model.head.features: blocks: timm names no blocks of {model.backbone} that put out feature "
            "maps (n, c, h, w) or tokens (n, t, c); give last, or another backbone"
        )
    spec = ModelSpec(
        task=task,
        backbone=model.backbone,
        labels=tuple(labels),
        features=facts["block_features" if levels else "features"],
        head=model.head,
        levels=levels,
        input=InputSpec(
            **{**facts["input"], "size": model.image_size},
            resize=model.resize,
            tiles=TileSpec(**model.tiles.model_dump()) if model.tiles else None,
        ),
        detector=model.detector,
        pyramid=model.pyramid if model.detector and model.backbone else 0,
    )
    return spec, read_tensors(folder / "pretrained.safetensors")


def load_backbone(spec: ModelSpec, tensors: dict[str, Tensor]) -> nn.Module:
    """The spec's backbone with these tensors, in eval mode.

    Raises:
        UserError: it does not take pictures of the spec's size.
    """
    backbone = create_backbone(spec.backbone)
    backbone.load_state_dict(tensors)
    check_image_size(backbone, spec)
    return backbone


@torch.no_grad()
def check_image_size(backbone: nn.Module, spec: ModelSpec) -> None:
    """Run the backbone on zeros of the spec's size; many transformers take one size only. Leaves it in eval mode.

    Raises:
        UserError: it does not take pictures of that size.
    """
    shape = spec.input.shape
    try:
        backbone.eval()(torch.zeros(1, 3, *shape))
    except (AssertionError, RuntimeError) as error:
        own_size = backbone.pretrained_cfg["input_size"][-1]  # type: ignore[index]
        raise image_size_error(shape, spec.backbone, error, f"give its own, {own_size}, or another backbone") from None
