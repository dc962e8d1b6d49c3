"""Two pictures in one: mixup (Zhang et al. 2018, arXiv 1710.09412) and cutmix (Yun et al. 2019, arXiv 1905.04899)."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms import v2

from headstart.order import generator, seed_of

Mix = Callable[..., tuple[Tensor, Tensor]]


def mixer(mixup: float, cutmix: float, labels: int) -> Mix | None:
    """What mixes a batch with itself: (pictures, label numbers, *key) -> (pictures, shares (n, labels)).

    torchvision's own transforms, with random numbers that belong to the key and to nothing before it. With both,
    each batch is mixed in one of the two ways, half the batches in each.

    Args:
        mixup: both parameters of the Beta distribution that the pictures' shares come from; 0: off.
        cutmix: the same for the area of the piece; 0: off.
        labels: how many there are.
    """
    asked = [(way, float(alpha)) for way, alpha in ((v2.MixUp, mixup), (v2.CutMix, cutmix)) if alpha]
    ways = [way(alpha=alpha, num_classes=labels) for way, alpha in asked]
    if not ways:
        return None

    def mix(pictures: Tensor, targets: Tensor, *key: int) -> tuple[Tensor, Tensor]:
        way = ways[int(torch.randint(len(ways), (), generator=generator(*key)))]
        with torch.random.fork_rng(devices=[]):  # the draws of dropout go on as if nothing had been
            torch.manual_seed(seed_of(*key, 1))
            mixed, shares = way(pictures, targets)
        return mixed.contiguous(memory_format=torch.channels_last), shares

    return mix
