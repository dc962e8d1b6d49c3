"""A run's name: what its params have that the first run of the experiment had not, such as `freeze 8, lr 3e-3`."""

from collections.abc import Mapping

MAX_NAME = 60  # letters, a number in brackets included
_ROOM = MAX_NAME - len(" (999)")
_LONGEST_VALUE = 24

_SHORT = {  # those that people change first, in the order in which they are named
    "model.backbone": "",
    "model.detector": "",
    "fine_tune.freeze_depth": "freeze",
    "fine_tune.lr": "lr",
    "train_head.lr": "head lr",
    "model.image_size": "size",
    "seed": "seed",
}
_SECTIONS = {"train_head": "head ", "split": "split ", "export": "export ", "evaluate": "evaluate "}


def describe_difference(params: Mapping[str, str], base: Mapping[str, str]) -> str:
    """What differs between two runs' params, in at most 54 letters; empty if nothing does.

    Args:
        params: of the new run, `section.key` -> value as text.
        base: of the run that it is compared with; its keys may be more (facts that a stage found).
    """
    sections = {key.partition(".")[0] for key in params}
    keys = [*_SHORT, *(key for key in (*params, *base) if key not in _SHORT)]
    changed = [key for key in dict.fromkeys(keys) if params.get(key, "") != base.get(key, "")]
    known = [key for key in changed if key in params or key.partition(".")[0] in sections]
    pieces = [_describe(key, params.get(key, "")) for key in known]
    return _join(pieces)


def _describe(key: str, value: str) -> str:
    section, _, last = key.rpartition(".")
    name = _SHORT.get(key, _SECTIONS.get(section, "") + last.replace("_", " "))
    if not value:
        return f"no {name or last}"
    text = _short_number(value)
    if len(text) > _LONGEST_VALUE and key not in _SHORT:
        return f"other {name}"
    return f"{name} {text}".strip()


def _short_number(value: str) -> str:
    """`0.003` as `3e-3`; a value that is no number below 0.01 as it is."""
    try:
        number = float(value)
    except ValueError:
        return value
    if not 0 < abs(number) < 0.01:
        return value
    digits, _, exponent = f"{number:e}".partition("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"


def _join(pieces: list[str]) -> str:
    for count in range(len(pieces), 0, -1):
        more = f" and {len(pieces) - count} more" if count < len(pieces) else ""
        text = ", ".join(pieces[:count]) + more
        if len(text) <= _ROOM:
            return text
    return pieces[0][: _ROOM - 1] + "…" if pieces else ""
