"""AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) by torch's functional form, and its parameter groups.

The first use of the class torch.optim.AdamW imports torch's compiler, which takes longer than training a head.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from headstart.models.freeze import Block


@dataclass(frozen=True)
class ParamGroup:
    """Parameters with a common learning rate and weight decay.

    Attributes:
        parameters: of the group.
        lr_scale: the group's learning rate, as a multiple of the optimizer's.
        weight_decay: None: the optimizer's.
    """

    parameters: list[nn.Parameter]
    lr_scale: float = 1.0
    weight_decay: float | None = None


class AdamW:
    """torch.optim.AdamW with its defaults, betas 0.9 and 0.999, epsilon 1e-8: the same bits."""

    def __init__(self, groups: list[ParamGroup], weight_decay: float) -> None:
        self.groups, self.weight_decay = groups, weight_decay
        self._exp_avg = [[torch.zeros_like(parameter) for parameter in group.parameters] for group in groups]
        self._exp_avg_sq = [[torch.zeros_like(parameter) for parameter in group.parameters] for group in groups]
        self._steps = [[torch.tensor(0.0) for _ in group.parameters] for group in groups]

    @property
    def param_groups(self) -> list[dict[str, list[nn.Parameter]]]:
        """As `torch.amp.GradScaler` looks for gradients."""
        return [{"params": group.parameters} for group in self.groups]

    def zero_grad(self) -> None:
        """Set all gradients to None."""
        for group in self.groups:
            for parameter in group.parameters:
                parameter.grad = None

    def state(self) -> list[list[list[Tensor]]]:
        """Moments and step counts, for a checkpoint."""
        return [self._exp_avg, self._exp_avg_sq, self._steps]

    @torch.no_grad()
    def restore(self, state: list[list[list[Tensor]]]) -> None:
        """The inverse of `state`."""
        for own_groups, saved_groups in zip(self.state(), state, strict=True):
            for own, saved in zip(own_groups, saved_groups, strict=True):
                torch._foreach_copy_(own, saved)

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Update every parameter that has a gradient; a group's learning rate is `lr` times its lr_scale."""
        for group, exp_avg, exp_avg_sq, steps in zip(
            self.groups, self._exp_avg, self._exp_avg_sq, self._steps, strict=True
        ):
            updated = [number for number, parameter in enumerate(group.parameters) if parameter.grad is not None]
            if not updated:
                continue
            adamw(
                [group.parameters[n] for n in updated],
                [gradient for n in updated if (gradient := group.parameters[n].grad) is not None],
                [exp_avg[n] for n in updated],
                [exp_avg_sq[n] for n in updated],
                [],
                [steps[n] for n in updated],
                foreach=True,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=lr * group.lr_scale,
                weight_decay=self.weight_decay if group.weight_decay is None else group.weight_decay,
                eps=1e-8,
                maximize=False,
            )


def param_groups(network: nn.Module) -> list[ParamGroup]:
    """Parameter groups at one learning rate; biases and the parameters of norms have no weight decay.

    The rule of timm's `param_groups_weight_decay`: what has one dimension does not decay.
    """
    return param_groups_layer_decay(network, [], 1.0)


def param_groups_layer_decay(
    network: nn.Module, blocks: list[Block], layer_decay: float, backbone_lr_scale: float = 1.0
) -> list[ParamGroup]:
    """Parameter groups with layer-wise learning-rate decay: the head at the full rate, each block at a lower one.

    Biases and the parameters of norms have no weight decay.

    Args:
        network: the backbone is its `trunk`; parameters that do not train are left out.
        blocks: the backbone's, from the input on.
        layer_decay: a block's learning rate is the next one's times this.
        backbone_lr_scale: the rates of all blocks are times this.
    """
    number = {name: block.number for block in blocks for name in block.parameters}
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        in_backbone = name.removeprefix("trunk.")
        # The bias that folding batch norm has added to a convolution belongs to the block of its weight.
        block = number.get(in_backbone, number.get(f"{in_backbone.rpartition('.')[0]}.weight", len(blocks)))
        lr_scale = layer_decay ** (len(blocks) - block) * (backbone_lr_scale if block < len(blocks) else 1.0)
        groups.setdefault((lr_scale, parameter.ndim > 1), []).append(parameter)
    return [
        ParamGroup(parameters, lr_scale, weight_decay=None if decays else 0.0)
        for (lr_scale, decays), parameters in groups.items()
    ]
