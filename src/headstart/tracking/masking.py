"""Passwords in addresses are masked in all that is printed or recorded."""

import re
from collections.abc import Iterable
from urllib.parse import quote, unquote

MASK = "…"
_SHORTEST = 3  # letters; a shorter piece of a password is part of many words

_AUTHORITY = re.compile(r"""(?<=//)[^/\s"'<>]*@""")
_UP_TO_THE_LAST_AT = re.compile(r"(?<=//)\S*@")


def mask_addresses(text: str, known: Iterable[str] = ()) -> str:
    """A file's text with `//…@` in place of user and password of each address.

    Args:
        text: as it would be recorded.
        known: tracking addresses, whose passwords are masked wherever they stand, whatever signs they hold.
    """
    for piece in sorted(_secret_pieces(known), key=len, reverse=True):
        text = text.replace(piece, MASK)
    return _AUTHORITY.sub(f"{MASK}@", text)


def mask_message(text: str, known: Iterable[str] = ()) -> str:
    """An error's text, masked up to the last `@` of each address: a password may hold `/` and `@` itself."""
    return _UP_TO_THE_LAST_AT.sub(f"{MASK}@", mask_addresses(text, known))


def _secret_pieces(addresses: Iterable[str]) -> set[str]:
    """Passwords, also percent-encoded, and their parts: a library that splits at the wrong `@` prints one."""
    pieces: set[str] = set()
    for address in addresses:
        scheme, _, rest = address.partition("://")
        credentials, at, _ = rest.rpartition("@")
        if not at or scheme.startswith(("sqlite", "file")):  # the rest is a path
            continue
        _, colon, password = credentials.partition(":")
        secret = password if colon else credentials
        pieces |= {credentials, secret, *re.split("[@/?#:]", secret)}
    pieces |= {form(piece) for piece in pieces for form in (quote, unquote)}
    return {piece for piece in pieces if len(piece) >= _SHORTEST}
