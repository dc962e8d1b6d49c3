"""Names of metrics and params that MLflow accepts and keeps apart, whatever a label is made of.

MLflow refuses most signs, `//`, `.` and `..` as parts of a path and more than 250 letters; a database may not tell
capitals or accents apart (MySQL). A letter that could be refused becomes `_x2B_`, its Unicode number in hex. Names that
are too long, or that such a database takes for another one beside them, end with a hash: `Cat_xh9f86d081884c_`.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable

MAX_KEY = 250  # letters, of MLflow
MAX_PART = 100  # of one part of the path, so that a label leaves room for the others

# What is not a letter, digit, `_`, `-`, `.` or space; what a file system may drop at the ends; letters beyond U+FFFF,
# which a database may refuse; and `_` before `x`, with which an escape begins: that makes escaping reversible.
_REFUSED = re.compile(r"[^\w\-. ]|[\U00010000-\U0010ffff]|^[. ]|[. ]$|_(?=[xX])")
_CUT_ESCAPE = re.compile(r"_x[0-9A-F]*$")


def part_keys(names: Iterable[str]) -> dict[str, str]:
    """What names that stand beside each other are called in a key: distinct, and without `/`.

    `a b-c` stays as it is; `C+` is `C_x2B_`; of `Cat` and `cat` both end with a hash.

    Args:
        names: such as labels; any text, each once.
    """
    keys = {name: _escape(name) for name in names}
    folded: dict[str, list[str]] = {}
    for name, key in keys.items():
        folded.setdefault(_fold(key), []).append(name)
    alike = {name for group in folded.values() if len(group) > 1 for name in group}
    return {
        name: _mark(key, name, MAX_PART) if name in alike or len(key) > MAX_PART else key for name, key in keys.items()
    }


def path_keys(paths: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """Keys such as `test/per_class/C_x2B_/recall` for the numbers in nested dictionaries, at most MAX_KEY letters each.

    Args:
        paths: the keys that lead to each number; they are the only ones in their dictionaries.
    """
    paths = list(paths)
    inside: dict[tuple[str, ...], set[str]] = {}
    for path in paths:
        for depth, name in enumerate(path):
            inside.setdefault(path[:depth], set()).add(name)
    parts = {before: part_keys(sorted(names)) for before, names in inside.items()}
    return {path: _join([parts[path[:depth]][name] for depth, name in enumerate(path)]) for path in paths}


def _join(parts: list[str]) -> str:
    key = "/".join(parts)
    return key if len(key) <= MAX_KEY else _mark(key, key, MAX_KEY)


def _escape(name: str) -> str:
    return _REFUSED.sub(lambda found: f"_x{ord(found[0]):X}_", name) or "_x_"


def _mark(key: str, name: str, longest: int) -> str:
    """The key's beginning and a hash of the name, together at most `longest` letters."""
    mark = f"_xh{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}_"
    return _CUT_ESCAPE.sub("", key[: longest - len(mark)]) + mark


def _fold(key: str) -> str:
    """The same text for keys that differ in capitals or accents only."""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", key).casefold())
    return "".join(letter for letter in plain if not unicodedata.combining(letter))
