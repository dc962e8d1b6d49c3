"""What is under .cache: told as it is, and cleared without harm to a stage that runs."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from conftest import Project
from headstart import checkpoint, cli, kept, pixels, rowcache
from headstart.checkpoint import Checkpoints
from headstart.coco import Image
from headstart.errors import UserError
from test_pixels import stored, wanted


def sizes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_all_that_a_pipeline_kept_is_told(project: Project) -> None:
    found = kept.entries(project.root)
    assert {path for kind in kept.KINDS for path in (project.root / ".cache" / kind).glob("*")} == {
        entry.folder for entry in found
    }
    by_kind = {kind: [entry for entry in found if entry.kind == kind] for kind in kept.KINDS}
    assert sorted(entry.count for entry in by_kind["pixels"]) == [6, 6, 12]
    (embeddings,) = by_kind["embeddings"]
    assert embeddings.count == 36, "originals, copies, val and test"
    assert embeddings.words.startswith("test_efficientnet (weights ")
    assert "), 32 px squash, cpu " in embeddings.words
    assert not by_kind["checkpoints"], "the stages ended well"
    assert sum(entry.size for entry in found) == sizes(project.root / ".cache")


def test_last_use_is_when_it_was_read(tmp_path: Path) -> None:
    images = stored(tmp_path)
    pixels.load(images, tmp_path, wanted(), "decode")
    (before,) = kept.entries(tmp_path)
    for path in before.folder.iterdir():
        os.utime(path, (1000, 1000))
    assert kept.entries(tmp_path)[0].used == 1000
    pixels.load(images, tmp_path, wanted(), "decode")
    assert kept.entries(tmp_path)[0].used > before.used - 10


def test_one_kind_is_cleared_or_all(tmp_path: Path) -> None:
    pixels.load(stored(tmp_path), tmp_path, wanted(), "decode")
    rowcache.write(tmp_path / ".cache/embeddings/abc", ["x", "y"], torch.ones(2, 3))
    Checkpoints.of(tmp_path, "fine-tune", "facts").save({"x": torch.ones(3)}, 1)
    other = tmp_path / ".cache/onnxruntime-web/ort.wasm"
    other.parent.mkdir()
    other.write_bytes(b"not a stage's")
    found = {entry.kind: (entry.words, entry.count) for entry in kept.entries(tmp_path)}
    assert found == {"pixels": ("48 px crop bicubic", 5), "embeddings": ("", 2), "checkpoints": ("fine-tune", 1)}
    assert [entry.kind for entry in kept.clear(tmp_path, ["embeddings"])] == ["embeddings"]
    assert {entry.kind for entry in kept.entries(tmp_path)} == {"pixels", "checkpoints"}
    assert len(kept.clear(tmp_path)) == 2
    assert not kept.entries(tmp_path)
    assert other.is_file()
    assert not list((tmp_path / ".cache").glob("cleared-*"))
    assert kept.clear(tmp_path) == []
    with pytest.raises(UserError, match="--kind pixel: no such kind; known are pixels, embeddings"):
        kept.clear(tmp_path, ["pixel"])


def test_what_a_stage_has_mapped_stays_readable(tmp_path: Path) -> None:
    images = stored(tmp_path)
    made = pixels.load(images, tmp_path, wanted(), "decode")
    mapped = pixels.load(images, tmp_path, wanted(), "decode")
    rows = rowcache.write(tmp_path / ".cache/embeddings/abc", ["x", "y"], torch.arange(6.0).reshape(2, 3))
    copy = mapped.copy()
    kept.clear(tmp_path)
    assert np.array_equal(made, copy)
    assert np.array_equal(mapped, copy)
    assert rows["y"].tolist() == [3, 4, 5]


@pytest.fixture
def clearing(tmp_path: Path) -> Iterator[None]:
    """Clear all, again and again, while the test runs."""
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            kept.clear(tmp_path)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    done.set()
    thread.join()


@pytest.mark.usefixtures("clearing")
def test_a_stage_goes_on_while_all_is_cleared(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    images = stored(tmp_path, 2)
    expected = [pixels.decode(tmp_path / image.file_name, wanted()) for image in images]
    folder = tmp_path / ".cache/embeddings/abc"
    for turn in range(30):
        assert np.array_equal(pixels.load(images, tmp_path, wanted(), "decode"), expected)
        rows = rowcache.write(folder, ["x", "y"], torch.full((2, 3), float(turn)))
        assert rows["x"].tolist() == [turn] * 3
        assert set(rowcache.read(folder)) <= {"x", "y"}
        checkpoints = Checkpoints.of(tmp_path, "fine-tune", "facts")
        checkpoints.save({"turn": turn}, turn)
        assert checkpoints.load() in (None, {"turn": turn})
        checkpoints.done()
        checkpoint.sweep(tmp_path, "fine-tune")


RACE = """
import sys, time
from pathlib import Path
import numpy as np, torch
from headstart import pixels, rowcache
from test_pixels import stored, wanted
root = Path(sys.argv[1])
images = stored(root / "files", 6)
images = [image.model_copy(update={"file_name": f"files/{image.file_name}"}) for image in images]
print("ready", flush=True)
sys.stdin.readline()
for turn in range(40):
    some = [image.model_copy(update={"sha256": f"{turn} {image.sha256}"}) for image in images]
    found = pixels.load(some, root, wanted(), "decode")
    assert all(np.array_equal(one, pixels.decode(root / i.file_name, wanted())) for one, i in zip(found, some))
    made = rowcache.write(root / f".cache/embeddings/{turn}", ["x", "y"], torch.full((2, 3), float(turn)))
    assert {name: row.tolist() for name, row in made.items()} == {"x": [turn] * 3, "y": [turn] * 3}
    there = rowcache.read(root / f".cache/embeddings/{turn}")
    assert {name: row.tolist() for name, row in there.items()} == {"x": [turn] * 3, "y": [turn] * 3}
