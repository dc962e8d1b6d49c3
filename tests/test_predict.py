"""`headstart predict`: files, folders, turned pictures, broken ones, for people and for programs."""

import json
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
from headstart.cli import app
from headstart.errors import UserError
from headstart.pixels import decode
from headstart.predict import Model, Prediction, Seen, draw_boxes, find
from pictures import encoded

TURNS = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
    5: Image.Transpose.TRANSPOSE,
}  # orientation -> how an upright picture is stored under it


@pytest.fixture(scope="module")
def model(project: Project) -> Model:
    return Model(project.root / "stages/export")


def say(project: Project, *arguments: object) -> Any:
    folder = str(project.root / "stages/export")
    return CliRunner().invoke(app, ["predict", "--model", folder, *map(str, arguments)])


def test_a_picture_of_the_exam(project: Project, model: Model) -> None:
    path = project.root / tiny.manifest(project.root, "split", "test").images[0].file_name
    (found,) = model.predict([path])
    wanted = model.odds(decode(path, model.input)[None]).probabilities[0]
    assert found == Prediction(path, {"blue": float(wanted[0]), "red": float(wanted[1])})
    assert found.label == ("blue" if wanted[0] > wanted[1] else "red")


@pytest.mark.parametrize("orientation", TURNS)
def test_a_turned_picture_is_the_upright_one(model: Model, tmp_path: Path, orientation: int) -> None:
    upright = tiny.texture(5, 1)
    for kind, tolerance in (("PNG", 0.0), ("JPEG", 0.02)):
        straight, turned = tmp_path / f"straight.{kind.lower()}", tmp_path / f"turned.{kind.lower()}"
        straight.write_bytes(encoded(upright, kind))
        turned.write_bytes(encoded(upright.transpose(TURNS[orientation]), kind, orientation))
        one, other = model.predict([straight, turned])
        assert other.probabilities == pytest.approx(one.probabilities, abs=tolerance)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_every_kind_of_picture(model: Model, tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    tiny.texture(5, 1).convert(mode).save(path)
    (found,) = model.predict([path])
    assert sum(found.probabilities.values()) == pytest.approx(1)


def test_files_and_folders_are_found(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "b/1.png", "b/deep/3.webp", "b/notes.txt", "odd.name"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find([tmp_path / "odd.name", tmp_path / "b"])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "odd.name",
        "b/1.png",
        "b/2.JPG",
        "b/deep/3.webp",
    ]


def test_nothing_to_find(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file; name pictures or folders of pictures"):
        find([tmp_path / "gone.png"])
    with pytest.raises(UserError, match=r"no picture in this folder \(looked for .*\.png"):
        find([tmp_path])


def test_one_line_a_picture_for_people(project: Project) -> None:
    done = say(project, project.root / "data/red")
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert len(lines) == 12
    path, _, answer = lines[0].rpartition(": ")
    assert path == str(project.root / "data/red/00.png")
    label, probability = answer.split()
    assert label in ("blue", "red")
    assert 0.5 <= float(probability) <= 1


def test_json_for_programs(project: Project) -> None:
    done = say(project, "--json", project.root / "data/red/00.png", project.root / "data/blue")
    assert done.exit_code == 0
    rows = json.loads(done.output)
    assert [Path(row["image"]).name for row in rows][:3] == ["00.png", "00.png", "01.png"]
    for row in rows:
        assert set(row) == {"image", "label", "probabilities", "error"}
        assert sum(row["probabilities"].values()) == pytest.approx(1)
        assert row["label"] == max(row["probabilities"], key=row["probabilities"].get)
        assert row["error"] == ""


def test_a_picture_that_cannot_be_read_is_said_and_the_others_are_told(project: Project, tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"no picture")
    tiny.texture(1, 0).save(tmp_path / "2.png")
    (tmp_path / "3.jpg").write_bytes(encoded(tiny.texture(2, 1), "JPEG")[:-200])
    (tmp_path / "4.png").touch()
    (tmp_path / "5.png").mkdir()
    done = say(project, tmp_path)
    assert done.exit_code == 1
    lines = done.output.splitlines()
    assert [line.split(": ")[1] for line in lines].count("not read") == 4
    assert lines[1].startswith(f"{tmp_path / '2.png'}: ")
    assert "not read" not in lines[1]
    done = say(project, "--json", tmp_path)
    assert done.exit_code == 1
    rows = json.loads(done.output)
    assert [bool(row["error"]) for row in rows] == [True, False, True, True, True]
    assert rows[0]["probabilities"] == {}
    assert rows[0]["label"] == ""


def test_no_model_yet(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.onnx: no such file; make it: dvc repro"):
        Model(tmp_path)


def test_predicting_does_not_pay_for_torch(project: Project) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom headstart.predict import Model\n"
        "(found,) = Model(Path('stages/export')).predict([Path('data/red/00.png')])\n"
        "print(found.label, 'torch' in sys.modules)"
    )
    source = str(Path(sys.modules["headstart"].__file__ or "").parent.parent)
    said = subprocess.check_output(
        [sys.executable, "-c", code], cwd=project.root, env={"PYTHONPATH": source}, text=True
    )
    assert said.split()[1] == "False"


# --- boxes ---


def seen(path: Path, *boxes: tuple[str, float, tuple[float, float, float, float]]) -> Prediction:
    return Prediction(path, {}, boxes=tuple(Seen(*box) for box in boxes))


def test_boxes_are_drawn_on_the_upright_picture(tmp_path: Path) -> None:
    """Stored turned (EXIF 6): 500 x 400 upright, and the box is where the upright picture has it."""
    path = tmp_path / "in/a.jpg"
    path.parent.mkdir()
    path.write_bytes(encoded(Image.new("RGB", (400, 500), "#808080"), "JPEG", 6))
    (written,) = draw_boxes([seen(path, ("cat", 0.9, (100, 100, 300, 250)))], tmp_path / "out")
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
    unread = Prediction(tmp_path / "broken.png", {}, "not a picture")
    written = draw_boxes([unread, *(seen(path) for path in paths)], tmp_path / "out")
    assert [path.name for path in written] == ["a.jpg", "a~2.jpg", "a~3.jpg"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.jpg", "a~2.jpg", "a~3.jpg"]


def test_a_classifier_has_nothing_to_draw(project: Project, tmp_path: Path) -> None:
    path = project.root / tiny.manifest(project.root, "split", "test").images[0].file_name
    result = say(project, path, "--draw", tmp_path / "out")
    assert isinstance(result.exception, UserError)
    assert str(result.exception) == "--draw: the model is a classifier and finds no boxes; leave --draw out"
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(UserError, match="a file of that name is there; name a folder"):
        draw_boxes([], tmp_path / "out")
