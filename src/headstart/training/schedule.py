"""The learning rate of each step: linear warm-up, then half a cosine down to zero, at once or after a constant part."""

import math

from headstart.params.training import AUTO_ANNEAL_EPOCHS, TrainingStageParams


def lr_factor(step: int, steps: int, params: TrainingStageParams, anneal_after: int | None = None) -> float:
    """The learning rate at a step as a share of params.lr.

    A number of epochs: linear warm-up, then cosine annealing to the last one (Loshchilov and Hutter 2017, arXiv
    1608.03983, without restarts). `epochs: auto` does not know its end: warmup-stable-decay (Hu et al. 2024, arXiv
    2404.06395; Hägele et al. 2024, arXiv 2405.18392), constant after the warm-up, and half a cosine in the last
    AUTO_ANNEAL_EPOCHS epochs, once these have begun.

    Args:
        step: number of the step in the whole training, from 0.
        steps: batches in an epoch.
        params: epochs and warm-up.
        anneal_after: epochs done when the annealing begins; None: it has not begun. With a number of epochs the rate
            falls from what it is then.
    """
    if params.epochs != "auto" and anneal_after is not None:
        begun = anneal_after * steps
        return lr_factor(begun, steps, params) * _half_cosine(step - begun, AUTO_ANNEAL_EPOCHS * steps)
    warmup = params.warmup_steps or params.warmup_epochs * steps
    rise = (step + 1) / (warmup + 1) if step < warmup else 1.0
    if params.epochs == "auto":
        if anneal_after is None:
            return rise
        return rise * _half_cosine(step - anneal_after * steps, AUTO_ANNEAL_EPOCHS * steps)
    return rise if step < warmup else _half_cosine(step - warmup, params.max_epochs() * steps - warmup)


def _half_cosine(step: float, total: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * step / max(1, total)))
