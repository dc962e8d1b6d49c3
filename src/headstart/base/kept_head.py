"""What is said where fine-tuning made nothing better and the head-only model was kept."""

LR_FIND = "`headstart lr-find fine-tune` suggests a rate; the val loss decides"
KEPT_HEAD = "no epoch of fine-tuning beat the head alone; the head-only model was kept"


def lower_rate(lr: float) -> str:
    """The next `fine_tune.lr` to try: a third of this one."""
    return f"{lr / 3:.1e}"


def kept_head_sentence(lr: float) -> str:
    """For report and card: what happened, and the next learning rate to try."""
    return f"{KEPT_HEAD[0].upper()}{KEPT_HEAD[1:]}; try a rate of {lower_rate(lr)} ({LR_FIND})."
