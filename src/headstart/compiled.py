"""torch.compile for what trains: the same function in fewer passes over memory, after minutes of compiling."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from headstart.errors import UserError

MOST = 64  # graphs of one function: sizes of a batch times steps of a thaw; torch's own 8 would end in eager mode


def compile_trunk(network: nn.Module) -> None:
    """Let the network's `trunk` run compiled where gradients are wanted. Modules and tensors keep their names.

    What scores is not compiled, so that the val scores are those of the network that the exam will see.
    """
    trunk = network.get_submodule("trunk")
    for name in ("forward", "forward_intermediates"):  # a classifier's way in, and a detector's
        if hasattr(trunk, name):
            setattr(trunk, name, _compiled(getattr(trunk, name)))


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    from torch import _dynamo as dynamo  # seconds, which only those pay who compile

    dynamo.config.recompile_limit = max(MOST, dynamo.config.recompile_limit)
    # A graph for each size of a batch: which one runs must not depend on the batches before, or a training that goes
    # on from a checkpoint would end in other bits. No choice of a kernel by its time; random numbers as without.
    quick = torch.compile(function, dynamic=False, options={"deterministic": True, "fallback_random": True})

    def call(*inputs: Any, **how: Any) -> Any:
        if not torch.is_grad_enabled():
            return function(*inputs, **how)
        try:
            return quick(*inputs, **how)
        except dynamo.exc.TorchDynamoException as error:
            why = str(error).strip().partition("\n")[0]
            raise UserError(
                f"params.yaml: train.compile: true: this network cannot be compiled here ({why}); "
                "install a C++ compiler (apt install g++) if there is none, or give false"
            ) from None

    return call
