"""torch.compile of the backbone in training: the same function in fewer passes over memory, compiled for minutes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from headstart.base.errors import UserError

# Graphs of one function: batch sizes times steps of gradual unfreezing. torch's own 8 would fall back to eager mode.
RECOMPILE_LIMIT = 64


def compile_backbone(network: nn.Module) -> None:
    """Let the network's `trunk` run compiled where gradients are enabled. Modules and tensors keep their names.

    Inference is not compiled, so that validation scores are those of the network that is evaluated on the test set.
    """
    backbone = network.get_submodule("trunk")
    for name in ("forward", "forward_intermediates"):  # what a classifier calls, and what a detector calls
        if hasattr(backbone, name):
            setattr(backbone, name, _compile_for_training(getattr(backbone, name)))


def _compile_for_training(function: Callable[..., Any]) -> Callable[..., Any]:
    from torch import _dynamo as dynamo  # seconds of imports, only for those who compile

    dynamo.config.recompile_limit = max(RECOMPILE_LIMIT, dynamo.config.recompile_limit)
    # A graph for each batch size: which one runs must not depend on the batches before, or a training resumed from a
    # checkpoint would end in other bits. No choice of a kernel by its time; random numbers as in eager mode.
    compiled = torch.compile(function, dynamic=False, options={"deterministic": True, "fallback_random": True})

    def call(*args: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return function(*args, **options)
        try:
            return compiled(*args, **options)
        except dynamo.exc.TorchDynamoException as error:
            reason = str(error).strip().partition("\n")[0]
            raise UserError(
                f"params.yaml: train.compile: true: this network cannot be compiled here ({reason}); "
                "install a C++ compiler (apt install g++) if there is none, or give false"
            ) from None

    return call
