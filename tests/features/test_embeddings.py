"""The frozen backbone runs once a picture, and a picture's features do not depend on other pictures."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tiny
from headstart.base.code_digest import source_files
from headstart.base.errors import UserError
from headstart.base.files import sha256_file
from headstart.base.manifest import Image
from headstart.base.one_line import one_line
from headstart.engine.device import Compute
from headstart.engine.inference import INFERENCE_BATCH
from headstart.engine.input_spec import InputSpec
from headstart.engine.pixels import PIXEL_MODULES
from headstart.features.embeddings import compute_activations, compute_embeddings
from headstart.features.frozen_backbone import ROW_CODE, FrozenBackbone
from headstart.models.backbone import create_backbone
from test_dvc import closure, file_of

FP32 = Compute(torch.device("cpu"))
SPEC = InputSpec(size=32, resize="squash", interpolation="bicubic", crop=1.0, mean=(0.5,) * 3, std=(0.5,) * 3)


class CountingNetwork(nn.Module):
    """A small network that counts the pictures it was run on, without those of one color, which pad a batch."""

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
            Image(id=number, file_name=path.name, width=48, height=40, sha256=sha256_file(path), source="s", label="x")
        )
    return images


def embed(
    images: list[Image],
    root: Path,
    weights: str = "w",
    input_spec: InputSpec = SPEC,
    built: list[int] | None = None,
    name: str = "",
) -> Tensor:
    def build() -> nn.Module:
        if built is not None:
            built.append(1)
        return CountingNetwork()

    features = compute_embeddings(images, FrozenBackbone(build, weights, input_spec, FP32, root, name))
    while RUN and SIZES[0] == 1:  # the example by which folding is verified
        RUN.pop(0)
        SIZES.pop(0)
    return features


def test_each_picture_once_and_then_never(tmp_path: Path) -> None:
    images, built = stored(tmp_path), list[int]()
    first = embed(images, tmp_path, built=built)
    assert first.shape == (6, 8)
    assert first.dtype == torch.float32
    assert (sum(RUN), len(built)) == (6, 1)
    assert torch.equal(embed(images, tmp_path, built=built), first)
    assert (sum(RUN), len(built)) == (6, 1), "no picture is missing: the backbone is not even built"


def test_a_picture_that_is_listed_twice_is_run_once(tmp_path: Path) -> None:
    images = stored(tmp_path)
    features = embed([*images, images[0], images[3]], tmp_path)
    assert sum(RUN) == 6
    assert torch.equal(features[6:], features[[0, 3]])


def test_only_what_is_new_or_changed_is_run(tmp_path: Path) -> None:
    images = stored(tmp_path)
    first = embed(images, tmp_path)
    RUN.clear()
    tiny.texture(77, 1).save(tmp_path / images[2].file_name)
    images[2] = images[2].model_copy(update={"sha256": sha256_file(tmp_path / images[2].file_name)})
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
    for number, change in enumerate(others, start=1):
        embed(images, tmp_path, input_spec=SPEC.model_copy(update=change))
        assert sum(RUN) == 6 * number
    embed(images, tmp_path, weights="others")
    assert sum(RUN) == 30
    embed(images, tmp_path, name="quickgelu")
    assert sum(RUN) == 36, "the same weights may be those of another network"
    assert len(list((tmp_path / ".cache/embeddings").iterdir())) == 7


def test_every_pass_has_the_same_size(tmp_path: Path) -> None:
    """A network may give another last bit for a batch of another size."""
    embed(stored(tmp_path, INFERENCE_BATCH + 3), tmp_path)
    assert SIZES == [INFERENCE_BATCH, INFERENCE_BATCH]
    assert RUN == [INFERENCE_BATCH, 3]


@pytest.mark.parametrize("bf16", [False, True])
def test_features_do_not_depend_on_other_pictures_or_order(tmp_path: Path, bf16: bool) -> None:
    images = stored(tmp_path, INFERENCE_BATCH + 5)

    def features(some: list[Image], root: str) -> Tensor:
        compute = Compute(torch.device("cpu"), torch.bfloat16 if bf16 else torch.float32)
        for image in some:
            target = tmp_path / root / image.file_name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes((tmp_path / image.file_name).read_bytes())
        torch.manual_seed(0)
        network = create_backbone(tiny.TRUNK)
        return compute_embeddings(some, FrozenBackbone(lambda: network, "w", SPEC, compute, tmp_path / root))

    together = features(images, "together")
    assert torch.equal(features(images[::-1], "backwards"), together.flip(0))
    assert torch.equal(features(images[7:8], "single")[0], together[7])
    assert torch.equal(features(images[30:], "some"), together[30:])


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("cpu_kernels", [False, True])
@pytest.mark.parametrize(("name", "size", "depth"), [(tiny.TRUNK, 32, 1), (tiny.TRUNK, 32, -1), ("test_vit", 160, 1)])
def test_features_computed_from_activations_are_the_same(
    tmp_path: Path, name: str, size: int, depth: int, cpu_kernels: bool, bf16: bool
) -> None:
    """Head training gives the same features whatever `fine_tune.cache_frozen` is.

    Without our kernels, blocks of a transformer end in fp32 in bf16 autocast too; their activations are cached in bf16.
    """
    images, compute = (
        stored(tmp_path, 3),
        Compute(torch.device("cpu"), torch.bfloat16 if bf16 else torch.float32, cpu_kernels=cpu_kernels),
    )
    torch.manual_seed(0)
    network, spec = create_backbone(name), SPEC.model_copy(update={"size": size})
    direct, from_activations = (
        compute_embeddings(images, FrozenBackbone(lambda: network, key, spec, compute, tmp_path), depth=blocks)
        for key, blocks in (("one", 0), ("other", depth))
    )
    assert torch.equal(direct, from_activations)
    assert len(list((tmp_path / ".cache/activations").iterdir())) == 1


def test_activations_are_cached_while_embeddings_are_computed(tmp_path: Path) -> None:
    images, built = stored(tmp_path), list[int]()

    def build() -> nn.Module:
        built.append(1)
        return create_backbone(tiny.TRUNK)

    backbone = FrozenBackbone(build, "w", SPEC, FP32, tmp_path)
    compute_embeddings(images, backbone, depth=3)
    built.clear()
    rows = compute_activations(images, backbone, depth=3)
    assert not built, "no picture was run again"
    for image in images:
        (tmp_path / image.file_name).unlink()
    assert set(rows) == {image.sha256 for image in images}
    other = compute_activations(images[:0], backbone, depth=2)
    assert not other, "another depth, other rows"


def test_activations_beyond_the_limit_are_an_error(tmp_path: Path) -> None:
    images = stored(tmp_path)

    def backbone(max_gb: float) -> FrozenBackbone:
        return FrozenBackbone(lambda: create_backbone(tiny.TRUNK), "w", SPEC, FP32, tmp_path, max_gb=max_gb)

    for run in (compute_activations, compute_embeddings):
        with pytest.raises(
            UserError, match=r"cache_frozen: true: the activations of 3 frozen blocks for 6 pictures take .* kB"
        ):
            run(images, backbone(1e-6), depth=3)
    assert not list((tmp_path / ".cache").rglob("*.safetensors"))
    assert len(compute_activations(images, backbone(1e-3), depth=3)) == 6
    assert len(compute_activations(images, backbone(1e-6), depth=3)) == 6, "they are cached"


def test_a_broken_file_of_the_cache_is_computed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
        said = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
        assert said == [f"warning: {file.relative_to(tmp_path)}: the file is damaged; computed anew"]


def test_a_folder_in_the_place_of_a_file_is_one_line(tmp_path: Path) -> None:
    images = stored(tmp_path)
    embed(images, tmp_path)
    (file,) = (tmp_path / ".cache/embeddings").rglob("*.safetensors")
    file.unlink()
    file.mkdir()
    with pytest.raises(OSError, match=re.escape(file.name)) as caught:
        embed(images, tmp_path)
    assert str(one_line(caught.value)).startswith(str(file))


@pytest.mark.parametrize("row", [0, 5])
def test_a_flipped_byte_costs_only_its_own_picture(
    tmp_path: Path, row: int, capsys: pytest.CaptureFixture[str]
) -> None:
    images = stored(tmp_path)
    first = embed(images, tmp_path)
    (file,) = (tmp_path / ".cache/embeddings").rglob("*.safetensors")
    whole = bytearray(file.read_bytes())
    whole[whole.index(first[row].numpy().tobytes()) + 5] ^= 1
    file.write_bytes(whole)
    RUN.clear()
    assert torch.equal(embed(images, tmp_path), first)
    assert sum(RUN) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert said == [f"warning: {file.relative_to(tmp_path)}: 1 of its 6 rows are damaged; computed anew"]
    assert torch.equal(embed(images, tmp_path), first)
    assert sum(RUN) == 1, "the file was replaced"
    assert not capsys.readouterr().err


def test_every_byte_of_a_file_counts(tmp_path: Path) -> None:
    """Wherever a byte is flipped: the same features, by way of the checksums or of an unreadable file."""
    images = stored(tmp_path, 2)
    first = embed(images, tmp_path)
    (file,) = (tmp_path / ".cache/embeddings").rglob("*.safetensors")
    whole = file.read_bytes()
    for place in range(0, len(whole), 7):
        for left in file.parent.glob("*.safetensors"):
            left.unlink()
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        assert torch.equal(embed(images, tmp_path), first), place


def test_the_key_holds_the_code_that_makes_rows() -> None:
    """All that these modules import, except what only holds data or stands on the backbone, is in the key."""
    data = ("headstart.base", "headstart.params", "headstart.models.file", "headstart.models.heads")
    starts = ["features.embeddings", "models.pretrained", "models.detector_parts", "engine.cpu.optimize"]
    imported = {module for start in starts for module in closure(f"headstart.{start}")}
    computing = {module for module in imported if not module.startswith(data) and module.count(".") > 1}
    covered = {path for name in ROW_CODE for path in source_files(name)}
    assert {module for module in computing if file_of(module) not in covered} == set()
    assert {file_of(module) for module in PIXEL_MODULES} >= {
        file_of(module) for module in closure("headstart.engine.input_spec") if module.count(".") > 1
    }


def test_a_broken_file_costs_only_its_own_pictures(tmp_path: Path) -> None:
    images, more = stored(tmp_path), stored(tmp_path, 3, first=10)
    first = embed(images, tmp_path)
    (file,) = (tmp_path / ".cache/embeddings").rglob("*.safetensors")
    embed(more, tmp_path)
    file.write_bytes(b"nonsense")
    RUN.clear()
    assert torch.equal(embed([*images, *more], tmp_path)[:6], first)
    assert sum(RUN) == 6


def test_a_stage_that_fails_loses_at_most_the_last_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.features.embeddings.BATCHES_PER_SHARD", 1)
    images = stored(tmp_path, 2 * INFERENCE_BATCH)
    (tmp_path / images[-1].file_name).rename(tmp_path / "away.png")
    with pytest.raises(UserError, match="no such file"):
        embed(images, tmp_path)
    (tmp_path / "away.png").rename(tmp_path / images[-1].file_name)
    RUN.clear()
    embed(images, tmp_path)
    assert sum(RUN) == INFERENCE_BATCH
