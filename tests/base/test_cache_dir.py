"""The cache under .cache: listed as it is, and removed without harm to a stage that runs."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from conftest import Project
from engine.test_input_spec import input_spec
from engine.test_pixels import stored
from headstart import cli
from headstart.base.cache_dir import (
    CACHE_KINDS,
    cache_budget,
    format_size,
    list_entries,
    make_room,
    mark_used,
    remove_entries,
    write_entry_file,
)
from headstart.base.errors import UserError
from headstart.base.manifest import Image
from headstart.engine.pixels import load_pixels, read_pixels
from headstart.features.row_cache import read_cached_rows, write_cached_rows
from headstart.training import checkpoint
from headstart.training.checkpoint import Checkpoints


def sizes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_all_that_a_pipeline_cached_is_listed(project: Project) -> None:
    found = list_entries(project.root)
    assert {path for kind in CACHE_KINDS for path in (project.root / ".cache" / kind).glob("*")} == {
        entry.folder for entry in found
    }
    by_kind = {kind: [entry for entry in found if entry.kind == kind] for kind in CACHE_KINDS}
    assert sorted(entry.count for entry in by_kind["pixels"]) == [6, 6, 12]
    fixed = [entry for entry in by_kind["embeddings"] if entry.description.startswith("tf_efficientnet_lite0 (")]
    assert [entry.count for entry in fixed] == [24], "by which split finds near-duplicates"
    (embeddings,) = (entry for entry in by_kind["embeddings"] if entry not in fixed)
    assert embeddings.count == 30, "originals, copies and val"
    assert embeddings.description.startswith("test_efficientnet (weights ")
    assert "), 32 px squash, cpu " in embeddings.description
    assert not by_kind["checkpoints"], "the stages ended well"
    assert sum(entry.size for entry in found) == sizes(project.root / ".cache")


def test_last_use_is_when_it_was_read(tmp_path: Path) -> None:
    images = stored(tmp_path)
    load_pixels(images, tmp_path, input_spec(), "decode")
    (before,) = list_entries(tmp_path)
    for path in before.folder.iterdir():
        os.utime(path, (1000, 1000))
    assert list_entries(tmp_path)[0].last_used == 1000
    load_pixels(images, tmp_path, input_spec(), "decode")
    assert list_entries(tmp_path)[0].last_used > before.last_used - 10


def test_one_kind_is_removed_or_all(tmp_path: Path) -> None:
    load_pixels(stored(tmp_path), tmp_path, input_spec(), "decode")
    write_cached_rows(tmp_path / ".cache/embeddings/abc", ["x", "y"], torch.ones(2, 3))
    Checkpoints.for_stage(tmp_path, "fine-tune", "facts").save({"x": torch.ones(3)}, 1)
    other = tmp_path / ".cache/onnxruntime-web/ort.wasm"
    other.parent.mkdir()
    other.write_bytes(b"not a stage's")
    found = {entry.kind: (entry.description, entry.count) for entry in list_entries(tmp_path)}
    assert found == {"pixels": ("48 px crop bicubic", 5), "embeddings": ("", 2), "checkpoints": ("fine-tune", 1)}
    assert [entry.kind for entry in remove_entries(tmp_path, ["embeddings"])] == ["embeddings"]
    assert {entry.kind for entry in list_entries(tmp_path)} == {"pixels", "checkpoints"}
    assert len(remove_entries(tmp_path)) == 2
    assert not list_entries(tmp_path)
    assert other.is_file()
    assert not list((tmp_path / ".cache").glob("cleared-*"))
    assert remove_entries(tmp_path) == []
    with pytest.raises(UserError, match=r"^--kind pixel: no such kind; did you mean 'pixels'\?$"):
        remove_entries(tmp_path, ["pixel"])
    with pytest.raises(UserError, match="--kind all: no such kind; known are pixels, embeddings"):
        remove_entries(tmp_path, ["all"])


def test_what_a_stage_has_mapped_stays_readable(tmp_path: Path) -> None:
    images = stored(tmp_path)
    made = load_pixels(images, tmp_path, input_spec(), "decode")
    mapped = load_pixels(images, tmp_path, input_spec(), "decode")
    rows = write_cached_rows(tmp_path / ".cache/embeddings/abc", ["x", "y"], torch.arange(6.0).reshape(2, 3))
    copy = mapped.copy()
    remove_entries(tmp_path)
    assert np.array_equal(made, copy)
    assert np.array_equal(mapped, copy)
    assert rows["y"].tolist() == [3, 4, 5]


@pytest.fixture
def clearing(tmp_path: Path) -> Iterator[None]:
    """Remove all entries, again and again, while the test runs."""
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            remove_entries(tmp_path)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    done.set()
    thread.join()


@pytest.mark.usefixtures("clearing")
def test_a_stage_goes_on_while_all_is_cleared(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    images = stored(tmp_path, 2)
    expected = [read_pixels(tmp_path / image.file_name, input_spec()) for image in images]
    folder = tmp_path / ".cache/embeddings/abc"
    for turn in range(30):
        assert np.array_equal(load_pixels(images, tmp_path, input_spec(), "decode"), expected)
        rows = write_cached_rows(folder, ["x", "y"], torch.full((2, 3), float(turn)))
        assert rows["x"].tolist() == [turn] * 3
        assert set(read_cached_rows(folder, ["x", "y"])) <= {"x", "y"}
        checkpoints = Checkpoints.for_stage(tmp_path, "fine-tune", "facts")
        checkpoints.save({"turn": turn}, turn)
        assert checkpoints.load() in (None, {"turn": turn})
        checkpoints.mark_finished()
        checkpoint.remove_finished(tmp_path, "fine-tune")


RACE = """
import os, sys
from pathlib import Path
import numpy as np, torch
from headstart.engine.pixels import load_pixels, read_pixels
from headstart.features.row_cache import read_cached_rows, write_cached_rows
from engine.test_input_spec import input_spec
from engine.test_pixels import stored
root = Path(sys.argv[1])
images = stored(root / "files", 6)
images = [image.model_copy(update={"file_name": f"files/{image.file_name}"}) for image in images]
other = os.fork()  # what both import is paid for once
for turn in range(40):
    changed = [image.model_copy(update={"sha256": f"{turn} {image.sha256}"}) for image in images]
    loaded = load_pixels(changed, root, input_spec(), "decode")
    assert all(np.array_equal(row, read_pixels(root / i.file_name, input_spec())) for row, i in zip(loaded, changed))
    written = write_cached_rows(root / f".cache/embeddings/{turn}", ["x", "y"], torch.full((2, 3), float(turn)))
    assert {name: row.tolist() for name, row in written.items()} == {"x": [turn] * 3, "y": [turn] * 3}
    read = read_cached_rows(root / f".cache/embeddings/{turn}", ["x", "y"])
    assert {name: row.tolist() for name, row in read.items()} == {"x": [turn] * 3, "y": [turn] * 3}
