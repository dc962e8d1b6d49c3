"""Two stages through the whole pipeline: what is drawn to learn from, the same bits twice, and the exported file."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from conftest import Project, run_spied
from headstart import checkpoint, detect, fasterrcnn, fit_state, modelfile, pixels
from headstart.fine_tune import fine_tune
from headstart.predict import Model
from headstart.train_head import train_head

LESSONS = {"train_head": {"epochs": 4}, "fine_tune": {"epochs": 2}, "model": {"detector": "fasterrcnn"}}


@pytest.fixture(scope="module", autouse=True)
def few() -> Iterator[None]:
    """Fewer proposals than people have: it is the same code in a quarter of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fasterrcnn, "BOXES", 32)
        patch.setattr(fasterrcnn, "TAUGHT", 300)
        yield


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("two_stages")
    tiny.make_boxes(root)
    return run_spied(root, tiny.make_detect_params(**LESSONS))


@pytest.fixture
def root(project: Project, tmp_path: Path) -> Path:
    """A copy of the project, up to train-head."""
    for name in ("fetch", "weights", "split", "augment", "train-head"):
        shutil.copytree(project.root / "stages" / name, tmp_path / "stages" / name)
    return tmp_path


@pytest.mark.parametrize(
    ("positives", "negatives", "drawn"), [(50, 500, (16, 48)), (3, 500, (3, 61)), (9, 20, (9, 20))]
)
def test_as_many_are_drawn_as_torchvision_draws(positives: int, negatives: int, drawn: tuple[int, int]) -> None:
    from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

    kind = torch.tensor([1] * positives + [0] * negatives + [-1] * 7)
    chosen = fasterrcnn.sample((kind == 1)[None], (kind == 0)[None], 64, 0.25, training=True)[0]
    theirs = [some[0] for some in BalancedPositiveNegativeSampler(64, 0.25)([kind])]
    assert [int(chosen[kind == which].sum()) for which in (1, 0)] == [int(some.sum()) for some in theirs] == [*drawn]
    assert not chosen[kind == -1].any()


def test_what_is_drawn_differs_from_step_to_step_but_not_in_an_exam() -> None:
    there = torch.ones(2, 100, dtype=torch.bool)
    some = [fasterrcnn.sample(there, ~there, 20, 0.5, training) for training in (True, True, False, False)]
    assert not torch.equal(some[0], some[1])
    assert torch.equal(some[2], some[3])
    assert [each.sum(1).tolist() for each in some] == [[10, 10]] * 4
    torch.manual_seed(1)
    again = fasterrcnn.sample(there, ~there, 20, 0.5, training=True)
    torch.manual_seed(1)
    assert torch.equal(again, fasterrcnn.sample(there, ~there, 20, 0.5, training=True))


def test_it_learns_and_the_exported_file_finds_the_same(project: Project) -> None:
    root, model = project.root, Model(project.root / "stages/export")
    losses = [float(row.split(",")[2]) for row in (root / "stages/train-head/history.csv").read_text().split()[1:]]
    assert losses[-1] < 0.8 * losses[0]
    parity = tiny.read_json(root / "stages/export/parity.json")
    assert parity["same_box"] == parity["boxes"]
    test = tiny.manifest(root, "split", "test")
    tensors, card = modelfile.read(root / "stages/fine-tune/model.safetensors")
    seen = np.stack([pixels.decode(root / image.file_name, model.input) for image in test.images])
    found, network = model.boxes(seen), detect.build(tensors, card)
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (card.input.mean, card.input.std))
    with torch.no_grad():
        said = network((torch.from_numpy(seen).permute(0, 3, 1, 2).float() / 255 - mean) / std)
    for ours, theirs in zip(detect.predict(network, said), found, strict=True):
        some = torch.from_numpy(found.scores) > 0.06  # at 0.05 exactly, one may have what the other has not
        assert some.any()
        np.testing.assert_allclose(ours[some].numpy(), np.asarray(theirs)[some.numpy()], atol=1e-2)
    alone = model.boxes(seen[:1])
    np.testing.assert_allclose(alone.scores, found.scores[:1], atol=1e-5)
    page = (root / "stages/evaluate/report.html").read_text(encoding="utf-8")
    assert "fasterrcnn on a feature pyramid of 64 channels" in page


def test_two_runs_give_the_same_bits_and_so_does_one_that_was_killed(
    project: Project, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at the second step of fine-tune's second epoch; the draws go on as they would have."""
    train_head(project.params, root)
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    steps = iter(range(3))

    def killed(self: Any, *args: Any, learn: Callable[..., None] = fit_state.Run.learn) -> None:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        learn(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(fit_state.Run, "learn", killed)
        with pytest.raises(KeyboardInterrupt):
            fine_tune(project.params, root)
    torch.manual_seed(99)
    fine_tune(project.params, root)
    for stage in ("train-head", "fine-tune"):
        files = [each / f"stages/{stage}/model.safetensors" for each in (root, project.root)]
        assert files[0].read_bytes() == files[1].read_bytes(), stage
