"""The split stage: three manifests of all pictures, near-duplicates together, and its errors."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

import tiny
from conftest import Project
from headstart.base.errors import UserError
from headstart.base.manifest import SPLITS, Image, write_manifest
from headstart.split.stage import split
from manifests import boxed, record, records


def test_the_stage_writes_three_manifests_of_all_pictures(project: Project) -> None:
    everything = tiny.manifest(project.root, "fetch", "annotations")
    parts = {name: tiny.manifest(project.root, "split", name) for name in SPLITS}
    assert sorted(i.id for part in parts.values() for i in part.images) == [i.id for i in everything.images]
    assert all(part.categories == everything.categories for part in parts.values())
    metrics = tiny.read_json(project.root / "stages/split/metrics.json")
    assert {name: metrics[name]["pictures"] for name in SPLITS} == {"train": 12, "val": 6, "test": 6}
    assert metrics["train"]["label.red"] == 6
    assert (metrics["identical_pictures"], metrics["near_duplicate_pairs"], metrics["dropped"]) == (0, 0, 0)


def test_metrics_of_a_detector_count_boxes_and_background(tmp_path: Path) -> None:
    manifest = boxed(*["a"] * 10, *["ab"] * 10, *[""] * 10)
    write_manifest(manifest, tmp_path / "stages/fetch/annotations.json")
    params = tiny.make_params(split={"near_duplicate_bits": -1}).model_copy(update={"task": "detect"})
    tiny.split(params, tmp_path)
    metrics = tiny.read_json(tmp_path / "stages/split/metrics.json")
    assert metrics["train"] == {"pictures": 15, "units": 15, "label.a": 10, "label.b": 5, "background": 5, "boxes": 15}


def test_identical_and_near_identical_pictures_are_found(tmp_path: Path) -> None:
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


def test_no_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "stages/fetch"
    folder.mkdir(parents=True)
    (folder / "annotations.json").write_text('{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(UserError, match=r"annotations\.json: no pictures in it; look at fetch\.sources"):
        tiny.split(tiny.make_params(), tmp_path)


def test_a_missing_fetch_stage(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"annotations\.json: no such file; run the stage that writes it"):
        tiny.split(tiny.make_params(), tmp_path)


def test_a_class_with_one_picture_stops_the_stage_before_it_writes(tmp_path: Path) -> None:
    tiny.make_pictures(tmp_path, 6)
    (tmp_path / "data/green").mkdir()
    tiny.texture(7, 1).save(tmp_path / "data/green/1.png")
    with pytest.raises(UserError, match="label 'green' has 1 picture, none is left for"):
        tiny.run(tmp_path, tiny.make_params(), "fetch", "split")
    assert not (tmp_path / "stages/split").exists()
    assert (tmp_path / "stages/fetch/annotations.json").is_file()


@pytest.mark.parametrize("damage", ["gone", "truncated"])
def test_a_picture_that_changed_since_fetch_is_one_line(tmp_path: Path, damage: str) -> None:
    tiny.make_pictures(tmp_path, 6)
    tiny.run(tmp_path, tiny.make_params(), "fetch")
    path = tmp_path / tiny.manifest(tmp_path, "fetch", "annotations").images[3].file_name
    data = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError) as caught:
        tiny.split(tiny.make_params(), tmp_path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "`dvc repro` stores it again" in str(caught.value)


def test_a_split_that_the_sources_lack_is_dealt_from_train_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.make_pictures(tmp_path / "train", 12)
    tiny.make_pictures(tmp_path / "val", 4)
    for name in ("train", "val"):
        (tmp_path / name / "data").rename(tmp_path / name / "moved")
        (tmp_path / "data" / name).parent.mkdir(exist_ok=True)
        (tmp_path / name / "moved").rename(tmp_path / "data" / name)
    params = tiny.make_params(split={"near_duplicate_bits": -1})
    pictures = sorted((tmp_path / "data/val").rglob("*.png"))
    for number, path in enumerate(pictures):
        tiny.texture(500 + number, number % 2).save(path)  # others than train's
    tiny.run(tmp_path, params, "fetch", "split")
    assert "split: no test pictures in the sources: 8 of train's 24 were dealt to test\n" in capsys.readouterr().out
    metrics = tiny.read_json(tmp_path / "stages/split/metrics.json")
    assert {name: metrics[name]["pictures"] for name in SPLITS} == {"train": 16, "val": 8, "test": 8}
    assert metrics["test"]["from_train"] == 8
    assert "from_train" not in metrics["val"]


def split_of(root: Path, images: list[Image], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines that the stage prints about figures that will say little."""
    write_manifest(records(*images), root / "stages/fetch/annotations.json")
    split(tiny.make_params(split={"near_duplicate_bits": -1}), root, boxes=False)
    return [line for line in capsys.readouterr().out.splitlines() if "say little" in line]


def in_groups(count: int, size: int, **more: Any) -> list[Image]:
    """So many groups of so many pictures, half of them of each label."""
    return [record(n, "ab"[n // size % 2], group=f"g{n // size}", **more) for n in range(count * size)]


def test_many_pictures_of_few_groups_are_said_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = split_of(tmp_path, in_groups(16, 30), capsys)
    metrics = tiny.read_json(tmp_path / "stages/split/metrics.json")
    assert {name: (metrics[name]["pictures"], metrics[name]["units"]) for name in SPLITS} == {
        "train": (240, 8),
        "val": (120, 4),
        "test": (120, 4),
    }
    assert lines == [
        "split: test has 120 pictures but only 4 independent groups, val has 120 pictures but only 4 independent "
        "groups: their figures will say little; evaluate.folds examines every group"
    ]


def test_few_pictures_or_many_groups_are_not_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert split_of(tmp_path / "pictures", [record(n, "ab"[n % 2]) for n in range(60)], capsys) == []
    assert split_of(tmp_path / "groups", in_groups(80, 3), capsys) == []
    metrics = tiny.read_json(tmp_path / "groups/stages/split/metrics.json")
    assert (metrics["test"]["pictures"], metrics["test"]["units"]) == (60, 20)
    assert len(split_of(tmp_path / "fewer", in_groups(76, 3), capsys)) == 1, "19 of them"


def test_groups_that_are_pinned_to_test_are_not_examined_by_folds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [*in_groups(2, 10, split="test"), *(record(100 + n, "ab"[n % 2]) for n in range(60))]
    assert split_of(tmp_path, images, capsys) == [
        "split: test has 35 pictures but only 17 independent groups: its figures will say little; evaluate.folds "
        "examines every group that is not pinned to test"
    ]


def test_a_detector_has_no_folds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = boxed(*["a"] * 80)
    grouped = [image.model_copy(update={"group": f"{image.id // 10}"}) for image in manifest.images]
    write_manifest(manifest.model_copy(update={"images": tuple(grouped)}), tmp_path / "stages/fetch/annotations.json")
    split(tiny.make_params(split={"near_duplicate_bits": -1}), tmp_path, boxes=True)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "say little" in line]
    assert line.startswith("split: test has ")
    assert line.endswith(" independent groups: their figures will say little")


def test_the_contact_sheet_is_always_written(project: Project, tmp_path: Path) -> None:
    manifest = records(*(record(n, "ab"[n % 2]) for n in range(12)))
    write_manifest(manifest, tmp_path / "stages/fetch/annotations.json")
    split(tiny.make_params(split={"near_duplicate_bits": -1}), tmp_path, boxes=False)
    for root in (project.root, tmp_path):
        with Pillow.open(root / "stages/split/near-duplicates.jpg") as sheet:
            sheet.load()
            assert sheet.format == "JPEG"
