"""timm networks without their classifier, by name."""

from typing import Any

from torch import nn

from headstart.base.errors import UserError, did_you_mean, first_line, list_some
from headstart.engine.input_spec import Shape


def create_backbone(name: str, **options: Any) -> nn.Module:
    """A timm network without its classifier: pictures (n, 3, h, w) -> features (n, `head_hidden_size`).

    Args:
        name: of the network in timm.
        options: passed on to `timm.create_model`.

    Raises:
        UserError: timm has no network of that name.
    """
    import timm

    check_backbone(name)
    network: nn.Module = timm.create_model(name, num_classes=0, **options)
    return network


def check_backbone(name: str) -> None:
    """Check that timm has a network of that name, with the tag of its weights behind a dot where one is given.

    Raises:
        UserError: it has none; the line names the nearest ones.
    """
    import timm

    if not timm.is_model(name):
        fix = did_you_mean(name, timm.list_models(), "`timm.list_models()` lists them all", count=3)
        raise UserError(f"params.yaml: model.backbone: {name!r}: timm has no such network; {fix}")
    architecture, _, tag = name.partition(".")
    known = [each.partition(".")[2] for each in timm.list_models(f"{architecture}.*", include_tags=True)]
    if tag and known and tag not in known:
        fix = did_you_mean(tag, known, f"it has {list_some(known, 5)}")
        raise UserError(f"params.yaml: model.backbone: {name!r}: timm has no weights {tag!r} of {architecture}; {fix}")


def image_size_error(shape: Shape, name: str, error: Exception, fix: str) -> UserError:
    """The error for a network that fails on pictures of that size: many transformers take one size only."""
    height, width = shape
    size = width if height == width else [height, width]
    return UserError(
        f"params.yaml: model.image_size: {size}: {name} does not take pictures of that size "
        f"({first_line(error)}); {fix}"
    )
