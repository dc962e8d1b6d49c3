"""Batch norm with fixed statistics folded into the convolution before it: the same function in half the passes."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from headstart.engine.equivalence import example_input, outputs_agree
from headstart.engine.input_spec import ImageSize


@dataclass(frozen=True)
class FoldedNorm:
    """Names, in the backbone, of a convolution and of the batch norm folded into it."""

    conv: str
    norm: str
    epsilon: float


@torch.no_grad()
def fold_batch_norm(backbone: nn.Module, size: ImageSize) -> tuple[nn.Module, list[FoldedNorm]]:
    """A copy of the backbone without its batch norms, and which they were.

    Which batch norm follows which convolution is read off the order of the modules, then verified: on a random picture
    the copy must compute what the backbone computes. Where it does not (pre-activation networks, say), the backbone
    itself is returned, and an empty list.

    Args:
        backbone: any network on the CPU; it is put into eval mode.
        size: side of the pictures, or height and width, in pixels.
    """
    backbone = backbone.eval()
    # A randomly initialized batch norm is the identity, so that any pairing would pass: perturbed ones are folded too.
    perturbed = _perturb_batch_norms(copy.deepcopy(backbone))
    (folded, pairs), (folded_perturbed, _) = _fold_copy(backbone), _fold_copy(perturbed)
    picture = example_input(size, 1)
    if pairs and all(
        outputs_agree(original(picture), copied(picture), tolerance=1e-3)
        for original, copied in ((backbone, folded), (perturbed, folded_perturbed))
    ):
        return folded, pairs
    return backbone, []


def _fold_copy(backbone: nn.Module) -> tuple[nn.Module, list[FoldedNorm]]:
    folded = copy.deepcopy(backbone)
    return folded, [pair for name, parent in folded.named_modules() for pair in _fold_children(name, parent)]


def _perturb_batch_norms(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            amount = torch.rand(2, module.num_features, generator=generator)
            module.weight.mul_(0.8 + 0.4 * amount[0])
            module.bias.add_(0.2 * module.weight.abs() * amount[1])
    return network


def _fold_children(prefix: str, parent: nn.Module) -> Iterator[FoldedNorm]:
    previous: tuple[str, nn.Conv2d] | None = None
    for name, child in list(parent.named_children()):
        norm = child if isinstance(child, nn.BatchNorm2d) and child.affine and child.track_running_stats else None
        if norm and previous and previous[1].out_channels == norm.num_features:
            _fold_into_conv(previous[1], norm)
            rest = [getattr(norm, part) for part in ("drop", "act") if hasattr(norm, part)]  # timm's BatchNormAct2d
            setattr(parent, name, nn.Sequential(*rest))
            dot = f"{prefix}." if prefix else ""
            yield FoldedNorm(f"{dot}{previous[0]}", f"{dot}{name}", norm.eps)
        previous = (name, child) if isinstance(child, nn.Conv2d) and child.bias is None else None


def _fold_into_conv(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    conv.weight.mul_(scale.reshape(-1, 1, 1, 1))
    conv.bias = nn.Parameter(norm.bias - norm.running_mean * scale)


def unfold_batch_norm(
    folded: dict[str, Tensor], pairs: list[FoldedNorm], original: dict[str, Tensor], frozen: set[str]
) -> dict[str, Tensor]:
    """The folded backbone's tensors under the names of the original one, computing the same function.

    A convolution that has trained keeps its folded weight, and its batch norm only adds the bias: mean 0, and a
    variance whose root with epsilon is 1. What is in `frozen` is the original, bit for bit.

    Args:
        folded: state dict of the folded backbone.
        pairs: as `fold_batch_norm` returns them.
        original: state dict before folding.
        frozen: names of parameters that did not train.
    """
    tensors = {name: folded.get(name, tensor) for name, tensor in original.items()}
    for pair in pairs:
        bias = folded[f"{pair.conv}.bias"]
        tensors[f"{pair.norm}.weight"] = torch.ones_like(bias)
        tensors[f"{pair.norm}.bias"] = bias
        tensors[f"{pair.norm}.running_mean"] = torch.zeros_like(bias)
        tensors[f"{pair.norm}.running_var"] = torch.full_like(bias, 1 - pair.epsilon)
    frozen_norms = {pair.norm for pair in pairs if f"{pair.conv}.weight" in frozen}
    return {
        name: original[name] if name in frozen or name.rpartition(".")[0] in frozen_norms else tensor
        for name, tensor in tensors.items()
    }
