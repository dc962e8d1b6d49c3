"""mixup (Zhang et al. 2018, arXiv 1710.09412) and CutMix (Yun et al. 2019, arXiv 1905.04899) of a batch."""

import torch
from torch import Tensor
from torchvision.transforms import v2

from headstart.engine.device import fork_random_state
from headstart.training.batches import MixupFunction
from headstart.training.sampler import keyed_generator, seed_from_key


def make_mixup(mixup: float, cutmix: float, labels: int) -> MixupFunction | None:
    """MixUp and CutMix of torchvision as one function of a batch and a key; None if both are off.

    Random numbers depend on the key alone. With both methods on, one of the two is chosen at random for each batch.

    Args:
        mixup: alpha of the Beta(alpha, alpha) distribution of the pictures' shares; 0: off.
        cutmix: alpha of the distribution of the pasted area; 0: off.
        labels: number of classes.

    Returns:
        (pictures, class numbers (n,), *key) -> (pictures, shares (n, labels)).
    """
    alphas = ((v2.MixUp, float(mixup)), (v2.CutMix, float(cutmix)))
    methods = [method(alpha=alpha, num_classes=labels) for method, alpha in alphas if alpha]
    if not methods:
        return None

    def mix(pictures: Tensor, targets: Tensor, *key: int) -> tuple[Tensor, Tensor]:
        method = methods[int(torch.randint(len(methods), (), generator=keyed_generator(*key)))]
        with fork_random_state(pictures.device):  # dropout's random numbers must not depend on mixup
            torch.manual_seed(seed_from_key(*key, 1))
            mixed, shares = method(pictures, targets)
        return mixed.contiguous(memory_format=torch.channels_last), shares

    return mix
