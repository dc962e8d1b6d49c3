"""Groups of what is linked."""

from hypothesis import given
from hypothesis import strategies as st

from headstart.images.links import group_linked, link_equal


def test_equal_keys_are_linked_and_none_is_equal_to_nothing() -> None:
    links = link_equal(["a", None, ("x", 1), "a", None, ("x", 1), "a"])
    assert sorted(map(sorted, group_linked(7, links))) == [[0, 3, 6], [1], [2, 5], [4]]


def test_links_connect_by_way_of_others() -> None:
    assert sorted(map(sorted, group_linked(6, [(0, 1), (4, 1), (2, 3)]))) == [[0, 1, 4], [2, 3], [5]]
    assert group_linked(2, []) == [[0], [1]]


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=15))
def test_a_group_is_closed_under_links_and_no_smaller(links: list[tuple[int, int]]) -> None:
    groups = group_linked(12, links)
    assert sorted(number for group in groups for number in group) == list(range(12))
    expected = {number: {number} for number in range(12)}
    for a, b in links:
        merged = expected[a] | expected[b]
        for number in merged:
            expected[number] = merged
    assert {frozenset(group) for group in groups} == {frozenset(group) for group in expected.values()}
