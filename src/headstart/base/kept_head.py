"""What is said where the head-only model was kept: fine-tuning made nothing better, or not beyond the noise of val."""

from collections.abc import Mapping

LR_FIND = "`headstart lr-find fine-tune` suggests a rate; the val loss decides"
KEPT_HEAD = "no epoch of fine-tuning beat the head alone; the head-only model was kept"


def lower_rate(lr: float) -> str:
    """The next `fine_tune.lr` to try: a third of this one."""
    return f"{lr / 3:.1e}"


def kept_head_sentence(lr: float, metrics: Mapping[str, float]) -> str:
    """For report and card: what happened, and what to try.

    Args:
        lr: fine_tune.lr.
        metrics: of stages/fine-tune/metrics.json.
    """
    if "val_loss_change" in metrics:
        return within_noise_sentence(metrics)
    return f"{KEPT_HEAD[0].upper()}{KEPT_HEAD[1:]}; try a rate of {lower_rate(lr)} ({LR_FIND})."


def within_noise_sentence(metrics: Mapping[str, float]) -> str:
    """Where an epoch had a lower val loss, by no more than its standard error; numbers as in metrics.json."""
    error = metrics.get("val_loss_change_error")
    return (
        f"The head-only model was kept: the val loss of epoch {metrics['val_loss_change_epoch']}, the lowest, differs "
        f"from the head's by {metrics['val_loss_change']:+.3f} on {metrics['val_loss_change_pictures']} pictures, and "
        + ("they are one unit, which has no standard error" if error is None else f"its standard error is {error:.3f}")
        + "; more val pictures may tell, or fine_tune.keep: lowest takes that epoch."
    )
