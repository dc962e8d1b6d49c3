"""Leaks: what predicts a label and is no picture is found, and an order that is the label itself is not."""

import random

from headstart.base.manifest import Image
from headstart.split.leaks import find_leaks
from manifests import record


def sentences(images: list[Image]) -> dict[str, str]:
    return {leak.what: leak.sentence for leak in find_leaks(images, [image.label or "" for image in images])}


def placed(labels: str, group_size: int = 0) -> list[Image]:
    """A picture for each letter, in this order; in groups of so many."""
    images = []
    for n, label in enumerate(labels):
        group = f"{n // group_size}" if group_size else None
        unit = f"group {group}" if group else None
        images.append(record(n, label, place=n, group=group, unit=unit))
    return images


def bursts(count: int, length: int) -> str:
    rng = random.Random(0)
    return "".join(rng.choice("ab") * length for _ in range(count))


def test_bursts_in_the_order_of_the_files_may_leak() -> None:
    assert sentences(placed(bursts(60, 10)))["file order"].startswith("may leak: the source has no")


def test_the_report_says_what_a_leak_does_to_the_figures_and_the_line_is_short() -> None:
    images = placed(bursts(60, 10))
    (leak,) = find_leaks(images, [image.label or "" for image in images])
    percent = [f"{100 * share:.0f} %" for share in (leak.accuracy, leak.low, leak.high, leak.chance)]
    assert leak.sentence == (
        f"may leak: the source has no group_by and the file order predicts the label for {percent[0]} of the pictures "
        f"(95 % interval {percent[1]} to {percent[2]}; chance {percent[3]}). If files of one thing (a module, a "
        "patient, a video) follow one another, all figures here hold only for more pictures of the same things; for "
        "new ones they are too high and their intervals too narrow: give the source group_by."
    )
    assert leak.line == (
        f"may leak: the file order predicts the label for {percent[0]} of the pictures (chance {percent[3]}); if files "
        "of one thing follow one another, give the source group_by."
    )


def test_where_there_are_groups_they_are_too_small() -> None:
    found = sentences(placed(bursts(60, 10), group_size=2))["file order"]
    assert found.startswith("may leak: the file order predicts the label for ")
    assert "from files of other groups. If files of one thing larger than a group follow one another, all" in found
    assert "no group_by" not in found


def test_neighbours_of_the_own_group_do_not_count() -> None:
    found = sentences(placed(bursts(60, 10), group_size=10))
    assert found["file order"] == ""
    assert found["group"].startswith("the group predicts the label for 100 % of the pictures")


def test_an_order_that_is_the_label_is_not_checked() -> None:
    assert "file order" not in sentences(placed("a" * 100 + "b" * 100))


def test_a_random_order_is_no_leak() -> None:
    rng = random.Random(1)
    assert sentences(placed("".join(rng.choice("ab") for _ in range(400)))) == {"file order": ""}
