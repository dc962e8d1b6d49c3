"""Keys of any labels: MLflow takes them, and they stay apart in any of its databases."""

import re
import unicodedata

from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.utils import validation

from headstart.tracking.metric_keys import MAX_KEY, MAX_PART, part_keys, path_keys

LABELS = st.lists(
    st.text(max_size=12) | st.text("aAé_xh2BF+#/. ", max_size=8) | st.text("ab_x/", min_size=90, max_size=260),
    min_size=1,
    max_size=8,
    unique=True,
)


def as_mysql(key: str) -> str:
    """A key as a database sees it that tells neither capitals nor accents apart, nor spaces at the end."""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", key).casefold())
    return "".join(letter for letter in plain if not unicodedata.combining(letter)).rstrip(" ")


@given(LABELS)
@example(["C+", "C#", "C_x2B_", "c_x2b_"])
@example(["..", ".", "", "a//b", "w/", "/w", " a", "a ", "_x_"])
@example(["Cat", "cat", "CAT", "cat_xh0123456789ab_"])
@example(["café", "cafe\u0301", "cafe", "🐕", "🐕‍🦺", "\ud800", "a\n"])
@example(["x" * 245, "x" * 244 + "y", "+" * 300])
def test_any_labels_have_keys_that_mlflow_takes_and_no_database_confuses(labels: list[str]) -> None:
    paths = [("test", "per_class", label, figure) for label in labels for figure in ("precision", "recall")]
    keys = path_keys([*paths, ("test", "accuracy"), *((label,) for label in labels)])
    for key in keys.values():
        validation._validate_metric_name(key)  # type: ignore[no-untyped-call]
        validation._validate_param_name(key)  # type: ignore[no-untyped-call]
        assert len(key) <= MAX_KEY == validation.MAX_ENTITY_KEY_LENGTH
        assert re.match(r"^[/\w.\- ]*$", key), "as MLflow's check on Windows, which takes no colon"
    assert len({as_mysql(key) for key in keys.values()}) == len(keys)


@given(st.text(max_size=20), st.text(max_size=20))
@example("a_x+", "a_x_x2B_")
@example("\x02x2B_", "_x2+")
@example("_x5F_x", "__x")
def test_escaping_alone_keeps_labels_apart(one: str, other: str) -> None:
    """In two runs, where neither has the other beside it."""
    assert (part_keys([one]) == part_keys([other])) == (one == other)
    assert (part_keys([one])[one] == part_keys([other])[other]) == (one == other)


def test_keys_stay_readable() -> None:
    labels = ["good", "not (so) good", "Größe_1-a.b", "C+", "w/", "max_x", "..", ""]
    assert list(part_keys(labels).values()) == [
        "good",
        "not _x28_so_x29_ good",
        "Größe_1-a.b",
        "C_x2B_",
        "w_x2F_",
        "max_x5F_x",
        "_x2E__x2E_",
        "_x_",
    ]
    alike = part_keys(["Cat", "cat", "dog"])
    assert alike["dog"] == "dog"
    assert re.fullmatch(r"Cat_xh[0-9a-f]{12}_", alike["Cat"])
    long = part_keys(["x" * 245])["x" * 245]
    assert long.startswith("xxxx")
    assert len(long) == MAX_PART


def test_a_long_path_is_cut_and_kept_apart() -> None:
    paths = [("a" * 99, "b" * 99, "c" * 99 + end) for end in "xy"]
    keys = path_keys(paths)
    assert {len(key) for key in keys.values()} == {MAX_KEY}
    assert len(set(keys.values())) == 2
