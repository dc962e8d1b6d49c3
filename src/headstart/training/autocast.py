"""Mixed precision and fixed batch norm statistics while a network trains."""

from torch import Tensor, nn

from headstart.engine.device import Compute


class AutocastNetwork(nn.Module):
    """A network under autocast; with `batch_norm: fixed` the backbone's batch norms stay in eval mode."""

    def __init__(self, network: nn.Module, backbone: nn.Module, compute: Compute, batch_norm: str) -> None:
        """`backbone` is part of `network`; `batch_norm` is fixed or update, as in params.yaml."""
        super().__init__()
        self.network, self.compute, self.batch_norm = network, compute, batch_norm
        self.norms = [m for m in backbone.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]

    def train(self, mode: bool = True) -> "AutocastNetwork":
        super().train(mode)
        if self.batch_norm == "fixed":  # most are folded; the others must not update their running statistics
            for module in self.norms:
                module.eval()
        return self

    def forward(self, inputs: Tensor | tuple[Tensor, ...]) -> Tensor:
        with self.compute.autocast():
            outputs: Tensor = self.network(*inputs) if isinstance(inputs, tuple) else self.network(inputs)
        return outputs