"""


def test_two_processes_keep_the_same_things_at_one_time(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    stored(tmp_path / "files", 6)
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", RACE, str(tmp_path)]
    both = [subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True, env=paths) for _ in range(2)]
    for one in both:
        assert one.stdout
        assert one.stdout.readline() == "ready\n"
    for one in both:
        assert one.stdin
        one.stdin.write("go\n")
        one.stdin.flush()
    for one in both:
        one.communicate(timeout=60)
        assert one.returncode == 0
    assert len(list((tmp_path / ".cache").rglob("*.npy"))) == 40
    assert len(list((tmp_path / ".cache").rglob("*.safetensors"))) == 40
    assert not list((tmp_path / ".cache").rglob("*.part"))


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    runner = CliRunner()
    assert runner.invoke(cli.app, ["cache"]).output == "nothing is kept in .cache\n"
    image: list[Image] = stored(tmp_path, 3)
    pixels.load(image, tmp_path, wanted(), "decode")
    shown = runner.invoke(cli.app, ["cache"]).output
    assert "48 px crop bicubic" in shown
    assert "1 in .cache, 21 kB together" in shown
    assert "nothing is kept" in runner.invoke(cli.app, ["cache", "clear", "--kind", "activations"]).output
    assert "1 in .cache, 21 kB together" in runner.invoke(cli.app, ["cache", "clear"]).output
    assert not kept.entries(tmp_path)


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 kB"), (900, "0.9 kB"), (21_050, "21 kB"), (2_400_000, "2.4 MB"), (31 * 10**11, "3100 GB")],
)
def test_sizes_in_words(size: int, words: str) -> None:
    assert kept.in_bytes(size) == words


def test_after_an_error_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / ".cache/pixels/abc/pixels.npy"

    def fail() -> None:
        with kept.making(path) as part:
            part.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not list((tmp_path / ".cache/pixels").iterdir())


def test_what_a_killed_process_left_is_cleared_after_a_day(tmp_path: Path) -> None:
    part = tmp_path / ".cache/pixels/abc-pixels.77.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"half")
    left = tmp_path / ".cache/cleared-x/0/pixels.npy"
    left.parent.mkdir(parents=True)
    kept.clear(tmp_path)
    assert part.is_file(), "its process may still run"
    assert not left.exists()
    os.utime(part, (1000, 1000))
    kept.clear(tmp_path)
    assert not part.exists()
