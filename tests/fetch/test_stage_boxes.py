"""The stage for a detector: valid boxes, background, and one line for each error."""

import csv
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from headstart.base.errors import UserError
from headstart.base.manifest import Manifest
from headstart.fetch.outputs import FETCH_FOLDER
from pictures import encoded, fetched, picture, put, table

HEADER = ("image", "label", "xmin", "ymin", "xmax", "ymax")
SIZE = (40, 24)


def detect(root: Path, rows: Sequence[Sequence[object]], max_failed: int = 0, **source: Any) -> Manifest:
    """Fetch a table of boxes; every picture that it names is there."""
    for number, name in enumerate(dict.fromkeys(str(row[0]) for row in rows)):
        put(root / "data" / name, encoded(picture(number, SIZE)))
    table(root / "data/t.csv", [HEADER, *rows])
    return fetched(root, {"table": "data/t.csv", **source}, max_failed=max_failed, task="detect")


def failed(root: Path) -> list[str]:
    with (root / FETCH_FOLDER / "failed.csv").open() as file:
        return [f"{row['location']}: {row['reason']}" for row in csv.DictReader(file)]


def metrics(root: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads((root / FETCH_FOLDER / "metrics.json").read_text())
    return found


def test_boxes_and_background(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("a.png", "cat", 1, 2, 11, 12), ("a.png", "dog", 5, 5, 20, 20), ("b.png", "", "", "", "", "")]
    manifest = detect(tmp_path, rows)
    assert [a.bbox for a in manifest.annotations] == [(1, 2, 10, 10), (5, 5, 15, 15)]
    assert {a.image_id for a in manifest.annotations} == {1}
    assert [image.label for image in manifest.images] == [None, None], "its boxes have the labels"
    assert manifest.labels() == ["cat", "dog"]
    numbers = metrics(tmp_path)
    assert (numbers["pictures"], numbers["background"], numbers["boxes"], numbers["label.cat"]) == (2, 1, 2, 1)
    assert "fetch: 2 pictures (1 of them background), 2 boxes (cat 1, dog 1); 0 conv" in capsys.readouterr().out


def test_boxes_beyond_the_picture_are_clipped(tmp_path: Path) -> None:
    rows = [("a.png", "cat", -5, -5, 60, 12)]
    assert [a.bbox for a in detect(tmp_path, rows).annotations] == [(0, 0, 40, 12)]
    assert metrics(tmp_path)["boxes_clipped"] == 1


@pytest.mark.parametrize("corners", [(90, 2, 99, 12), (3, 3, 3, 9), ("nan", 2, 11, 12)])
def test_a_box_that_cannot_be_used_rejects_its_picture(tmp_path: Path, corners: tuple[object, ...]) -> None:
    rows = [("a.png", "cat", 1, 2, 11, 12), ("b.png", "cat", 1, 2, 11, 12), ("b.png", "cat", *corners)]
    with pytest.raises(UserError, match=r"fetch\.max_failed: 0: 1 picture was rejected, the first is b\.png"):
        detect(tmp_path, rows)
    manifest = detect(tmp_path, rows, max_failed=1)
    assert [image.source for image in manifest.images] == ["table:data/t.csv"]
    assert [a.bbox for a in manifest.annotations] == [(1, 2, 10, 10)]
    (reason,) = failed(tmp_path)
    assert reason.startswith("b.png: ")
    assert "box of 'cat': " in reason
    numbers = metrics(tmp_path)
    assert (numbers["failed"], numbers["failed.box"], numbers["ignored"], numbers["background"]) == (1, 1, 0, 0)


def test_a_label_without_a_box_is_not_background(tmp_path: Path) -> None:
    rows = [("a.png", "cat", 1, 2, 11, 12), ("b.png", "cat", "", "", "", "")]
    line = r"b\.png of table:data/t\.csv \(labelled 'cat', but without a box: draw it, or leave the label out"
    with pytest.raises(UserError, match=line):
        detect(tmp_path, rows)
    assert len(detect(tmp_path, rows, max_failed=1).images) == 1


def test_a_box_without_a_label(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line 2: no label; fill in the column 'label'"):
        detect(tmp_path, [("a.png", "", 1, 2, 11, 12)])


@pytest.mark.parametrize("kind", ["folder", "table"])
def test_a_source_without_boxes(tmp_path: Path, kind: str) -> None:
    for name in ("cat/1.png", "dog/2.png"):
        put(tmp_path / "data" / name)
    table(tmp_path / "data/t.csv", [("image", "label"), ("cat/1.png", "cat"), ("dog/2.png", "dog")])
    source = {"folder": "data"} if kind == "folder" else {"table": "data/t.csv"}
    with pytest.raises(UserError) as caught:
        fetched(tmp_path, source, task="detect")
    message = str(caught.value)
    assert message.startswith(f"params.yaml: fetch.sources.0: {kind}:data")
    assert "labels but no boxes, and `task: detect` needs boxes" in message
    assert "\n" not in message


def test_no_boxes_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"fetch\.sources: no box in all 2 pictures, crowds aside; a detector learns"):
        detect(tmp_path, [("a.png", "", "", "", "", ""), ("b.png", "", "", "", "", "")])


def test_crowds_alone_are_no_boxes(tmp_path: Path) -> None:
    put(tmp_path / "data/a.png", encoded(picture(1, SIZE)))
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 24}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 9, 9], "iscrowd": 1}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    put(tmp_path / "data/a.json", json.dumps(coco).encode())
    with pytest.raises(UserError, match="no box in 1 picture, crowds aside"):
        fetched(tmp_path, {"coco": {"images": "data", "annotations": "data/a.json"}}, task="detect")


def test_five_thousand_boxes_in_one_picture(tmp_path: Path) -> None:
    corners = [(1 + n % 70 / 2, n // 70 / 4) for n in range(5000)]
    rows = [("a.png", "cell", x, y, x + 0.5, y + 0.25) for x, y in corners]
    began = time.process_time()
    assert len(detect(tmp_path, rows).annotations) == 5000
    assert time.process_time() - began < 10


def test_a_label_for_all_renames_the_boxes(tmp_path: Path) -> None:
    rows = [("a.png", "cat", 1, 2, 11, 12), ("b.png", "", "", "", "", "")]
    manifest = detect(tmp_path, rows, label="animal")
    assert manifest.labels() == ["animal"]
    assert len(manifest.annotations) == 1
    assert metrics(tmp_path)["background"] == 1
