"""What is said where the head-only model was kept: fine-tuning made nothing better, or not beyond the noise of val."""

from collections.abc import Mapping

LR_FIND = "`headstart lr-find fine-tune` suggests a rate; val decides"
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
    error, pictures = metrics.get("val_loss_change_error"), metrics["val_loss_change_pictures"]
    lowered = f"its best epoch ({metrics['val_loss_change_epoch']}) lowered the val loss by"
    lowered += f" {-metrics['val_loss_change']:.3f}"
    if error is None:
        why = f"{lowered}, but the {pictures} pictures of val are one unit, which has no standard error"
    else:
        why = f"{lowered} ± {error:.3f} (standard error, {pictures} pictures), which may be chance"
    return f"Fine-tuning was not kept, but the head-only model: {why}. fine_tune.keep: lowest keeps it all the same."
