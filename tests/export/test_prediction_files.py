"""`headstart predict`: files, folders, broken pictures, for people and for programs; boxes drawn."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import tiny
from conftest import Project
from headstart.base.errors import UserError
from headstart.cli import app
from headstart.export.model_prediction import DetectedBox, FilePrediction
from headstart.export.prediction_files import find_images, save_images_with_boxes, to_json_row, to_text
from headstart.fetch.sources import paths as fetch_paths
from pictures import encoded


def predict(project: Project, *arguments: object) -> Any:
    folder = str(project.root / "stages/export")
    return CliRunner().invoke(app, ["predict", "--model", folder, *map(str, arguments)])


def test_files_and_folders_are_found(tmp_path: Path) -> None:
    """All suffixes that fetch reads; what systems and tools leave there is no picture."""
    droppings = ("b/._1.png", "b/.hidden.jpg", "b/__MACOSX/1.png", "b/.thumbnails/1.png", "b/deep/@eaDir/3.webp")
    for name in ("b/2.JPG", "b/1.png", "b/deep/3.webp", "b/4.heic", "b/5.jfif", "b/notes.txt", "odd.name", *droppings):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    images = find_images([tmp_path / "odd.name", tmp_path / "b"])
    assert [path.relative_to(tmp_path).as_posix() for path in images] == [
        "odd.name",
        "b/1.png",
        "b/2.JPG",
        "b/4.heic",
        "b/5.jfif",
        "b/deep/3.webp",
    ]
    fetched = fetch_paths.list_pictures("folder", "b", tmp_path / "b")
    assert images[1:] == fetched


def test_a_linked_folder_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/1.png").touch()
    (tmp_path / "real/loop").symlink_to(tmp_path / "real")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/linked").symlink_to(tmp_path / "real")
    assert find_images([tmp_path / "data"]) == [tmp_path / "data/linked/1.png"]


def test_a_name_that_is_not_utf8_is_printed(project: Project, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    tiny.texture(1, 0).save(path)
    for options in ((), ("--json",)):
        done = predict(project, *options, tmp_path)
        assert done.exit_code == 0
        assert "caf\\udce9.png" in done.output.replace("\\\\", "\\")


def test_a_pipe_is_not_read(project: Project, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "1.png")
    tiny.texture(1, 0).save(tmp_path / "2.png")
    done = predict(project, tmp_path)
    assert done.exit_code == 1
    assert done.output.splitlines()[0] == f"{tmp_path / '1.png'}: not read: not a file"


def test_nothing_to_find(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file; name pictures or folders of pictures"):
        find_images([tmp_path / "gone.png"])
    with pytest.raises(UserError, match=r"no picture in this folder \(looked for .*\.png"):
        find_images([tmp_path])


def test_one_line_a_picture_for_people(project: Project) -> None:
    done = predict(project, project.root / "data/red")
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert len(lines) == 12
    path, _, prediction = lines[0].rpartition(": ")
    assert path == str(project.root / "data/red/00.png")
    probability = r"(0\.[5-9]\d\d|1\.000)"
    one, two = (
        rf"(blue|red) {probability}",
        rf"(blue|red) or (blue|red) \((blue|red) {probability}, (blue|red) 0\.\d\d\d\)",
    )
    assert re.fullmatch(f"{one}|{two}", prediction)


def test_json_for_programs(project: Project) -> None:
    done = predict(project, "--json", project.root / "data/red/00.png", project.root / "data/blue")
    assert done.exit_code == 0
    rows = json.loads(done.output)
    assert [Path(row["image"]).name for row in rows][:3] == ["00.png", "00.png", "01.png"]
    for row in rows:
        assert set(row) == {
            *("image", "label", "probabilities", "answer", "labels_in_set", "unknown", "strangeness", "error")
        }
        assert row["label"] == row["labels_in_set"][0]
        assert row["answer"] == " or ".join(row["labels_in_set"])
        assert row["unknown"] is False
        assert sum(row["probabilities"].values()) == pytest.approx(1)
        assert row["label"] == max(row["probabilities"], key=row["probabilities"].get)
        assert row["error"] == ""


def test_a_picture_that_cannot_be_read_has_the_reason_and_the_others_are_predicted(
    project: Project, tmp_path: Path
) -> None:
    (tmp_path / "1.png").write_bytes(b"no picture")
    tiny.texture(1, 0).save(tmp_path / "2.png")
    (tmp_path / "3.jpg").write_bytes(encoded(tiny.texture(2, 1), "JPEG")[:-200])
    (tmp_path / "4.png").touch()
    (tmp_path / "5.png").symlink_to(tmp_path / "gone.png")
    done = predict(project, tmp_path)
    assert done.exit_code == 1
    lines = done.output.splitlines()
    assert [line.split(": ")[1] for line in lines].count("not read") == 4
    assert lines[1].startswith(f"{tmp_path / '2.png'}: ")
    assert "not read" not in lines[1]
    done = predict(project, "--json", tmp_path)
    assert done.exit_code == 1
    rows = json.loads(done.output)
    assert [bool(row["error"]) for row in rows] == [True, False, True, True, True]
    assert rows[0]["probabilities"] == {}
    assert rows[0]["label"] == ""


# --- boxes ---


def predicted(path: Path, *boxes: tuple[str, float, tuple[float, float, float, float]]) -> FilePrediction:
    return FilePrediction({}, tuple(DetectedBox(*box) for box in boxes), path=path)


def test_a_detectors_boxes_as_json_and_as_pictures(detect_project: Project, tmp_path: Path) -> None:
    root = detect_project.root
    folder = tmp_path / "export"
    shutil.copytree(root / "stages/export", folder)
    labels = tiny.read_json(folder / "labels.json") | {"threshold": 0.06}
    (folder / "labels.json").write_text(json.dumps(labels))
    picture, bad = root / "data/images/00.png", tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    done = CliRunner().invoke(app, ["predict", "--model", str(folder), "--json", str(picture), str(bad)])
    first, second = json.loads(done.output)
    assert done.exit_code == 1
    assert second["error"]
    assert second["boxes"] == []
    assert set(first["boxes"][0]) == {"label", "score", "box"}
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["predict", "--model", str(folder), "--draw", str(out), str(picture)])
    assert done.exit_code == 0
    assert f"{picture}: {first['boxes'][0]['label']} " in done.output
    with Image.open(out / "00.jpg") as drawn:
        assert drawn.size == (480, 320)


def test_boxes_as_text() -> None:
    path = Path("a.png")
    assert to_text(predicted(path)) == "no detections"
    assert to_text(predicted(path, ("cat", 0.9, (1, 2, 3.6, 4)))) == "cat 0.900 at 1, 2, 4, 4"


def test_boxes_are_drawn_on_the_upright_picture(tmp_path: Path) -> None:
    """Stored turned (EXIF 6): 500 x 400 upright, and the box is where the upright picture has it."""
    path = tmp_path / "in/a.jpg"
    path.parent.mkdir()
    path.write_bytes(encoded(Image.new("RGB", (400, 500), "#808080"), "JPEG", 6))
    (written,) = save_images_with_boxes([predicted(path, ("cat", 0.9, (100, 100, 300, 250)))], tmp_path / "out")
    assert written == tmp_path / "out/a.jpg"
    with Image.open(written) as drawn:
        assert drawn.size == (500, 400)
        pixels = np.asarray(drawn.convert("L"), int)
    assert (abs(pixels[130:240, 96:104] - 128).max(axis=1) > 60).all(), "its left side"
    assert abs(pixels[120:230, 120:280] - 128).max() < 40, "its inside"


def test_pictures_of_one_name_stay_apart_and_unread_ones_are_left_out(tmp_path: Path) -> None:
    paths = [tmp_path / "one/a.png", tmp_path / "two/a.png", tmp_path / "two/a.webp"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        tiny.texture(1, 0).save(path)
    unread = FilePrediction({}, path=tmp_path / "broken.png", error="not a picture")
    written = save_images_with_boxes([unread, *(predicted(path) for path in paths)], tmp_path / "out")
    assert [path.name for path in written] == ["a.jpg", "a~2.jpg", "a~3.jpg"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.jpg", "a~2.jpg", "a~3.jpg"]


def test_no_file_is_replaced(tmp_path: Path) -> None:
    """The output folder is the input's; its names are an input, a link to one, a dangling link, an earlier result."""
    for name in ("a.jpg", "b.png"):
        tiny.texture(1, 0).save(tmp_path / name)
    (tmp_path / "b.jpg").symlink_to(tmp_path / "b.png")
    (tmp_path / "b~2.jpg").symlink_to(tmp_path / "gone.jpg")
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    predictions = [predicted(tmp_path / name) for name in ("a.jpg", "b.png")]
    assert [path.name for path in save_images_with_boxes(predictions, tmp_path)] == ["a~2.jpg", "b~3.jpg"]
    assert [path.name for path in save_images_with_boxes(predictions, tmp_path)] == ["a~3.jpg", "b~4.jpg"]
    assert {path: path.read_bytes() for path in before} == before
    assert not (tmp_path / "gone.jpg").exists()


