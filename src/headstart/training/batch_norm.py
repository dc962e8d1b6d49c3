"""Batch norms that train: they need more than one picture in a batch, and the whole batch in one process."""

from torch import nn

from headstart.base import distributed
from headstart.base.errors import UserError
from headstart.models.freeze import set_train_mode


def trains_batch_norm(network: nn.Module) -> bool:
    """Whether some batch norm of the network uses the statistics of the batch while it trains; leaves it in eval mode.

    Args:
        network: its frozen parameters have no gradient.
    """
    set_train_mode(network)
    found = _any_training(network)
    network.eval()
    return found


def forbid_distributed_batch_norm(network: nn.Module, stage: str) -> None:
    """Batch norm in train mode needs the whole batch, of which a rank has but a part.

    Args:
        network: in train mode.
        stage: for the error.

    Raises:
        UserError: several processes train, and a batch norm is in train mode.
    """
    world_size = distributed.get_world_size()
    if world_size > 1 and _any_training(network):
        raise UserError(
            f"params.yaml: launcher: {stage} trains a batch norm, and {world_size} processes cannot share its "
            "statistics; give model.head.batch_norm: false and fine_tune.batch_norm: fixed, or one process"
        )


def _any_training(network: nn.Module) -> bool:
    return any(m.training for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
