"""Batch norm with fixed statistics put into the convolution before it: the same function in half the passes."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from headstart.compute import trial_pictures


@dataclass(frozen=True)
class Pair:
    """Names, in the trunk, of a convolution and of the batch norm that was put into it."""

    conv: str
    norm: str
    epsilon: float


@torch.no_grad()
def fold(trunk: nn.Module, size: int) -> tuple[nn.Module, list[Pair]]:
    """A copy of the trunk without its batch norms, and which they were.

    Which batch norm follows which convolution is read off the order of the modules, then proven: on a random picture
    the copy must give what the trunk gives. Where it does not (norm before convolution, say), the trunk itself comes
    back, and no pairs.
    """
    trunk = trunk.eval()
    # An untrained batch norm changes nothing, so any order would seem right: the proof is also made with stirred ones.
    stirred = _stir(copy.deepcopy(trunk))
    (folded, pairs), (trial, _) = _folded(trunk), _folded(stirred)
    if pairs and _same(folded, trunk, size) and _same(trial, stirred, size):
        return folded, pairs
    return trunk, []


def _folded(trunk: nn.Module) -> tuple[nn.Module, list[Pair]]:
    folded = copy.deepcopy(trunk)
    return folded, [pair for name, parent in folded.named_modules() for pair in _fold_children(name, parent)]


def _same(folded: nn.Module, trunk: nn.Module, size: int) -> bool:
    picture = trial_pictures(size, 1)
    expected, found = trunk(picture), folded(picture)
    scale = expected.abs().max().clamp(min=1e-6)
    return torch.allclose(found / scale, expected / scale, atol=1e-3)


def _stir(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            amount = torch.rand(2, module.num_features, generator=generator)
            module.weight.mul_(0.8 + 0.4 * amount[0])
            module.bias.add_(0.2 * module.weight.abs() * amount[1])
    return network


def _fold_children(prefix: str, parent: nn.Module) -> Iterator[Pair]:
    previous: tuple[str, nn.Conv2d] | None = None
    for name, child in list(parent.named_children()):
        norm = child if isinstance(child, nn.BatchNorm2d) and child.affine and child.track_running_stats else None
        if norm and previous and previous[1].out_channels == norm.num_features:
            _merge(previous[1], norm)
            after = [getattr(norm, part) for part in ("drop", "act") if hasattr(norm, part)]  # timm's BatchNormAct2d
            setattr(parent, name, nn.Sequential(*after))
            dot = f"{prefix}." if prefix else ""
            yield Pair(f"{dot}{previous[0]}", f"{dot}{name}", norm.eps)
        previous = (name, child) if isinstance(child, nn.Conv2d) and child.bias is None else None


def _merge(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    conv.weight.mul_(scale.reshape(-1, 1, 1, 1))
    conv.bias = nn.Parameter(norm.bias - norm.running_mean * scale)


def unfold(
    folded: dict[str, Tensor], pairs: list[Pair], original: dict[str, Tensor], frozen: set[str]
) -> dict[str, Tensor]:
    """The folded trunk's tensors under the names of the unfolded one, computing the same function.

    A convolution that trained keeps its folded weight and a batch norm that only adds the bias: mean 0, and a variance
    whose root with epsilon is 1. What is in `frozen` is the original, bit for bit.
    """
    found = {name: folded.get(name, tensor) for name, tensor in original.items()}
    for pair in pairs:
        bias = folded[f"{pair.conv}.bias"]
        found[f"{pair.norm}.weight"] = torch.ones_like(bias)
        found[f"{pair.norm}.bias"] = bias
        found[f"{pair.norm}.running_mean"] = torch.zeros_like(bias)
        found[f"{pair.norm}.running_var"] = torch.full_like(bias, 1 - pair.epsilon)
    norms = {pair.norm for pair in pairs if f"{pair.conv}.weight" in frozen}
    return {
        name: original[name] if name in frozen or name.rpartition(".")[0] in norms else tensor
        for name, tensor in found.items()
    }
