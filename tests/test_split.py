"""Every picture in one split, what belongs together stays together, and the shares come out."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from conftest import Project
from headstart.coco import Annotation, Image, Manifest, categories, write
from headstart.errors import UserError
from headstart.params import SPLITS, Split, SplitParams
from headstart.split import Assignment, shown, split, split_stage
from headstart.twins import find_twins

PARAMS = SplitParams(train=0.6, val=0.2, test=0.2)


def record(number: int, label: str = "ant", **more: Any) -> Image:
    name = f"images/{number}.png"
    return Image(id=number, file_name=name, width=9, height=9, sha256=f"{number}", source="s", label=label, **more)


def records(*images: Image) -> Manifest:
    return Manifest(images=images, categories=categories(image.label or "" for image in images))


def place_of(assigned: Assignment) -> dict[int, Split]:
    return {image.id: name for name, part in assigned.splits.items() for image in part.images}


def counts(assigned: Assignment, label: str) -> dict[Split, int]:
    return {name: sum(i.label == label for i in part.images) for name, part in assigned.splits.items()}


@st.composite
def manifests(draw: st.DrawFn) -> tuple[Manifest, list[tuple[int, int]]]:
    """Pictures of two labels, some in groups, some pinned, some twins: and enough of both that nothing lacks."""
    images = [record(n, label) for n, label in enumerate(["ant", "bee"] * 12, start=1)]
    for label in ("ant", "bee"):  # three pictures that nothing else touches: one for each split
        images += [record(100 * "ab".index(label[0]) + 100 + n, label) for n in range(3)]
    changed = [
        image.model_copy(
            update={
                "group": draw(st.sampled_from([None, None, None, "g", "h"])),
                "split": draw(st.sampled_from([None, None, None, *SPLITS])),
            }
        )
        for image in images[:24]
    ]
    twins = draw(st.lists(st.tuples(st.integers(1, 24), st.integers(1, 24)), max_size=5))
    return records(*changed, *images[24:]), twins


@given(manifests(), st.integers(0, 5))
@settings(max_examples=60)
def test_what_holds_of_every_split(made: tuple[Manifest, list[tuple[int, int]]], seed: int) -> None:
    manifest, twins = made
    assigned = split(manifest, PARAMS, seed, twins)
    where = place_of(assigned)
    dropped = {image.id for image in assigned.dropped}
    assert Counter([*where, *dropped]) == Counter(image.id for image in manifest.images), "one place for each"
    by_id = {image.id: image for image in manifest.images}
    for a, b in twins:
        if a in where and b in where:
            assert where[a] == where[b], "twins stay together"
    for group in ("g", "h"):
        assert len({where[i.id] for i in manifest.images if i.group == group and i.id in where}) <= 1
    for number, name in where.items():
        assert by_id[number].split in (None, name), "pins are respected"
    for number in dropped:
        assert by_id[number].split in ("train", "val"), "only pinned pictures are dropped, and never from the exam"
    for part in assigned.splits.values():
        assert [i.id for i in part.images] == sorted(i.id for i in part.images)
        assert {i.label for i in part.images} == {"ant", "bee"}
    assert split(manifest, PARAMS, seed, twins) == assigned, "the same again"


@given(st.lists(st.integers(1, 4), min_size=12, max_size=40), st.integers(0, 5), st.sampled_from([0.6, 0.34, 0.8]))
@settings(max_examples=60)
def test_shares_come_out_within_one_unit(groups: list[int], seed: int, train: float) -> None:
    params = SplitParams(train=train, val=(1 - train) / 2, test=(1 - train) / 2)
    sizes = [size for size in groups for _ in range(size)]
    names = [f"group {number}" for number, size in enumerate(groups) for _ in range(size)]
    images = [record(n, group=name) for n, name in enumerate(names, start=1)]
    found = counts(split(records(*images), params, seed, []), "ant")
    for name in SPLITS:
        assert abs(found[name] - getattr(params, name) * len(sizes)) <= max(groups)


def test_ten_pictures_by_hand() -> None:
    assigned = split(records(*(record(n) for n in range(1, 11))), PARAMS, 0, [])
    assert counts(assigned, "ant") == {"train": 6, "val": 2, "test": 2}
    assert assigned.dropped == ()


def test_each_label_has_its_own_shares() -> None:
    images = [*(record(n) for n in range(1, 11)), *(record(n, "bee") for n in range(11, 31))]
    assigned = split(records(*images), PARAMS, 0, [])
    assert counts(assigned, "ant") == {"train": 6, "val": 2, "test": 2}
    assert counts(assigned, "bee") == {"train": 12, "val": 4, "test": 4}


def test_three_pictures_are_one_for_each() -> None:
    for seed in range(5):
        assigned = split(
            records(*(record(n) for n in range(1, 4))), SplitParams(train=0.9, val=0.05, test=0.05), seed, []
        )
        assert counts(assigned, "ant") == {"train": 1, "val": 1, "test": 1}


def test_the_largest_group_goes_where_most_is_lacking() -> None:
    images = [*(record(n, group="dog") for n in range(1, 7)), *(record(n) for n in range(7, 11))]
    where = place_of(split(records(*images), PARAMS, 0, []))
    assert {where[n] for n in range(1, 7)} == {"train"}
    assert sorted(where[n] for n in range(7, 11)) == ["test", "test", "val", "val"]


def test_twins_of_two_labels_do_not_move_the_sizes() -> None:
    """Of 200 pictures, 30 ants have two bees for twins: each three count as bees."""
    images = [record(n, "ant" if n < 60 else "bee") for n in range(200)]
    twins = [(n, n + other) for n in range(30) for other in (60, 100)]
    for seed in range(5):
        found = split(records(*images), SplitParams(train=0.7, val=0.15, test=0.15), seed, twins)
        assert [len(part.images) for part in found.splits.values()] == pytest.approx([140, 30, 30], abs=1)


def test_groups_of_different_sources_are_different() -> None:
    images = [record(n, group="1").model_copy(update={"source": f"source {n}"}) for n in range(1, 11)]
    assert counts(split(records(*images), PARAMS, 0, []), "ant") == {"train": 6, "val": 2, "test": 2}


def test_twins_of_twins_are_one_unit_across_groups() -> None:
    images = [record(1, group="a"), record(2, group="a"), record(3), record(4, group="b"), record(5, group="b")]
    where = place_of(split(records(*images, *(record(n) for n in range(6, 14))), PARAMS, 0, [(2, 3), (3, 4)]))
    assert len({where[n] for n in range(1, 6)}) == 1


def test_the_seed_decides_and_nothing_else() -> None:
    manifest = records(*(record(n) for n in range(1, 41)))
    where = [place_of(split(manifest, PARAMS, seed, [])) for seed in (0, 0, 1)]
    assert where[0] == where[1]
    assert where[0] != where[2]


def test_pins_stay_and_count_for_nothing_else() -> None:
    images = [*(record(n, split="test") for n in range(1, 6)), *(record(n) for n in range(6, 16))]
    assigned = split(records(*images), PARAMS, 0, [])
    assert all(place_of(assigned)[n] == "test" for n in range(1, 6))
    assert counts(assigned, "ant") == {"train": 6, "val": 2, "test": 7}


def test_an_unpinned_twin_follows_the_pin() -> None:
    images = [record(1, split="val"), *(record(n) for n in range(2, 12))]
    assert place_of(split(records(*images), PARAMS, 0, [(1, 2)]))[2] == "val"


@pytest.mark.parametrize(
    ("pins", "kept", "dropped"),
    [(("train", "test"), 2, 1), (("test", "train"), 1, 2), (("train", "val"), 2, 1), (("val", "test"), 2, 1)],
)
def test_where_pins_conflict_the_earlier_split_loses_its_copy(pins: Sequence[Split], kept: int, dropped: int) -> None:
    images = [record(1, split=pins[0]), record(2, split=pins[1]), *(record(n) for n in range(3, 13))]
    assigned = split(records(*images), PARAMS, 0, [(1, 2)])
    assert [image.id for image in assigned.dropped] == [dropped]
    assert place_of(assigned)[kept] == pins[kept - 1]


def test_everything_pinned() -> None:
    images = [record(n, split=name) for n, name in enumerate(SPLITS, start=1)]
    assert place_of(split(records(*images), PARAMS, 0, [])) == {1: "train", 2: "val", 3: "test"}


def test_a_share_of_nothing_leaves_the_split_to_the_pinned_pictures() -> None:
    params = SplitParams(train=0.8, val=0.2, test=0)
    images = [record(1, split="test"), *(record(n) for n in range(2, 12))]
    assert counts(split(records(*images), params, 0, []), "ant") == {"train": 8, "val": 2, "test": 1}


def test_the_exam_may_lack_a_label_where_it_is_all_pinned() -> None:
    params = SplitParams(train=0.8, val=0.2, test=0)
    images = [record(1, split="test"), *(record(n, "bee" if n % 2 else "ant") for n in range(2, 12))]
    assert counts(split(records(*images), params, 0, []), "bee") == {"train": 4, "val": 1, "test": 0}


@pytest.mark.parametrize(("count", "said"), [(1, "1 picture, none"), (2, "2 pictures, none")])
def test_too_few_pictures_of_a_label(count: int, said: str) -> None:
    images = [*(record(n) for n in range(1, 11)), *(record(20 + n, "bee") for n in range(count))]
    with pytest.raises(UserError) as caught:
        split(records(*images), PARAMS, 0, [])
    assert f"fetch.sources: label 'bee' has {said} is left for" in str(caught.value)
    assert "add different pictures of it" in str(caught.value)


def boxed(*labels: str, crowds: str = "") -> Manifest:
    """A picture for each text, with a box for each of its letters: "ab" shows a and b, "" nothing."""
    some = categories(set("".join(labels)) | set(crowds))
    number = {category.name: category.id for category in some}
    images = [Image(id=n, file_name=f"{n}", width=9, height=9, sha256=f"{n}", source="s") for n, _ in enumerate(labels)]
    boxes = [(n, letter, 0) for n, text in enumerate(labels) for letter in text] + [(0, c, 1) for c in crowds]
    annotations = [
        Annotation(id=n, image_id=i, category_id=number[c], bbox=(1, 1, 2, 2), area=4, iscrowd=crowd)
        for n, (i, c, crowd) in enumerate(boxes, start=1)
    ]
    return Manifest(images=tuple(images), annotations=tuple(annotations), categories=some)


def shares(assigned: Assignment, label: str) -> list[int]:
    return [sum(label in some for some in shown(part, detect=True).values()) for part in assigned.splits.values()]


@pytest.mark.parametrize("seed", range(3))
def test_a_detectors_labels_and_its_background_come_near_their_shares(seed: int) -> None:
    """40 pictures of a, half of them with b, 10 of all three, 20 of nothing."""
    manifest = boxed(*["a"] * 20, *["ab"] * 10, *["abc"] * 10, *[""] * 20)
    assigned = split(manifest, PARAMS, seed, [], detect=True)
    assert shares(assigned, "a") == [24, 8, 8]
    assert shares(assigned, "b") == [12, 4, 4]
    assert shares(assigned, "c") == [6, 2, 2]
    assert [sum(not some for some in shown(p, detect=True).values()) for p in assigned.splits.values()] == [12, 4, 4]
    assert sum(len(part.annotations) for part in assigned.splits.values()) == len(manifest.annotations)


def test_many_kinds_of_pictures_do_not_all_go_to_train() -> None:
    """Each combination of labels once: dealt by combination, all 20 would be trained on."""
    letters = "abcdef"
    manifest = boxed(*("".join(some) for some in combinations(letters, 3)))
    assigned = split(manifest, PARAMS, 0, [], detect=True)
    sizes = [len(part.images) for part in assigned.splits.values()]
    assert sum(sizes) == 20
    assert sizes[1] >= 3
    assert sizes[2] >= 3


@pytest.mark.parametrize(("pins", "name"), [({1: "val"}, "train"), ({0: "train", 1: "train"}, "val")])
def test_a_label_that_a_split_of_a_detector_lacks(pins: dict[int, Split], name: Split) -> None:
    manifest = boxed("b" if 0 in pins else "a", "b", *["a"] * 12)
    pinned = [i.model_copy(update={"split": pins.get(i.id)}) for i in manifest.images]
    with pytest.raises(UserError, match=f"label 'b' has . pictures?, none is left for {name}; add different pictures"):
        split(manifest.model_copy(update={"images": tuple(pinned)}), PARAMS, 0, [], detect=True)


def test_a_label_of_crowds_alone_is_not_learned_from() -> None:
    with pytest.raises(UserError, match="label 'z' has 0 pictures, none is left for train"):
        split(boxed(*["a"] * 12, crowds="z"), PARAMS, 0, [], detect=True)


def test_the_stage_counts_what_a_detector_sees(tmp_path: Path) -> None:
    manifest = boxed(*["a"] * 10, *["ab"] * 10, *[""] * 10)
    write(manifest, tmp_path / "stages/fetch/annotations.json")
    params = tiny.make_params(split={"near_duplicate_bits": -1}).model_copy(update={"task": "detect"})
    split_stage(params, tmp_path)
    metrics = tiny.read_json(tmp_path / "stages/split/metrics.json")
    assert metrics["train"] == {"pictures": 15, "label.a": 10, "label.b": 5, "background": 5, "boxes": 15}


def test_twins_do_not_count_as_different_pictures() -> None:
    images = [*(record(n) for n in range(1, 11)), *(record(20 + n, "bee") for n in range(3))]
    with pytest.raises(UserError, match="label 'bee' has 3 pictures"):
        split(records(*images), PARAMS, 0, [(20, 21)])


def test_no_test_pictures_at_all() -> None:
    with pytest.raises(UserError, match="left for test"):
        split(records(*(record(n) for n in range(1, 11))), SplitParams(train=0.8, val=0.2, test=0), 0, [])


@given(st.lists(st.integers(0, 2**64 - 1), max_size=30), st.integers(-1, 64))
@settings(max_examples=60)
def test_twins_are_those_that_imagehash_finds_near(numbers: list[int], bits: int) -> None:
    near = [number ^ (1 << number % 64) for number in numbers[:5]]  # one bit away
    hashes = [np.array([n >> b & 1 for b in range(64)], bool).reshape(8, 8) for n in [*numbers, *near]]
    known = [imagehash.ImageHash(h) for h in hashes]
    wanted = [
        (i, j) for i in range(len(known)) for j in range(i + 1, len(known)) if bits >= 0 and known[i] - known[j] <= bits
    ]
    assert sorted(find_twins(hashes, bits)) == wanted


def test_twins_are_found_across_the_chunks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = [np.random.default_rng(n % 7).random((8, 8)) > 0.5 for n in range(40)]
    whole = find_twins(hashes, 3)
    monkeypatch.setattr("headstart.twins.ROWS", 9)
    assert find_twins(hashes, 3) == whole
    assert len(whole) == sum(i % 7 == j % 7 for i in range(40) for j in range(i))


def test_the_stage_writes_three_manifests_of_all_pictures(project: Project) -> None:
    everything = tiny.manifest(project.root, "fetch", "annotations")
    parts = {name: tiny.manifest(project.root, "split", name) for name in SPLITS}
    assert sorted(i.id for part in parts.values() for i in part.images) == [i.id for i in everything.images]
    assert all(part.categories == everything.categories for part in parts.values())
    metrics = tiny.read_json(project.root / "stages/split/metrics.json")
    assert {name: metrics[name]["pictures"] for name in SPLITS} == {"train": 12, "val": 6, "test": 6}
    assert metrics["train"]["label.red"] == 6
    assert (metrics["identical_pictures"], metrics["near_duplicate_pairs"], metrics["dropped"]) == (0, 0, 0)


def test_the_stage_finds_copies_and_what_looks_the_same(tmp_path: Path) -> None:
    tiny.make_pictures(tmp_path, 6)
    red = tmp_path / "data/red"
    (red / "copy.png").write_bytes((red / "00.png").read_bytes())
    tiny.texture(1, 0).resize((96, 80)).save(red / "larger.jpg", quality=80)  # 01.png, at twice the size
    params = tiny.make_params()
    tiny.run(tmp_path, params, "fetch", "split")
    metrics = tiny.read_json(tmp_path / "stages/split/metrics.json")
    assert (metrics["identical_pictures"], metrics["near_duplicate_pairs"]) == (1, 1)
    by_hash: dict[str, set[str]] = {}
    sizes: dict[tuple[int, int], str] = {}
    for name in SPLITS:
        for image in tiny.manifest(tmp_path, "split", name).images:
            by_hash.setdefault(image.sha256, set()).add(name)
            sizes[image.width, image.height] = name
    assert all(len(names) == 1 for names in by_hash.values())
    original = next(i for i in tiny.manifest(tmp_path, "fetch", "annotations").images if i.id == 8)
    assert by_hash[original.sha256] == {sizes[96, 80]}
    exact = tiny.make_params(split={"near_duplicate_bits": -1})
    tiny.run(tmp_path, exact, "split")
    metrics = tiny.read_json(tmp_path / "stages/split/metrics.json")
    assert (metrics["identical_pictures"], metrics["near_duplicate_pairs"]) == (1, 0)


def test_the_stage_wants_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "stages/fetch"
    folder.mkdir(parents=True)
    (folder / "annotations.json").write_text('{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(UserError, match=r"annotations\.json: no pictures in it; look at fetch\.sources"):
        split_stage(tiny.make_params(), tmp_path)


def test_the_stage_wants_the_one_before(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"annotations\.json: no such file; run the stage that writes it"):
        split_stage(tiny.make_params(), tmp_path)


def test_a_class_with_one_picture_stops_the_stage_before_it_writes(tmp_path: Path) -> None:
    tiny.make_pictures(tmp_path, 6)
    (tmp_path / "data/green").mkdir()
    tiny.texture(7, 1).save(tmp_path / "data/green/1.png")
    with pytest.raises(UserError, match="label 'green' has 1 picture, none is left for"):
        tiny.run(tmp_path, tiny.make_params(), "fetch", "split")
    assert not (tmp_path / "stages/split").exists()
    assert (tmp_path / "stages/fetch/annotations.json").is_file()
