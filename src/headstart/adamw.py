"""AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101): torch's own arithmetic without torch's class.

The first call of torch.optim.AdamW imports torch's compiler, which costs more seconds than training a head does.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw


@dataclass(frozen=True)
class Group:
    """Parameters that share a share of the rate and a weight decay (None: the optimizer's)."""

    parameters: list[nn.Parameter]
    scale: float = 1.0
    weight_decay: float | None = None


class AdamW:
    """torch.optim.AdamW with its defaults: betas 0.9 and 0.999, epsilon 1e-8."""

    def __init__(self, groups: list[Group], weight_decay: float) -> None:
        self.groups, self.weight_decay = groups, weight_decay
        self._first = [[torch.zeros_like(parameter) for parameter in group.parameters] for group in groups]
        self._second = [[torch.zeros_like(parameter) for parameter in group.parameters] for group in groups]
        self._steps = [[torch.tensor(0.0) for _ in group.parameters] for group in groups]

    def clear(self) -> None:
        """Forget the gradients."""
        for group in self.groups:
            for parameter in group.parameters:
                parameter.grad = None

    def state(self) -> list[list[list[Tensor]]]:
        """Its moments and steps, for a checkpoint."""
        return [self._first, self._second, self._steps]

    @torch.no_grad()
    def restore(self, state: list[list[list[Tensor]]]) -> None:
        """The inverse of `state`."""
        for mine, given in zip(self.state(), state, strict=True):
            for group, values in zip(mine, given, strict=True):
                torch._foreach_copy_(group, values)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move every parameter that has a gradient; a group moves at `rate` times its scale."""
        for group, first, second, steps in zip(self.groups, self._first, self._second, self._steps, strict=True):
            moving = [number for number, parameter in enumerate(group.parameters) if parameter.grad is not None]
            if not moving:
                continue
            adamw(
                [group.parameters[n] for n in moving],
                [gradient for n in moving if (gradient := group.parameters[n].grad) is not None],
                [first[n] for n in moving],
                [second[n] for n in moving],
                [],
                [steps[n] for n in moving],
                foreach=True,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=rate * group.scale,
                weight_decay=self.weight_decay if group.weight_decay is None else group.weight_decay,
                eps=1e-8,
                maximize=False,
            )
