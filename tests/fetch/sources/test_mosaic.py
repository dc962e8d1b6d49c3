"""Scenes of crops: boxes where the crops are, no crop in two groups, the same for the same params."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tiny
from headstart.base.errors import UserError
from headstart.base.manifest import Manifest
from headstart.fetch.sources.mosaic import list_images
from headstart.fetch.sources.records import Rejection, Scene, SourceImage
from headstart.fetch.sources.scene import render_scene
from headstart.params.fetch import MosaicParams
from headstart.params.root import SplitParams
from headstart.split.assign import assign_splits
from pictures import decoded, encoded, fetched, put, table

COLOURS = {"cracked": (200, 40, 40), "whole": (40, 40, 200)}


def crops(root: Path, each: int = 40, **columns: Any) -> None:
    """data/t.csv and its crops: noise, no two alike, whole ones blue and cracked ones red."""
    rows: list[tuple[object, ...]] = [("image", "label", "license", "author", *columns)]
    for label, name in enumerate(("cracked", "whole")):
        for number in range(each):
            file = f"{name}/{number}.png"
            put(root / "data" / file, encoded(tiny.texture(100 * label + number, label, (30, 30))))
            more = [value[number] if isinstance(value, list) else value for value in columns.values()]
            rows.append((file, name, "CC0", f"author {number % 3}", *more))
    table(root / "data/t.csv", rows)


def params(**changes: Any) -> MosaicParams:
    small: dict[str, Any] = {
        "rows": [2, 3],
        "columns": [2, 4],
        "cell": [16, 24],
        "groups": 4,
        "near_duplicate_bits": -1,
    }
    return MosaicParams.model_validate({"table": "data/t.csv", "boxes": ["cracked"], "scenes": 12} | small | changes)


def scenes(root: Path, **changes: Any) -> list[SourceImage]:
    found = list(list_images(params(**changes), root))
    assert not [item for item in found if isinstance(item, Rejection)]
    return [item for item in found if isinstance(item, SourceImage)]


def scene_of(item: SourceImage) -> Scene:
    assert isinstance(item.content, Scene)
    return item.content


def test_boxes_are_where_the_crops_are(tmp_path: Path) -> None:
    crops(tmp_path)
    boxed = 0
    for item in scenes(tmp_path, brightness=0):
        pixels = np.asarray(decoded(render_scene(scene_of(item))), np.int64)
        scene = scene_of(item)
        assert pixels.shape == (scene.height, scene.width, 3)
        corners = {(box.xmin, box.ymin) for box in item.boxes}
        for cell in scene.cells:
            red, _, blue = pixels[cell.y : cell.y + scene.cell_size, cell.x : cell.x + scene.cell_size].mean((0, 1))
            assert (red > blue) == ((cell.x, cell.y) in corners) == (cell.path.parent.name == "cracked")
        for box in item.boxes:
            assert (box.label, box.xmax - box.xmin, box.ymax - box.ymin) == (
                "cracked",
                scene.cell_size,
                scene.cell_size,
            )
            assert 0 <= box.xmin < box.xmax <= scene.width
            assert 0 <= box.ymin < box.ymax <= scene.height
        boxed += len(item.boxes)
    assert boxed > 12


def test_crops_do_not_overlap_and_gaps_show_the_background(tmp_path: Path) -> None:
    crops(tmp_path)
    for item in scenes(tmp_path, gap=[3, 5], margin=[2, 9]):
        scene = scene_of(item)
        pixels = np.asarray(decoded(render_scene(scene)), np.int64)
        outside = np.ones(pixels.shape[:2], bool)
        for cell in scene.cells:
            area = (slice(cell.y, cell.y + scene.cell_size), slice(cell.x, cell.x + scene.cell_size))
            assert outside[area].all()
            outside[area] = False
        assert (pixels[outside] == scene.background).all()
        assert outside[0].all()
        assert outside[:, 0].all()


def test_the_same_params_make_the_same_scenes_and_the_seed_others(tmp_path: Path) -> None:
    crops(tmp_path)
    first, again, other = (scenes(tmp_path, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert [render_scene(scene_of(item)) for item in first[:3]] == [render_scene(scene_of(item)) for item in again[:3]]
    assert all(a.content != b.content for a, b in zip(first, other, strict=True))
    assert scenes(tmp_path, scenes=5)[:3] == first[:3], "more scenes leave the others as they are"


def groups_of(items: list[SourceImage]) -> dict[str, set[str | None]]:
    """Crop -> the groups of the scenes that it is in."""
    found: dict[str, set[str | None]] = defaultdict(set)
    for item in items:
        for cell in scene_of(item).cells:
            found["/".join(cell.path.parts[-2:])].add(item.group)
    return found


def test_no_crop_is_in_scenes_of_two_groups(tmp_path: Path) -> None:
    crops(tmp_path)
    items = scenes(tmp_path, scenes=40)
    found = groups_of(items)
    assert len({item.group for item in items}) == 4
    assert all(len(groups) == 1 for groups in found.values())
    assert len(found) > 60, "nearly all crops are used"
    for item in items:
        cells = [cell.path for cell in scene_of(item).cells]
        assert len(cells) == len(set(cells)), "and no crop twice in a scene"


def test_no_crop_is_in_two_splits(tmp_path: Path) -> None:
    crops(tmp_path)
    source = {"mosaic": params(scenes=30, groups=6).model_dump()}
    manifest: Manifest = fetched(tmp_path, source, task="detect")
    assigned = assign_splits(manifest, SplitParams(train=0.6, val=0.2, test=0.2), 0, [], boxes=True)
    groups = {name: {image.group for image in part.images} for name, part in assigned.splits.items()}
    sizes = {name: len(part.images) for name, part in assigned.splits.items()}
    assert sizes == {"train": 20, "val": 5, "test": 5}
    assert not groups["train"] & (groups["val"] | groups["test"])
    assert not groups["val"] & groups["test"]
    every = groups_of(scenes(tmp_path, scenes=30, groups=6))
    assert all(len(found) == 1 for found in every.values())


def test_near_duplicates_and_crops_of_one_group_stay_together(tmp_path: Path) -> None:
    """Crop 0 and a darker version of it; crops 1 to 5 of one wafer."""
    wafers = [f"w{max(n, 5)}" if 1 <= n <= 5 else "" for n in range(40)]
    crops(tmp_path, group=wafers)
    duplicate = Image.open(tmp_path / "data/whole/0.png").point(lambda value: value * 0.9)
    put(tmp_path / "data/whole/39.png", encoded(duplicate))
    for seed in range(3):
        found = groups_of(scenes(tmp_path, scenes=60, near_duplicate_bits=4, seed=seed))
        assert len(found["whole/0.png"] | found["whole/39.png"]) == 1
        wafer = [found[f"{label}/{n}.png"] for label in ("cracked", "whole") for n in range(1, 6)]
        assert len(set().union(*wafer)) == 1


def test_every_group_has_its_share_of_boxed_crops(tmp_path: Path) -> None:
    crops(tmp_path)
    items = scenes(tmp_path, scenes=80)
    boxes: dict[str | None, int] = defaultdict(int)
    cells: dict[str | None, int] = defaultdict(int)
    for item in items:
        boxes[item.group] += len(item.boxes)
        cells[item.group] += len(scene_of(item).cells)
    assert all(0.3 < boxes[group] / cells[group] < 0.7 for group in boxes)


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_the_share_of_boxed_crops(tmp_path: Path, share: float) -> None:
    crops(tmp_path)
    items = scenes(tmp_path, scenes=100, share=share)
    found = sum(len(item.boxes) for item in items) / sum(len(scene_of(item).cells) for item in items)
    assert found == pytest.approx(share, abs=0.035)
    assert any(not item.boxes and item.label is None for item in items), "scenes of background"


def test_licences_and_authors_of_the_crops_are_joined(tmp_path: Path) -> None:
    crops(tmp_path)
    manifest = fetched(tmp_path, {"mosaic": params().model_dump()}, task="detect")
    assert {image.license for image in manifest.images} == {"CC0"}
    assert manifest.images[0].author == "author 0; author 1; author 2"
    assert manifest.labels() == ["cracked"]
    assert {image.source for image in manifest.images} == {"mosaic:data/t.csv"}
    assert all(image.file_name.endswith(".png") for image in manifest.images)


def test_grey_crops_make_grey_scenes(tmp_path: Path) -> None:
    crops(tmp_path)
    for path in (tmp_path / "data").rglob("*.png"):
        Image.open(path).convert("L").save(path)
    assert decoded(render_scene(scene_of(scenes(tmp_path)[0]))).mode == "L"


def test_a_crop_that_cannot_be_read_is_rejected(tmp_path: Path) -> None:
    crops(tmp_path)
    put(tmp_path / "data/whole/3.png", b"<html>")
    (tmp_path / "data/whole/4.png").unlink()
    found = list(list_images(params(scenes=40), tmp_path))
    assert [(item.location, item.kind) for item in found if isinstance(item, Rejection)] == [
        ("whole/3.png", "web_page"),
        ("whole/4.png", "missing"),
    ]
    used = groups_of([item for item in found if isinstance(item, SourceImage)])
    assert not {"whole/3.png", "whole/4.png"} & set(used)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"boxes": ["craked"]}, r"mosaic\.boxes: 'craked': no such label in data/t\.csv, only cracked, whole"),
        ({"table": "data/none.csv"}, r"table: data/none\.csv: no such file"),
        (
            {"groups": 10},
            r"mosaic\.groups: 10: a group has only 8 crops of data/t\.csv, and a scene may take 3 x 4 = 12; ask for",
        ),
    ],
)
def test_invalid_params_are_one_error_line(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    crops(tmp_path)
    with pytest.raises(UserError, match=words):
        scenes(tmp_path, **changes)


def test_crops_must_be_here_and_unpinned(tmp_path: Path) -> None:
    crops(tmp_path, split="train")
    with pytest.raises(UserError, match=r"it pins cracked/0\.png to train, but scenes are divided by `split:`"):
        scenes(tmp_path)
    table(tmp_path / "data/t.csv", [("image", "label"), ("https://example.com/1.png", "cracked")])
    with pytest.raises(UserError, match=r"https://example\.com/1\.png: crops must be files here"):
        scenes(tmp_path)
