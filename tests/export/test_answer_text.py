"""A classifier's answer in words."""

import pytest

from headstart.export.answer_text import answer_text


@pytest.mark.parametrize(
    ("labels", "unknown", "expected"),
    [
        (["cat"], False, "cat"),
        (["cat", "dog"], False, "cat or dog"),
        (["cat", "dog", "owl"], False, "cat, dog or owl"),
        (["cat", "dog", "owl", "emu"], False, "one of 4 labels"),
        (["cat", "dog"], True, "none of these"),
    ],
)
def test_words(labels: list[str], unknown: bool, expected: str) -> None:
    assert answer_text(labels, unknown) == expected
