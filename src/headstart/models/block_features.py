"""Features of the backbone's blocks: means and maxima of what they put out, beside the backbone's last features."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from headstart.base.errors import UserError
from headstart.engine.equivalence import example_input
from headstart.engine.input_spec import ImageSize, to_shape
from headstart.models.freeze import list_blocks

MAX_WIDTH = 8192  # of the features of all blocks together; of a wider network every second block is taken, or fewer
LARGEST_MAP = 1 / 4  # of the picture's side: maps of earlier blocks take the longest to pool and tell the least
TOKENS = ":tokens"  # after the name of a block that puts out (n, t, c): a traced graph cannot ask for the shape


class BlockFeatures(nn.Module):
    """Pictures (n, 3, h, w) -> (n, f): the backbone's pooled features, then mean and maximum of each block's channels.

    Attributes:
        trunk: the backbone.
        levels: names of its blocks, as `find_levels` returns them.
    """

    def __init__(self, trunk: nn.Module, levels: Sequence[str]) -> None:
        super().__init__()
        self.trunk, self.levels = trunk, tuple(levels)

    def forward(self, pictures: Tensor) -> Tensor:
        return block_features(self.trunk, pictures, self.levels)


def block_features(trunk: nn.Module, pictures: Tensor, levels: Sequence[str]) -> Tensor:
    """`BlockFeatures` as a function.

    Raises:
        ValueError: a block is never called, or is one layer of a graph that is being traced.
    """
    last, outputs = _run(trunk, pictures, levels)
    if len(outputs) < len(levels):
        raise ValueError("not every block is a module of its own")
    pooled = (part for name in levels for part in _pool(outputs[name], tokens=name.endswith(TOKENS)))
    return torch.cat([last.float(), *(part.float() for part in pooled)], 1)


def _run(trunk: nn.Module, pictures: Tensor, levels: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """The pooled features, and what each block puts out."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> torch.utils.hooks.RemovableHandle:
        module = trunk.get_submodule(name.removesuffix(TOKENS))
        return module.register_forward_hook(lambda *call: outputs.__setitem__(name, call[-1]))

    hooks = [keep(name) for name in levels]
    try:
        last: Tensor = trunk(pictures)
        return last, outputs
    finally:
        for hook in hooks:
            hook.remove()


def _pool(output: Tensor, *, tokens: bool) -> tuple[Tensor, Tensor]:
    """Mean and maximum of each channel of feature maps (n, c, h, w), or of tokens (n, t, c)."""
    if tokens:
        return output.mean(1), output.amax(1)
    # Reductions of channels_last maps take three times as long as a copy and its reductions. adaptive_max_pool2d is
    # faster still, but its gradients on a GPU are not deterministic.
    output = output.contiguous()
    return output.mean((2, 3)), output.amax((2, 3))


@torch.no_grad()
def find_levels(trunk: nn.Module, size: ImageSize) -> tuple[list[str], int]:
    """Names of the blocks whose features are taken, and the width of all features; ([], 0): there are none.

    Blocks are as timm groups them for freezing. Those of feature maps larger than LARGEST_MAP are left out; of the
    others every k-th is taken, the last one among them, for the smallest k that keeps the width below MAX_WIDTH.

    Args:
        trunk: the backbone, in eval mode.
        size: side of a picture that it takes, or height and width, in pixels.
    """
    last, outputs = _run(trunk, example_input(size, 1), _block_modules(trunk))
    widths = {
        f"{name}{TOKENS if output.ndim == 3 else ''}": output.shape[2 if output.ndim == 3 else 1]
        for name, output in outputs.items()
        if _is_pooled(output, to_shape(size)[0])
    }
    usable = list(widths)
    for step in range(1, len(usable) + 1):
        levels = usable[::-1][::step][::-1]
        width = sum(2 * widths[name] for name in levels)
        if width <= MAX_WIDTH:
            return levels, last.shape[1] + width
    return [], 0


def _block_modules(trunk: nn.Module) -> list[str]:
    """Names of the modules that are the backbone's blocks, from the input on; no module within another."""
    try:
        blocks = list_blocks(trunk)
    except UserError:  # timm does not group them
        return []
    modules = dict(trunk.named_modules())

    def module_of(name: str) -> str:  # a block may be named by its first layer
        while name and not (name in modules and list(modules[name].children())):
            name = name.rpartition(".")[0]
        return name

    names = list(dict.fromkeys(filter(None, (module_of(block.name) for block in blocks))))
    return [name for name in names if not any(other.startswith(f"{name}.") for other in names)]


def _is_pooled(output: object, size: int) -> bool:
    """Whether it is feature maps (n, c, h, w), none too large, or tokens (n, t, c).

    Maps of square pictures are square: another shape is (n, h, w, c), as some transformers have.
    """
    if not isinstance(output, Tensor) or output.ndim not in (3, 4):
        return False
    return output.ndim == 3 or 1 < output.shape[2] == output.shape[3] <= size * LARGEST_MAP
