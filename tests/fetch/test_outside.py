"""What sources read behind links or outside data/: fingerprints, and the stage that renews them."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from headstart.fetch.outside import fingerprint, write_outside
from headstart.params.fetch import FetchParams
from pictures import put


def sources(*entries: Mapping[str, object]) -> FetchParams:
    return FetchParams.model_validate({"sources": entries})


def test_a_fingerprint_is_of_names_sizes_and_times(tmp_path: Path) -> None:
    put(tmp_path / "a/1.jpg", b"one")
    put(tmp_path / "a/b/2.jpg", b"two")
    before = fingerprint(tmp_path / "a")
    assert fingerprint(tmp_path / "a") == before
    seen = {before}
    put(tmp_path / "a/b/3.jpg", b"three")
    seen.add(fingerprint(tmp_path / "a"))
    (tmp_path / "a/b/3.jpg").rename(tmp_path / "a/3.jpg")
    seen.add(fingerprint(tmp_path / "a"))
    put(tmp_path / "a/3.jpg", b"three again")
    seen.add(fingerprint(tmp_path / "a"))
    os.utime(tmp_path / "a/3.jpg", (1, 1))
    seen.add(fingerprint(tmp_path / "a"))
    assert len(seen) == 5
    assert fingerprint(tmp_path / "a/1.jpg") != fingerprint(tmp_path / "a/b/2.jpg")


def test_a_loop_of_links_ends_and_a_link_to_nothing_is_no_error(tmp_path: Path) -> None:
    put(tmp_path / "a/1.jpg", b"one")
    (tmp_path / "a/loop").symlink_to(tmp_path / "a")
    (tmp_path / "a/gone.jpg").symlink_to("nowhere.jpg")
    before = fingerprint(tmp_path / "a")
    (tmp_path / "a/gone.jpg").unlink()
    assert fingerprint(tmp_path / "a") != before


def test_pictures_in_data_leave_nothing(tmp_path: Path) -> None:
    put(tmp_path / "data/pets/cat/1.jpg", b"one")
    write_outside(sources({"folder": "data/pets"}), tmp_path)
    assert (tmp_path / "outside/files.json").read_text() == "[]\n", "as git has it"
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["files.json"]


def test_a_link_gets_a_stage_until_it_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "disk/cat/1.jpg", b"one")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/pets").symlink_to(tmp_path / "disk")
    params, folder = sources({"folder": "data/pets"}), tmp_path / "outside"
    write_outside(params, tmp_path)
    said = capsys.readouterr().out
    assert "fetch: DVC does not see data/pets: outside/dvc.yaml now looks there before every fetch" in said
    (row,) = json.loads((folder / "files.json").read_text())
    assert (row["path"], row["kind"]) == ("data/pets", "link")
    stage = yaml.safe_load((folder / "dvc.yaml").read_text())["stages"]["outside"]
    assert stage["always_changed"]
    assert (folder / stage["wdir"]).resolve() == tmp_path
    write_outside(params, tmp_path)
    assert capsys.readouterr().out == "", "said once"
    assert json.loads((folder / "files.json").read_text()) == [row]
    put(tmp_path / "disk/cat/2.jpg", b"two")
    write_outside(params, tmp_path)
    assert json.loads((folder / "files.json").read_text()) != [row]
    (tmp_path / "data/pets").unlink()
    (tmp_path / "disk").rename(tmp_path / "data/pets")
    write_outside(params, tmp_path)
    assert (folder / "files.json").read_text() == "[]\n"
    assert not (folder / "dvc.yaml").exists()


def test_what_lies_outside_data_is_looked_at_and_a_package_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "elsewhere/cat/1.jpg", b"one")
    put(tmp_path / "data/t.csv", b"image,label\npackage:PIL/x.png,cat\n")
    root = tmp_path / "clone"
    (tmp_path / "data").rename(put(root / "empty", b"").parent / "data")
    write_outside(sources({"folder": "../elsewhere"}, {"table": "data/t.csv"}), root)
    assert [row["path"] for row in json.loads((root / "outside/files.json").read_text())] == ["../elsewhere"]
    assert "fetch: package:PIL (pillow " in capsys.readouterr().out


def test_pictures_that_git_would_publish_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "elsewhere/cat/1.jpg", b"one")
    root = tmp_path / "clone"
    put(root / "photos/cat/1.jpg", b"one")
    put(root / "data/pets/cat/1.jpg", b"one")
    put(root / "more/cat/1.jpg", b"one")
    (root / "data/more").symlink_to(root / "more")
    (root / "data/same").symlink_to(root / "data/pets")
    folders = ("../elsewhere", "photos", "data/pets", "data/more", "data/same")
    write_outside(sources(*({"folder": folder} for folder in folders)), root)
    said = [line for line in capsys.readouterr().out.splitlines() if "git add" in line]
    end = "`git add -A` would publish it; move it into data/, which git never sees"
    assert said == [f"fetch: photos: {end}", f"fetch: data/more: {end}"]


@pytest.mark.parametrize("damage", [b"", b"<<<<<<< HEAD\n[]", b"{}", b"[1]"])
def test_a_damaged_list_is_written_anew(tmp_path: Path, damage: bytes) -> None:
    put(tmp_path / "data/pets/cat/1.jpg", b"one")
    put(tmp_path / "outside/files.json", damage)
    write_outside(sources({"folder": "data/pets"}), tmp_path)
    assert (tmp_path / "outside/files.json").read_text() == "[]\n"
