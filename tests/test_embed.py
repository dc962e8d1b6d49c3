"""The trunk runs once a picture, and a picture's features are its own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tiny
from headstart.batches import BATCH
from headstart.coco import Image
from headstart.compute import Compute
from headstart.embed import Trunk, activations, embeddings
from headstart.errors import UserError
from headstart.files import sha256
from headstart.pixels import Input
from headstart.weights import trunk

FP32 = Compute(torch.device("cpu"), bf16=False)
SEEN = Input(size=32, resize="squash", interpolation="bicubic", crop=1.0, mean=(0.5,) * 3, std=(0.5,) * 3)


class Counted(nn.Module):
    """A small network that counts the real pictures it was given: those that pad a batch are all of one colour."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 5, stride=4)

    def forward(self, pictures: Tensor) -> Tensor:
        RUN.append(int((pictures.flatten(1).std(1) > 0.01).sum()))
        SIZES.append(len(pictures))
        features: Tensor = self.conv(pictures).relu().mean((2, 3))
        return features


RUN: list[int] = []
SIZES: list[int] = []


@pytest.fixture(autouse=True)
def _count() -> None:
    RUN.clear()
    SIZES.clear()


def stored(root: Path, count: int = 6, first: int = 0) -> list[Image]:
    images = []
    for number in range(first, first + count):
        path = root / f"{number}.png"
        tiny.texture(number, number % 2).save(path)
        images.append(
            Image(id=number, file_name=path.name, width=48, height=40, sha256=sha256(path), source="s", label="x")
        )
    return images


def embed(
    images: list[Image],
    root: Path,
    weights: str = "w",
    wanted: Input = SEEN,
    made: list[int] | None = None,
    name: str = "",
) -> Tensor:
    def build() -> nn.Module:
        if made is not None:
            made.append(1)
        return Counted()

    found = embeddings(images, Trunk(build, weights, wanted, FP32, root, name))
    while RUN and SIZES[0] == 1:  # the pictures by which folding proves itself
        RUN.pop(0)
        SIZES.pop(0)
    return found


def test_each_picture_once_and_then_never(tmp_path: Path) -> None:
    images, made = stored(tmp_path), list[int]()
    first = embed(images, tmp_path, made=made)
    assert first.shape == (6, 8)
    assert first.dtype == torch.float32
    assert (sum(RUN), len(made)) == (6, 1)
    assert torch.equal(embed(images, tmp_path, made=made), first)
    assert (sum(RUN), len(made)) == (6, 1), "nothing lacks: the trunk is not even built"


def test_a_picture_that_stands_there_twice_is_run_once(tmp_path: Path) -> None:
    images = stored(tmp_path)
    found = embed([*images, images[0], images[3]], tmp_path)
    assert sum(RUN) == 6
    assert torch.equal(found[6:], found[[0, 3]])


def test_only_what_is_new_or_changed_is_run(tmp_path: Path) -> None:
    images = stored(tmp_path)
    first = embed(images, tmp_path)
    RUN.clear()
    tiny.texture(77, 1).save(tmp_path / images[2].file_name)
    images[2] = images[2].model_copy(update={"sha256": sha256(tmp_path / images[2].file_name)})
    second = embed([*images, *stored(tmp_path, 1, first=20)], tmp_path)
    assert sum(RUN) == 2
    same = [0, 1, 3, 4, 5]
    assert torch.equal(second[same], first[same])
    assert not torch.equal(second[2], first[2])


def test_names_and_labels_do_not_matter_the_bytes_do(tmp_path: Path) -> None:
    images = stored(tmp_path)
    first = embed(images, tmp_path)
    RUN.clear()
    renamed = [image.model_copy(update={"file_name": "gone.png", "label": "y", "id": image.id + 5}) for image in images]
    assert torch.equal(embed(renamed[::-1], tmp_path), first.flip(0))
    assert sum(RUN) == 0


def test_other_weights_or_preprocessing_are_other_features(tmp_path: Path) -> None:
    images = stored(tmp_path)
    embed(images, tmp_path)
    RUN.clear()
    others: list[dict[str, Any]] = [{"mean": (0.4,) * 3}, {"size": 40}, {"resize": "crop"}, {"crop": 0.9}]
    for number, how in enumerate(others, start=1):
        embed(images, tmp_path, wanted=SEEN.model_copy(update=how))
        assert sum(RUN) == 6 * number
    embed(images, tmp_path, weights="others")
    assert sum(RUN) == 30
    embed(images, tmp_path, name="quickgelu")
    assert sum(RUN) == 36, "the same weights may be those of another network"
    assert len(list((tmp_path / ".cache/embeddings").iterdir())) == 7


