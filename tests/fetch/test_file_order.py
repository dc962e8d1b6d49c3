"""The order of a source's files: numbers before words, folders aside, whatever the order they are listed in."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.fetch.file_order import file_order
from headstart.fetch.sources.records import LocalFile, SourceImage


def image(location: str, label: str | None = None, source: str = "s") -> SourceImage:
    return SourceImage(location=location, source=source, content=LocalFile(Path(location)), label=label)


def ordered(*locations: str, labels: str = "") -> list[str]:
    """The locations in their order; `labels`: a letter for each."""
    images = [image(one, labels[n] if labels else None) for n, one in enumerate(locations)]
    places = file_order(images)
    assert sorted(places) == list(range(len(locations)))
    return [location for _, location in sorted(zip(places, locations, strict=True))]


@pytest.mark.parametrize(
    "expected",
    [
        ["img2.png", "img10.png", "img100.png"],
        ["b/1.png", "a/2.png", "b/3.png", "a/4.png"],
        ["a/cat.2.jpg", "b/dog.2.jpg", "a/cat.10.jpg", "b/dog.10.jpg"],
        ["z/left.png", "a/right.png"],
        ["cover.png", "page1.png", "page1b.png", "page2.png"],
        ["2024-12-31 9.png", "2025-01-01 10.png", "2025-01-02 1.png"],
        ["x\\img9.png", "a\\img10.png"],
        ["https://example.com/9/img3.png?size=1", "https://example.com/1/img%204.png?size=0#7"],
        ["what?9 #1.png", "what?9 #2.png"],
        ["frame_007.png", "frame_07_1.png", "frame_0008.png"],
        ["1.5/a 1.png", "1.4/a 2.tar.png"],
    ],
)
def test_numbers_come_before_words_and_folders_do_not_count(expected: list[str]) -> None:
    assert ordered(*expected) == expected
    assert ordered(*expected[::-1]) == expected


def test_a_number_that_all_pictures_of_a_label_share_does_not_count() -> None:
    """As in Stanford Dogs: the breed's number stands before the picture's."""
    expected = ["n7_1.jpg", "n3_2.jpg", "n7_30.jpg", "n3_200.jpg"]
    assert ordered(*expected, labels="abab") == expected
    assert ordered(*expected) == ["n3_2.jpg", "n3_200.jpg", "n7_1.jpg", "n7_30.jpg"], "without labels it does"
    assert ordered(*expected, labels="aabb") == ["n3_2.jpg", "n3_200.jpg", "n7_1.jpg", "n7_30.jpg"]


def test_equal_names_are_in_the_order_they_are_listed_in() -> None:
    assert file_order([image("b/1.png"), image("a/1.png"), image("c/0.png")]) == [1, 2, 0]


def test_sources_are_ordered_by_themselves() -> None:
    images = [image("9.png"), image("5.png", source="t"), image("1.png"), image("4.png", source="t"), image("3.png")]
    assert file_order(images) == [2, 1, 0, 0, 1]
    assert file_order([]) == []


NAMES = st.lists(st.tuples(st.sampled_from(["a", "b", "img ", "-"]), st.integers(0, 300)), unique=True, max_size=25)


@given(NAMES, st.integers(0, 100))
def test_listing_order_and_folders_change_nothing(names: list[tuple[str, int]], seed: int) -> None:
    rng = random.Random(seed)
    files = [f"{words}{number}.png" for words, number in names]
    shuffled = files[:]
    rng.shuffle(shuffled)
    moved = [f"{rng.choice('xyz')}{rng.randrange(9)}/{file}" for file in files]
    expected = ordered(*files)
    assert ordered(*shuffled) == expected
    assert [location.split("/")[1] for location in ordered(*moved)] == expected
    numbers = [int("".join(letter for letter in file if letter.isdigit())) for file in expected]
    assert numbers == sorted(numbers)
