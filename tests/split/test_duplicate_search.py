"""Altered copies among generated pictures are found, and nothing else is, whatever the order of the pictures."""

import random
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import ImageOps

from headstart.base.errors import UserError
from headstart.base.manifest import Image
from headstart.split.duplicate_search import SHOWN, DuplicateSearch, search_near_duplicates
from headstart.split.near_duplicates import LARGEST_LIMIT, LEAST_LIMIT
from photographs import COPIES, part, photograph, quarter_turn, store

BITS = 10
ORIGINALS, EACH = 50, 3

Link = frozenset[int]


@dataclass(frozen=True)
class Stored:
    """Pictures of a folder, and the links of copies with their originals, by the kind of change."""

    root: Path
    images: list[Image]
    links: dict[str, set[Link]]


def linked(search: DuplicateSearch) -> set[Link]:
    return {frozenset((pair.first.id, pair.second.id)) for pair in search.pairs}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    root = tmp_path_factory.mktemp("photographs")
    originals = [photograph(seed) for seed in range(ORIGINALS)]
    images = [store(picture, root, number) for number, picture in enumerate(originals)]
    links: dict[str, set[Link]] = {}
    for number, (kind, change) in enumerate(COPIES.items()):
        links[kind] = set()
        for original in range(number * EACH, (number + 1) * EACH):
            links[kind].add(frozenset((original, len(images))))
            images.append(store(change(originals[original]), root, len(images)))
    return Stored(root, images, links)


@pytest.fixture(scope="module")
def found(photographs: Stored) -> DuplicateSearch:
    return search_near_duplicates(photographs.images, BITS, photographs.root)


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_found(photographs: Stored, found: DuplicateSearch, kind: str) -> None:
    assert photographs.links[kind] <= linked(found)


def test_unrelated_pictures_are_not(photographs: Stored, found: DuplicateSearch) -> None:
    assert linked(found) <= set().union(*photographs.links.values())
    assert len(found.apart) == SHOWN
    assert not linked(found) & {frozenset((pair.first.id, pair.second.id)) for pair in found.apart}


def test_mirrored_and_turned_copies_are_as_near_as_identical_ones(photographs: Stored, found: DuplicateSearch) -> None:
    exact = photographs.links["mirror"] | photographs.links["quarter turn"]
    pairs = [pair for pair in found.pairs if frozenset((pair.first.id, pair.second.id)) in exact]
    assert len(pairs) == 2 * EACH
    for pair in pairs:
        assert pair.cosine > 0.98
        assert pair.distance < 0.03
        assert pair.bits <= 2


def test_pairs_are_once_each_and_the_most_alike_come_first(found: DuplicateSearch) -> None:
    for pairs in (found.pairs, found.apart):
        assert all(pair.first.id != pair.second.id for pair in pairs)
        assert len({frozenset((pair.first.id, pair.second.id)) for pair in pairs}) == len(pairs)
        distances = [pair.distance for pair in pairs]
        assert distances == sorted(distances)
    assert LEAST_LIMIT <= found.limit <= LARGEST_LIMIT
    assert all(pair.distance > found.limit for pair in found.apart)


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_pictures_changes_nothing(photographs: Stored, found: DuplicateSearch, seed: int) -> None:
    shuffled = photographs.images[:]
    random.Random(seed).shuffle(shuffled)
    assert search_near_duplicates(shuffled, BITS, photographs.root) == found
    assert search_near_duplicates(photographs.images[::-1], BITS, photographs.root) == found


def test_identical_files_are_compared_once(photographs: Stored, found: DuplicateSearch) -> None:
    again = [image.model_copy(update={"id": 1000 + image.id}) for image in photographs.images[:20]]
    assert search_near_duplicates([*again, *photographs.images], BITS, photographs.root) == found


def test_where_all_pictures_are_alike_only_copies_stand_out(tmp_path: Path) -> None:
    parts = [part(seed) for seed in range(100, 140)]
    images = [store(picture, tmp_path, number) for number, picture in enumerate(parts)]
    alone = search_near_duplicates(images, BITS, tmp_path)
    assert not alone.pairs
    images += [store(ImageOps.mirror(parts[1]), tmp_path, 40), store(quarter_turn(parts[2]), tmp_path, 41)]
    assert linked(search_near_duplicates(images, BITS, tmp_path)) == {frozenset((1, 40)), frozenset((2, 41))}


def test_a_burst_is_one_chain(tmp_path: Path) -> None:
    """More frames of one scene than the neighbours that give the scale: each is linked with the next."""
    wide = photograph(500).resize((720, 560))
    frames = [wide.crop((8 * n, 4 * n, 8 * n + 520, 4 * n + 400)).resize((180, 140)) for n in range(20)]
    pictures = [*(photograph(seed) for seed in range(30)), *frames]
    images = [store(picture, tmp_path, number) for number, picture in enumerate(pictures)]
    links = linked(search_near_duplicates(images, BITS, tmp_path))
    assert {frozenset((n, n + 1)) for n in range(30, 49)} <= links
    assert all(min(link) >= 30 for link in links)


def test_negative_bits_compare_nothing(photographs: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        pytest.fail("pictures were compared")

    monkeypatch.setattr("headstart.features.fingerprints.compute_fingerprints", forbidden)
    monkeypatch.setattr("headstart.split.duplicate_search.hash_coefficients", forbidden)
    assert search_near_duplicates(photographs.images, -1, photographs.root) == DuplicateSearch()
    one = photographs.images[0]
    assert search_near_duplicates([one, one.model_copy(update={"id": 99})], BITS, photographs.root) == DuplicateSearch()


def test_a_picture_that_is_gone_is_one_line(tmp_path: Path) -> None:
    images = [store(photograph(seed), tmp_path, seed) for seed in range(3)]
    (tmp_path / images[1].file_name).unlink()
    with pytest.raises(UserError, match=r"1\.png: no such file"):
        search_near_duplicates(images, BITS, tmp_path)
