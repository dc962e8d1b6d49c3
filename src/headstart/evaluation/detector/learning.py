"""Whether a detector has learned, from its history: still learning when it ended, or hardly at all; what to change."""

from headstart.evaluation.history import History
from headstart.params.training import FineTuneParams

HARDLY_AP50 = 0.3  # val AP50 below which a detector has hardly learned
STILL_FALLING = (
    0.3  # share of the train loss's whole fall that the last third of the epochs has; else it has leveled off
)
FLAT = 0.02  # a smaller gain of val AP50 in the second half of the epochs is none


def learning_sentence(history: History, section: FineTuneParams) -> str | None:
    """One sentence where fine-tuning has not learned, or not to its end; None: it has.

    Args:
        history: of fine-tune, `val_score` being AP50.
        section: the section `fine_tune`.
    """
    losses, ap50 = history.train_loss, history.val_score
    if not losses:
        return None
    third, half = len(losses) // 3, len(losses) // 2
    fall, last_fall = losses[0] - losses[-1], losses[-1 - third] - losses[-1]
    course = f"train loss {losses[0]:.2f} to {losses[-1]:.2f}, val AP50 {ap50[0]:.2f} to {ap50[-1]:.2f}"
    if max(ap50) < HARDLY_AP50:
        unfreeze = ", freeze_depth: 0" if section.freeze_depth else ""
        return (
            f"The detector has hardly learned ({course}): give it more batches (fine_tune.min_steps), or try another "
            f"fine_tune.lr (5e-5 to 5e-4; it is {section.lr:g}){unfreeze} or, for things of a few pixels, a larger "
            "model.image_size."
        )
    if (
        len(losses) >= 3
        and fall > 0
        and last_fall > STILL_FALLING * fall
        and max(ap50[half:]) - max(ap50[:half]) > FLAT
    ):
        return (
            f"The detector was still learning when fine-tuning ended ({course}): give it more batches "
            "(fine_tune.min_steps)."
        )
    return None
