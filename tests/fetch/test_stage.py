"""The stage as a whole: the files it writes, its errors, and that the same params give the same bytes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from headstart.base.errors import UserError
from headstart.base.files import sha256_file
from headstart.fetch.outputs import FETCH_FOLDER
from pictures import decoded, encoded, fetched, picture, put, table


def two_classes(root: Path, count: int = 3) -> None:
    for number in range(count):
        put(root / f"data/ant/{number}.png", seed=number)
        put(root / f"data/bee/{number}.png", seed=100 + number)


def metrics(root: Path) -> dict[str, int]:
    loaded: dict[str, int] = json.loads((root / FETCH_FOLDER / "metrics.json").read_text())
    return loaded


def failed(root: Path) -> list[str]:
    return (root / FETCH_FOLDER / "failed.csv").read_text().splitlines()


def test_pictures_manifest_and_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two_classes(tmp_path)
    put(tmp_path / "data/bee/turned.jpg", encoded(picture(9), "JPEG", 6))
    manifest = fetched(tmp_path, {"folder": "data"})
    assert [image.id for image in manifest.images] == list(range(1, 8))
    assert manifest.labels() == ["ant", "bee"]
    for image in manifest.images:
        assert image.file_name.startswith("stages/fetch/images/")
        assert sha256_file(tmp_path / image.file_name) == image.sha256
        assert decoded((tmp_path / image.file_name).read_bytes()).size == (image.width, image.height)
    assert (manifest.images[-1].width, manifest.images[-1].height) == (24, 40)
    assert sha256_file(tmp_path / "data/ant/0.png") == manifest.images[0].sha256
    numbers = metrics(tmp_path)
    assert (numbers["pictures"], numbers["label.ant"], numbers["label.bee"]) == (7, 3, 4)
    assert (numbers["converted"], numbers["converted.rotated"], numbers["failed"]) == (1, 1, 0)
    assert failed(tmp_path) == ["source,location,reason"]
    assert "fetch: 7 pictures (ant 3, bee 4)" in capsys.readouterr().out


def test_the_same_params_make_the_same_bytes(tmp_path: Path) -> None:
    two_classes(tmp_path, 8)
    names = ("annotations.json", "failed.csv", "metrics.json")
    sources = ({"folder": "data", "limit": 11}, {"folder": "data/ant", "label": "bee", "split": "test"})
    fetched(tmp_path, *sources, allow_conflicting_labels=True)
    first = [(tmp_path / FETCH_FOLDER / name).read_bytes() for name in names]
    put(tmp_path / FETCH_FOLDER / "images/left-over.png")
    fetched(tmp_path, *sources, allow_conflicting_labels=True)
    assert first == [(tmp_path / FETCH_FOLDER / name).read_bytes() for name in names]
    assert not (tmp_path / FETCH_FOLDER / "images/left-over.png").exists()


def test_sources_are_merged_in_their_order(tmp_path: Path) -> None:
    two_classes(tmp_path, 1)
    put(tmp_path / "own/wasp/1.png", seed=7)
    manifest = fetched(tmp_path, {"folder": "own", "split": "test"}, {"folder": "data"})
    assert [(image.label, image.split, image.source) for image in manifest.images] == [
        ("wasp", "test", "folder:own"),
        ("ant", None, "folder:data"),
        ("bee", None, "folder:data"),
    ]


def test_identical_pictures_stay_two_entries_of_one_file(tmp_path: Path) -> None:
    put(tmp_path / "data/ant/1.png")
    put(tmp_path / "data/ant/2.png")
    put(tmp_path / "data/bee/3.png", seed=3)
    manifest = fetched(tmp_path, {"folder": "data"})
    assert len(manifest.images) == 3
    assert len({image.file_name for image in manifest.images}) == 2
    assert metrics(tmp_path)["identical"] == 1


def test_one_picture_under_two_labels_stops_the_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two_classes(tmp_path)
    put(tmp_path / "data/bee/again.png", seed=0)
    put(tmp_path / "data/ant/also.png", seed=101)
    with pytest.raises(UserError) as caught:
        fetched(tmp_path, {"folder": "data"})
    assert str(caught.value) == (
        "params.yaml: fetch.allow_conflicting_labels: false: 2 pictures are listed again with another label: "
        "data/ant/also.png (ant) = data/bee/1.png (bee), data/ant/0.png (ant) = data/bee/again.png (bee); all are in "
        "stages/fetch/failed.csv; correct or delete one of each pair, or set it to true"
    )
    assert failed(tmp_path)[1:] == [
        'folder:data,data/bee/1.png,"identical to data/ant/also.png (ant), but bee"',
        'folder:data,data/bee/again.png,"identical to data/ant/0.png (ant), but bee"',
    ]
    assert not (tmp_path / FETCH_FOLDER / "annotations.json").exists()
    capsys.readouterr()
    manifest = fetched(tmp_path, {"folder": "data"}, allow_conflicting_labels=True)
    assert len(manifest.images) == 8
    assert "fetch: 2 pictures are listed again with another label: data/ant/also.png" in capsys.readouterr().err
    assert len(failed(tmp_path)) == 3, "the pairs stay listed"


def test_one_picture_with_other_boxes_stops_a_detectors_stage(tmp_path: Path) -> None:
    put(tmp_path / "data/1.png", encoded(picture(1, (60, 40))))
    put(tmp_path / "data/2.png", encoded(picture(1, (60, 40))))
    header = ("image", "label", "xmin", "ymin", "xmax", "ymax")
    first = ("1.png", "a", 10, 10, 20, 20)
    others: dict[str, list[tuple[object, ...]]] = {
        "rounded": [("2.png", "a", 9, 10, 21, 20)],
        "moved": [("2.png", "a", 30, 10, 40, 20)],
        "more": [("2.png", "a", 10, 10, 20, 20), ("2.png", "a", 30, 10, 40, 20)],
        "background": [("2.png", "", "", "", "", "")],
        "renamed": [("2.png", "b", 10, 10, 20, 20)],
    }
    for name, rows in others.items():
        table(tmp_path / "data/one.csv", [header, first])
        table(tmp_path / "data/two.csv", [header, *rows])
        sources = ({"table": "data/one.csv"}, {"table": "data/two.csv"})
        if name == "rounded":
            assert len(fetched(tmp_path, *sources, task="detect").annotations) == 2
            continue
        with pytest.raises(UserError, match=r"listed again with other boxes: 1.png \(a 10 10 10 10\) = 2.png \("):
            fetched(tmp_path, *sources, task="detect")
        fetched(tmp_path, *sources, task="detect", allow_conflicting_labels=True)


def test_rejected_pictures_are_listed_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two_classes(tmp_path)
    complete = encoded(picture(), "JPEG")
    put(tmp_path / "data/ant/cut, short.jpg", complete[: len(complete) // 2])
    put(tmp_path / "data/ant/text.jpg", b"<html><body>404")
    put(tmp_path / "data/bee/crumb.gif", encoded(picture(size=(1, 1)), "GIF"))
    put(tmp_path / "data/bee/empty.png", b"")
    put(tmp_path / "data/bee/notes.txt", b"mine")
    manifest = fetched(tmp_path, {"folder": "data"}, max_failed=4)
    assert len(manifest.images) == 6
    numbers = metrics(tmp_path)
    assert (numbers["failed"], numbers["ignored"]) == (4, 1)
    for kind in ("truncated", "web_page", "too_small", "empty"):
        assert numbers[f"failed.{kind}"] == 1
    lines = failed(tmp_path)
    assert len(lines) == 6
    assert lines[1].startswith('folder:data,"data/ant/cut, short.jpg",')
    summary = "; 4 rejected (empty 1, too_small 1, truncated 1, web_page 1) and 1 ignored: stages/fetch/failed.csv"
    assert summary in capsys.readouterr().out


def test_too_many_rejected_stops_with_one_line(tmp_path: Path) -> None:
    two_classes(tmp_path)
    fetched(tmp_path, {"folder": "data"})
    put(tmp_path / "data/ant/text.jpg", b"text")
    with pytest.raises(UserError) as caught:
        fetched(tmp_path, {"folder": "data"})
    message = str(caught.value)
    assert message.startswith(
        "params.yaml: fetch.max_failed: 0: 1 picture was rejected, the first is data/ant/text.jpg"
    )
    assert "text.jpg (not a picture (it begins with 'text')); all are in stages/fetch/failed.csv" in message
    assert "\n" not in message
    assert len(failed(tmp_path)) == 2
    assert not (tmp_path / FETCH_FOLDER / "annotations.json").exists(), (
        "an old manifest would look like a finished stage"
    )


def test_a_missing_picture_of_a_table_is_rejected(tmp_path: Path) -> None:
    two_classes(tmp_path)
    table(tmp_path / "data/t.csv", [("image", "label"), ("ant/0.png", "a"), ("bee/0.png", "b"), ("gone.png", "b")])
    assert len(fetched(tmp_path, {"table": "data/t.csv"}, max_failed=1).images) == 2
    assert failed(tmp_path)[1] == "table:data/t.csv,gone.png,no such file"
    with pytest.raises(UserError, match=r"the first is gone\.png of table:data/t\.csv \(no such file\); all are in"):
        fetched(tmp_path, {"table": "data/t.csv"})


def test_where_all_are_rejected_the_line_has_a_reason(tmp_path: Path) -> None:
    """Not `no picture in all of them`."""
    table(tmp_path / "data/t.csv", [("image", "label"), ("C:\\pets\\1.png", "a"), ("/home/me/2.png", "b")])
    with pytest.raises(UserError) as caught:
        fetched(tmp_path, {"table": "data/t.csv"}, max_failed=9)
    assert str(caught.value) == (
        "params.yaml: fetch.sources: no picture is left: 2 pictures were rejected, the first is C:\\pets\\1.png of "
        "table:data/t.csv (no such file); all are in stages/fetch/failed.csv; repair them or add a source"
    )


def test_a_classifier_needs_two_labels(tmp_path: Path) -> None:
    two_classes(tmp_path)
    with pytest.raises(UserError, match=r"fetch\.sources: only the label 'ant' in all of them"):
        fetched(tmp_path, {"folder": "data/ant", "label": "ant"})


def test_boxes_of_two_labels_are_no_single_label(tmp_path: Path) -> None:
    two_classes(tmp_path)
    header = ("image", "label", "xmin", "ymin", "xmax", "ymax")
    rows = [("ant/0.png", "a", 0, 0, 9, 9), ("ant/0.png", "b", 0, 0, 9, 9), ("bee/0.png", "b", 5, 5, 5, 5)]
    table(tmp_path / "data/t.csv", [header, *rows])
    fetched(tmp_path, {"table": "data/t.csv"}, {"folder": "data"}, max_failed=2)
    assert "no single label (boxes of a, b), and `task: classify` needs one" in failed(tmp_path)[1]
    reason = "box of 'b': 5, 5, 5, 5 has no area within the picture of"
    assert reason in failed(tmp_path)[2]
    assert metrics(tmp_path)["failed.box"] == 1


def test_the_stage_does_not_import_torch() -> None:
    code = "import sys, headstart.fetch.stage; assert not {'torch', 'pandas', 'mlflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
