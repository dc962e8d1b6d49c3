"""A classifier's answer in words: a label, "cat or dog", or "none of these". No torch, no NumPy."""

from collections.abc import Sequence

NONE_OF_THESE = "none of these"
MAX_NAMED = 3  # labels of a set that are named


def answer_text(labels: Sequence[str], unknown: bool) -> str:
    """The answer without figures.

    Args:
        labels: that the picture may have, the most probable one first.
        unknown: whether it is none of them.
    """
    if unknown:
        return NONE_OF_THESE
    if len(labels) > MAX_NAMED:
        return f"one of {len(labels)} labels"
    *others, last = labels
    return f"{', '.join(others)} or {last}" if others else last
