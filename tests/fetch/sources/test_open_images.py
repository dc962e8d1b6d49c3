"""Open Images from a mirror with the real tables' names, headers and quirks."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headstart.base.errors import UserError
from headstart.fetch.outputs import FETCH_FOLDER
from headstart.fetch.sources.collect import collect_images
from headstart.fetch.sources.records import SourceImage
from mirror import Mirror, serving
from pictures import decoded, encoded, fetched, params, picture, put
from trees import OpenImages

HALF = (0.25, 0.125, 0.75, 0.5)  # xmin, ymin, xmax, ymax


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenImages:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    return OpenImages(tmp_path / "served")


@pytest.fixture
def mirror(tree: OpenImages) -> Iterator[Mirror]:
    tree.folder.mkdir()
    with serving(Mirror(tree.folder)) as mirror:
        yield mirror


def box(name: str) -> tuple[str, float, float, float, float]:
    return (name, *HALF)


def source(tree: OpenImages, *classes: str, **options: Any) -> dict[str, Any]:
    base = tree.folder.as_uri()
    section = {"classes": classes or ("Alpaca",), "metadata_url": f"{base}/metadata", "images_url": f"{base}/images"}
    return {"open_images": section | options}


def found(tree: OpenImages, *classes: str, boxes: bool = False, **options: Any) -> list[SourceImage]:
    items = collect_images(params(source(tree, *classes, **options)).fetch, tree.folder, boxes=boxes)
    return [item for item in items if isinstance(item, SourceImage)]


def ids(items: list[SourceImage]) -> set[str]:
    return {Path(item.location).stem for item in items}


def labels(items: list[SourceImage]) -> Counter[str | None]:
    return Counter(item.label for item in items)


@pytest.mark.parametrize("header", [True, False])
def test_verified_pictures_of_a_class(tree: OpenImages, header: bool) -> None:
    alpacas = {tree.add(split, [box("Alpaca")]) for split in ("train", "validation", "test")}
    tree.add("validation", [box("Goat")], absent=["Alpaca"])
    tree.write(header=header)
    items = found(tree, "alpaca")
    assert ids(items) == alpacas
    assert labels(items) == {"Alpaca": 3}
    assert ids(found(tree, "/m/0pcr")) == alpacas
    assert [item.source.partition(":")[2] for item in items] == ["validation", "test", "train"]


def test_a_picture_of_two_classes_has_no_single_label(tree: OpenImages) -> None:
    both = tree.add("test", [box("Alpaca"), box("Goat")])
    alpaca, goat = tree.add("test", present=["Alpaca"]), tree.add("test", present=["Goat"])
    tree.write()
    assert ids(found(tree, "Alpaca", "Goat")) == {alpaca, goat}
    assert ids(found(tree, "Alpaca", "Goat", boxes=True)) == {both}
    assert {box.label for item in found(tree, "Alpaca", "Goat", boxes=True) for box in item.boxes} == {
        "Alpaca",
        "Goat",
    }


def test_a_parent_means_its_descendants_and_not_its_parts(tree: OpenImages) -> None:
    animals = {tree.add("test", present=[name]) for name in ("Goat", "Sheep", "Animal")}
    dog = tree.add("test", present=["Dog"])
    tree.add("test", present=["Toy"])
    tree.write()
    assert ids(found(tree, "Animal")) == animals | {dog}
    items = found(tree, "Animal", "Dog")
    assert labels(items) == {"Animal": 3, "Dog": 1}
    assert ids([item for item in items if item.label == "Dog"]) == {dog}


def test_images_per_class_reads_as_few_splits_as_suffice(tree: OpenImages, mirror: Mirror) -> None:
    for split, count in (("validation", 5), ("test", 5), ("train", 30)):
        for _ in range(count):
            tree.add(split, present=["Alpaca"])
            tree.add(split, present=["Goat"])
    tree.write()
    urls: dict[str, Any] = {"metadata_url": f"{mirror.url}/metadata", "images_url": f"{mirror.url}/images"}
    few = found(tree, "Alpaca", "Goat", images_per_class=8, **urls)
    assert labels(few) == {"Alpaca": 8, "Goat": 8}
    assert {item.source for item in few} == {"open_images:validation", "open_images:test"}
    assert not [path for path in mirror.requests if "train" in path], "2 GB were not needed"
    more = found(tree, "Alpaca", "Goat", images_per_class=20, **urls)
    assert labels(more) == {"Alpaca": 20, "Goat": 20}
    assert ids(few) < ids(more), "more of the same, in the same order"
    assert more == found(tree, "Alpaca", "Goat", images_per_class=20, **urls)


def test_the_order_of_the_tables_does_not_matter(tree: OpenImages) -> None:
    for _ in range(30):
        tree.add("test", [box("Alpaca")])
    tree.write()
    first = found(tree, images_per_class=10, splits=["test"])
    tree.labels["test"].reverse()
    tree.info["test"].reverse()
    tree.write()
    assert found(tree, images_per_class=10, splits=["test"]) == first


def test_negatives_that_people_verified(tree: OpenImages) -> None:
    alpaca = tree.add("test", present=["Alpaca"])
    absent = {tree.add("test", absent=["Alpaca"]) for _ in range(3)}
    tree.add("test", present=["Goat"])  # whether an alpaca is on it is unknown
    tree.write()
    items = found(tree, negatives={"label": "not alpaca", "images": 9})
    assert {item.location.rpartition("/")[2][:-4]: item.label for item in items} == {alpaca: "Alpaca"} | dict.fromkeys(
        absent, "not alpaca"
    )


def test_absent_means_all_classes_and_the_class_itself(tree: OpenImages) -> None:
    tree.add("test", present=["Alpaca"])
    tree.add("test", present=["Dog"])
    negative = tree.add("test", absent=["Alpaca", "Animal"])
    tree.add("test", absent=["Alpaca"])
    tree.add("test", absent=["Alpaca", "Goat"])
    tree.add("test", absent=["Alpaca", "Animal"], present=["Sheep"])
    tree.write()
    items = found(tree, "Alpaca", "Animal", negatives={"images": 9})
    assert ids([item for item in items if item.label == "other"]) == {negative}


def test_negatives_of_classes_that_the_user_names(tree: OpenImages) -> None:
    for _ in range(6):
        tree.add("test", present=["Alpaca"])
    for name, count in (("Goat", 20), ("Sheep", 2), ("Toy", 20)):
        for _ in range(count):
            tree.add("test", [box(name)])
    tree.add("test", present=["Alpaca", "Goat"])
    tree.write()
    items = found(tree, images_per_class=6, negatives={"from": ["Goat", "Sheep", "Toy"], "label": "not alpaca"})
    assert labels(items) == {"Alpaca": 6, "not alpaca": 6}
    goats = {row[0] for row in tree.labels["test"] if row[2] == "/m/03fwl"}
    sheep = {row[0] for row in tree.labels["test"] if row[2] == "/m/07bgp"}
    negatives = ids([item for item in items if item.label == "not alpaca"])
    assert (len(negatives & goats), len(negatives & sheep)) == (2, 2), "as many of each"


def test_negatives_for_detection_are_background(tree: OpenImages) -> None:
    tree.add("test", [box("Alpaca")])
    negative = tree.add("test", [box("Goat")], absent=["Alpaca"])
    tree.write()
    items = {Path(item.location).stem: item for item in found(tree, boxes=True, negatives={})}
    assert (items[negative].boxes, items[negative].label) == ((), None)
    assert len(items) == 2


@pytest.mark.parametrize(
    ("option", "position"), [("occluded", 0), ("truncated", 1), ("group_of", 2), ("depiction", 3), ("inside", 4)]
)
@pytest.mark.parametrize("boxes", [True, False])
def test_filters_hold_for_all_boxes_of_a_picture(tree: OpenImages, option: str, position: int, boxes: bool) -> None:
    flags = ["0" * position + flag + "0" * (4 - position) for flag in "01?"]
    no, yes, unknown = (tree.add("test", [box("Alpaca")], flags=flag) for flag in flags)
    tree.boxes["test"].append(
        [yes, "xclick", "/m/0pcr", 1, 0.25, 0.75, 0.125, 0.5, *"00000"]
    )  # one that has the flag, one that has not
    tree.write()
    assert ids(found(tree, boxes=boxes)) == {no, yes, unknown}
    assert ids(found(tree, boxes=boxes, **{option: False})) == {no}
    with pytest.raises(UserError, match="no picture for 'Alpaca' in validation, test, train"):
        found(tree, boxes=boxes, **{option: True})


@pytest.mark.parametrize(
    ("rotation", "orientation"), [("0.0", 1), ("90.0", 1), ("180", 1), ("270.0", 1), ("", 6), ("0.0", 6)]
)
def test_picture_and_boxes_rotate_together(tree: OpenImages, tmp_path: Path, rotation: str, orientation: int) -> None:
    image = picture(3, (64, 48)).convert("L").point(lambda value: value // 2).convert("RGB")
    image.paste("white", (8, 24, 24, 36))  # xmin, ymin, xmax, ymax
    corners = (8 / 64, 24 / 48, 24 / 64, 36 / 48)
    data = encoded(image, "JPEG", orientation)
    tree.add("test", [("Alpaca", *corners)], rotation=rotation, flags="00100", data=data)
    tree.add("test", [box("Goat")])
    tree.write()
    manifest = fetched(tmp_path, source(tree, "Alpaca", "Goat", occluded=False))
    annotation = next(a for a in manifest.annotations if a.category_id == 1)
    stored = next(i for i in manifest.images if i.id == annotation.image_id)
    pixels = decoded((tmp_path / stored.file_name).read_bytes()).convert("L").point(lambda value: 255 * (value > 190))
    left, upper, right, lower = pixels.getbbox() or (0, 0, 0, 0)
    assert annotation.bbox == pytest.approx((left, upper, right - left, lower - upper), abs=1.01)
    rotated = rotation == "90.0" or rotation == "270.0" or (rotation == "" and orientation == 6)
    assert (stored.width, stored.height) == ((48, 64) if rotated else (64, 48))
    assert annotation.iscrowd == 1


def test_credits_for_every_picture(tree: OpenImages, tmp_path: Path) -> None:
    tree.add("test", present=["Alpaca"])
    tree.add("test", absent=["Alpaca"])
    tree.write()
    manifest = fetched(tmp_path, source(tree, negatives={}))
    assert {image.author for image in manifest.images} == {"Ann, O."}
    lines = (tmp_path / FETCH_FOLDER / "attribution.csv").read_text().splitlines()
    assert len(lines) == 3
    assert 'open_images:test,https://creativecommons.org/licenses/by/2.0/,"Ann, O.",https://www.flickr.com/' in lines[1]


def test_pictures_by_http_some_of_them_gone(tree: OpenImages, mirror: Mirror, tmp_path: Path) -> None:
    for _ in range(4):
        tree.add("test", present=["Alpaca"])
        tree.add("test", absent=["Alpaca"])
    gone = tree.add("test", present=["Alpaca"], data=b"")
    tree.write()
    urls = {"metadata_url": f"{mirror.url}/metadata", "images_url": f"{mirror.url}/images"}
    manifest = fetched(tmp_path, source(tree, negatives={}, **urls), max_failed=1)
    assert Counter(image.label for image in manifest.images) == {"Alpaca": 4, "other": 4}
    assert f"{mirror.url}/images/test/{gone}.jpg,HTTP 404" in (tmp_path / FETCH_FOLDER / "failed.csv").read_text()
    before = Counter(mirror.requests)
    other = tmp_path / "other project"
    fetched(other, source(tree, negatives={}, **urls), max_failed=1)
    again = mirror.requests - before
    assert not [path for path in again if path.endswith(".jpg") and gone not in path]


def test_too_few_pictures_are_a_warning(tree: OpenImages, capsys: pytest.CaptureFixture[str]) -> None:
    tree.add("test", present=["Alpaca"])
    tree.add("test", absent=["Alpaca"])
    tree.write()
    found(tree, images_per_class=5, negatives={})
    warnings = capsys.readouterr().err
    assert "fetch: open_images: only 1 of 5 pictures for 'Alpaca'" in warnings
    assert "fetch: open_images: only 1 of 5 pictures for 'other'" in warnings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["Alpaka"]}, "open_images.classes: 'Alpaka': no such boxable class; did you mean 'Alpaca'?"),
        ({"classes": ["/m/nope"]}, "open_images.classes: '/m/nope': no such boxable class"),
        (
            {"negatives": {"from": ["Gote"]}},
            "open_images.negatives.from: 'Gote': no such boxable class; did you mean 'Goat'",
        ),
        ({"classes": ["Airplane, jet"]}, "open_images: no picture for 'Airplane, jet' in validation, test, train"),
        ({"metadata_url": "file:///nowhere"}, "nowhere/v7/oidv7-class-descriptions-boxable.csv: no such file; change"),
    ],
)
def test_an_invalid_source_is_one_error_line(tree: OpenImages, options: dict[str, Any], message: str) -> None:
    tree.add("test", present=["Alpaca"])
    tree.write()
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        found(tree, **options)
    assert str(caught.value).startswith("params.yaml: fetch.sources.0: ")


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("v5/validation-annotations-human-imagelabels-boxable.csv", "LabelName"),
        ("v5/validation-annotations-human-imagelabels-boxable.csv", "Confidence"),
        ("v5/validation-annotations-bbox.csv", "XMin"),
        ("2018_04/validation/validation-images-with-rotation.csv", "Rotation"),
    ],
)
def test_a_table_without_a_needed_column_is_one_error_line(tree: OpenImages, table: str, column: str) -> None:
    tree.add("validation", [box("Alpaca")])
    tree.write()
    path = tree.folder / "metadata" / table
    path.write_text(path.read_text().replace(column, "Other", 1))
    with pytest.raises(UserError) as caught:
        found(tree, boxes="bbox" in table, splits=["validation"])
    assert str(caught.value).startswith(f"params.yaml: fetch.sources.0: {path}: no column '{column}', only ImageID, ")
    assert "\n" not in str(caught.value)


def test_a_label_for_all_would_name_the_negatives(tree: OpenImages) -> None:
    with pytest.raises(ValueError, match="label: would name the negatives as well"):
        params(source(tree, negatives={}) | {"label": "alpaca"})


def test_a_server_that_is_not_there(tree: OpenImages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.fetch.http.client.MAX_BACKOFF", 0.0)
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9/v7/.*: .*try again .*or name a mirror"):
        found(tree, metadata_url="http://127.0.0.1:9")


REAL = Path(__file__).parents[4] / "shared/data/metadata"


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared tables are not here")
def test_real_tables(tree: OpenImages) -> None:
    from headstart.fetch.sources import open_images_tables as tables

    tree.write()
    classes = (REAL / "openimages-class-descriptions-boxable.csv").read_bytes()
    put(tree.folder / "metadata" / tables.CLASSES_CSV, classes)
    boxes = (REAL / "openimages-train-annotations-bbox-head.csv").read_bytes()
    put(tree.folder / "metadata" / tables.BOXES_CSV["train"], boxes)
    section = params(source(tree)).fetch
    url = (tree.folder / "metadata").as_uri()
    hierarchy = tables.read_hierarchy(url, section.downloads)
    assert len(hierarchy.names) == 601
    requested = hierarchy.requested_classes(["Hiking equipment", "Tree"], "classes")
    rows = list(tables.read_boxes("train", url, section.downloads, list(requested)))
    assert {hierarchy.names[row.mid] for row in rows} <= {"Hiking equipment", "Tree", "Backpack", "Palm tree"}
    assert all(0 <= row.xmin < row.xmax <= 1 and 0 <= row.ymin < row.ymax <= 1 for row in rows)