def test_a_picture_that_is_gone_when_it_is_drawn_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.png: no such file; it was changed meanwhile: try again"):
        save_images_with_boxes([predicted(tmp_path / "gone.png")], tmp_path / "out")


def test_a_full_disk_leaves_no_half_picture(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (600, 600, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    code = (
        "import resource, signal, sys; from pathlib import Path; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));"
        "from headstart.export.prediction_files import save_images_with_boxes;"
        "from headstart.export.model_prediction import FilePrediction;"
        f"folder = Path({str(tmp_path)!r});"
        "save_images_with_boxes([FilePrediction({}, (), path=folder / 'a.png')], folder)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert "OSError" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_classifier_has_nothing_to_draw(project: Project, tmp_path: Path) -> None:
    path = project.root / tiny.manifest(project.root, "split", "test").images[0].file_name
    result = predict(project, path, "--draw", tmp_path / "out")
    assert isinstance(result.exception, UserError)
    assert str(result.exception) == "--draw: the model is a classifier and detects no boxes; leave --draw out"
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(UserError, match="a file of that name is there; name a folder"):
        save_images_with_boxes([], tmp_path / "out")


# --- none of these, or one of two ---


@pytest.mark.parametrize(
    ("labels", "unknown", "expected"),
    [
        (("cat",), False, "cat 0.400"),
        (("cat", "dog"), False, "cat or dog (cat 0.400, dog 0.300)"),
        (("cat", "dog", "owl"), False, "cat, dog or owl (cat 0.400, dog 0.300, owl 0.200)"),
        (("cat", "dog", "owl", "emu"), False, "one of 4 labels (cat 0.400, dog 0.300, owl 0.200, …)"),
        (("cat", "dog"), True, "none of these (nearest: cat 0.400)"),
    ],
)
def test_answers_as_text(labels: tuple[str, ...], unknown: bool, expected: str) -> None:
    probabilities = {"owl": 0.2, "cat": 0.4, "emu": 0.1, "dog": 0.3}
    prediction = FilePrediction(
        probabilities, strangeness=0.8, unknown=unknown, labels_in_set=labels, path=Path("a.png")
    )
    assert to_text(prediction) == expected
    row = to_json_row(prediction)
    assert (row["label"], row["labels_in_set"], row["unknown"]) == ("cat", list(labels), unknown)
    assert expected.startswith(row["answer"])
    assert row["strangeness"] == 0.8