def test_every_pass_has_the_same_size(tmp_path: Path) -> None:
    """A network may give another last bit for a batch of another size."""
    embed(stored(tmp_path, BATCH + 3), tmp_path)
    assert SIZES == [BATCH, BATCH]
    assert RUN == [BATCH, 3]


@pytest.mark.parametrize("bf16", [False, True])
def test_features_do_not_depend_on_company_or_order(tmp_path: Path, bf16: bool) -> None:
    images = stored(tmp_path, BATCH + 5)

    def alone(some: list[Image], root: str) -> Tensor:
        compute = Compute(torch.device("cpu"), bf16=bf16)
        for image in some:
            target = tmp_path / root / image.file_name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes((tmp_path / image.file_name).read_bytes())
        torch.manual_seed(0)
        network = trunk(tiny.TRUNK)
        return embeddings(some, Trunk(lambda: network, "w", SEEN, compute, tmp_path / root))

    together = alone(images, "together")
    assert torch.equal(alone(images[::-1], "backwards"), together.flip(0))
    assert torch.equal(alone(images[7:8], "single")[0], together[7])
    assert torch.equal(alone(images[30:], "some"), together[30:])


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("depth", [1, 4, -1])
def test_features_are_the_same_by_way_of_activations(tmp_path: Path, depth: int, bf16: bool) -> None:
    images, compute = stored(tmp_path), Compute(torch.device("cpu"), bf16=bf16)
    torch.manual_seed(0)
    network = trunk(tiny.TRUNK)
    straight, by_way = (
        embeddings(images, Trunk(lambda: network, name, SEEN, compute, tmp_path), depth=through)
        for name, through in (("one", 0), ("other", depth))
    )
    assert torch.equal(straight, by_way)
    assert len(list((tmp_path / ".cache/activations").iterdir())) == 1


def test_activations_are_kept_as_the_pictures_pass(tmp_path: Path) -> None:
    images, made = stored(tmp_path), list[int]()

    def build() -> nn.Module:
        made.append(1)
        return trunk(tiny.TRUNK)

    kept = Trunk(build, "w", SEEN, FP32, tmp_path)
    embeddings(images, kept, depth=3)
    made.clear()
    rows = activations(images, kept, depth=3)
    assert not made, "nothing was run for them again"
    for image in images:
        (tmp_path / image.file_name).unlink()
    assert set(rows) == {image.sha256 for image in images}
    other = activations(images[:0], kept, depth=2)
    assert not other, "another depth, other rows"


def test_activations_that_take_more_than_they_may(tmp_path: Path) -> None:
    images = stored(tmp_path)

    def within(most_gb: float) -> Trunk:
        return Trunk(lambda: trunk(tiny.TRUNK), "w", SEEN, FP32, tmp_path, most_gb=most_gb)

    for run in (activations, embeddings):
        with pytest.raises(UserError, match=r"cache_frozen: true: what 3 frozen blocks say of 6 pictures takes .* kB"):
            run(images, within(1e-6), depth=3)
    assert not list((tmp_path / ".cache").rglob("*.safetensors"))
    assert len(activations(images, within(1e-3), depth=3)) == 6
    assert len(activations(images, within(1e-6), depth=3)) == 6, "they are there"


def test_a_broken_file_of_the_cache_is_made_again(tmp_path: Path) -> None:
    images = stored(tmp_path)
    first = embed(images, tmp_path)
    (file,) = (tmp_path / ".cache/embeddings").rglob("*.safetensors")
    whole = file.read_bytes()
    for broken in (b"", b"nonsense", whole[:-10], whole[: len(whole) // 2], b"\xff" * len(whole)):
        RUN.clear()
        file.write_bytes(broken)
        assert torch.equal(embed(images, tmp_path), first)
        assert sum(RUN) == 6
        assert file.read_bytes() == whole


def test_a_broken_file_costs_only_its_own_pictures(tmp_path: Path) -> None:
    images, more = stored(tmp_path), stored(tmp_path, 3, first=10)
    first = embed(images, tmp_path)
    (file,) = (tmp_path / ".cache/embeddings").rglob("*.safetensors")
    embed(more, tmp_path)
    file.write_bytes(b"nonsense")
    RUN.clear()
    assert torch.equal(embed([*images, *more], tmp_path)[:6], first)
    assert sum(RUN) == 6


def test_a_kill_loses_at_most_the_last_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.embed.SHARD", 1)
    images = stored(tmp_path, 2 * BATCH)
    (tmp_path / images[-1].file_name).rename(tmp_path / "away.png")
    with pytest.raises(FileNotFoundError):
        embed(images, tmp_path)
    (tmp_path / "away.png").rename(tmp_path / images[-1].file_name)
    RUN.clear()
    embed(images, tmp_path)
    assert sum(RUN) == BATCH