assert not other or os.waitpid(other, 0)[1] == 0
os._exit(0)  # without tearing torch down
"""


def test_two_processes_cache_the_same_things_at_one_time(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    stored(tmp_path / "files", 6)
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", RACE, str(tmp_path)]
    assert subprocess.run(command, env=paths, timeout=60, check=False).returncode == 0
    assert len(list((tmp_path / ".cache").rglob("*.npy"))) == 40
    assert len(list((tmp_path / ".cache").rglob("*.safetensors"))) == 40
    assert not list((tmp_path / ".cache").rglob("*.part"))


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    runner = CliRunner()
    assert runner.invoke(cli.app, ["cache"]).output == "no entries in .cache\n"
    image: list[Image] = stored(tmp_path, 3)
    load_pixels(image, tmp_path, input_spec(), "decode")
    shown = runner.invoke(cli.app, ["cache"]).output
    assert "48 px crop bicubic" in shown
    assert "1 entry in .cache, 21 kB" in shown
    assert "no entries in .cache" in runner.invoke(cli.app, ["cache", "clear", "--kind", "activations"]).output
    assert "1 entry in .cache, 21 kB" in runner.invoke(cli.app, ["cache", "clear"]).output
    assert not list_entries(tmp_path)


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 kB"), (900, "0.9 kB"), (21_050, "21 kB"), (2_400_000, "2.4 MB"), (31 * 10**11, "3100 GB")],
)
def test_format_size(size: int, words: str) -> None:
    assert format_size(size) == words


def test_after_an_error_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / ".cache/pixels/abc/pixels.npy"

    def fail() -> None:
        with write_entry_file(path) as part:
            part.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not list((tmp_path / ".cache/pixels").iterdir())


def test_what_a_killed_process_left_is_removed_after_a_day(tmp_path: Path) -> None:
    part = tmp_path / ".cache/pixels/abc-pixels.77.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"half")
    left = tmp_path / ".cache/cleared-x/0/pixels.npy"
    left.parent.mkdir(parents=True)
    remove_entries(tmp_path)
    assert part.is_file(), "its process may still run"
    assert not left.exists()
    os.utime(part, (1000, 1000))
    remove_entries(tmp_path)
    assert not part.exists()


def entry(root: Path, kind: str, key: str, size: int, last_used: float) -> Path:
    folder = root / ".cache" / kind / key
    folder.mkdir(parents=True)
    for name, count in (("about.txt", 0), ("pixels.npy", size)):
        (folder / name).write_bytes(bytes(count))
        os.utime(folder / name, (last_used, last_used))
    return folder


def test_what_was_used_least_recently_makes_room(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One budget for all kinds; a use renews an entry, whatever its age."""
    old = entry(tmp_path, "pixels", "a", 3000, 1000)
    older = entry(tmp_path, "embeddings", "b", 3000, 900)
    oldest_but_used = entry(tmp_path, "activations", "c", 3000, 800)
    checkpoints = entry(tmp_path, "checkpoints/fine-tune", "d", 3000, 700)
    new = tmp_path / ".cache/embeddings/new"
    with cache_budget(tmp_path, 11_000 / 1e9):
        mark_used(oldest_but_used, "used")
        make_room(new, 1000)
        assert not checkpoints.exists()
        assert all(folder.is_dir() for folder in (old, older, oldest_but_used))
        make_room(new, 4000)
        assert not older.exists()
        assert old.is_dir()
    said = capfd.readouterr().err.splitlines()
    assert (
        said
        == ["cache: 1 entry of .cache removed (3.0 kB), used least recently, to stay within train.cache_gb: 1.1e-05"]
        * 2
    )
    assert not list((tmp_path / ".cache").glob("cleared-*"))
    with cache_budget(tmp_path, 4000 / 1e9):
        pass
    assert not old.exists(), "at the end of a stage too"
    assert oldest_but_used.is_dir()


def test_what_the_process_uses_and_what_it_writes_stays(tmp_path: Path) -> None:
    images, limit = stored(tmp_path), 1.5 * 5 * 48 * 48 * 3 / 1e9
    with cache_budget(tmp_path, limit):
        first = load_pixels(images, tmp_path, input_spec(), "decode")
        load_pixels(images[::-1], tmp_path, input_spec(), "decode")
        assert len(list_entries(tmp_path)) == 2
    with cache_budget(tmp_path, limit):
        load_pixels(images[::-1], tmp_path, input_spec(), "decode")
        rows = write_cached_rows(tmp_path / ".cache/embeddings/abc", ["x"], torch.ones(1, 6000))
        assert {entry.kind: entry.count for entry in list_entries(tmp_path)} == {"pixels": 5, "embeddings": 1}
    assert rows["x"].sum() == 6000
    assert np.array_equal(first[0], read_pixels(tmp_path / images[0].file_name, input_spec())), "still mapped"


def test_without_a_budget_nothing_is_removed(tmp_path: Path) -> None:
    old = entry(tmp_path, "pixels", "a", 3000, 1000)
    make_room(tmp_path / ".cache/pixels/b", 10**15)
    assert old.is_dir()
