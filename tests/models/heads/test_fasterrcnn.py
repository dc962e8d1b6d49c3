"""Faster R-CNN: sampling for the loss; through the whole pipeline: the same bits twice, and the exported file."""

import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from conftest import Project, run_spied
from headstart.engine.pixels import read_pixels
from headstart.export.predictor import Predictor
from headstart.models import detector
from headstart.models.file import read_model_file
from headstart.models.heads import fasterrcnn
from headstart.training import checkpoint, loop_state
from tiny import fine_tune, train_head

SHORT_TRAINING = {"train_head": {"epochs": 4}, "fine_tune": {"epochs": 2}, "model": {"detector": "fasterrcnn"}}


@pytest.fixture(scope="module", autouse=True)
def fewer_proposals() -> Iterator[None]:
    """Fewer than by default: the same code in a quarter of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fasterrcnn, "BOX_BATCH_PER_IMAGE", 32)
        patch.setattr(fasterrcnn, "RPN_POST_NMS_TOP_N_TRAIN", 300)
        yield


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("two_stages")
    tiny.make_boxes(root)
    return run_spied(root, tiny.make_detect_params(**SHORT_TRAINING))


@pytest.fixture
def root(project: Project, tmp_path: Path) -> Path:
    """A copy of the project, up to train-head."""
    for name in ("fetch", "weights", "split", "augment", "train-head"):
        shutil.copytree(project.root / "stages" / name, tmp_path / "stages" / name)
    return tmp_path


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"), [(50, 500, (16, 48)), (3, 500, (3, 61)), (9, 20, (9, 20))]
)
def test_samples_are_as_many_as_torchvisions(positives: int, negatives: int, expected: tuple[int, int]) -> None:
    from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

    kind = torch.tensor([1] * positives + [0] * negatives + [-1] * 7)
    sampled = fasterrcnn.sample_balanced((kind == 1)[None], (kind == 0)[None], 64, 0.25, training=True)[0]
    reference = [masks[0] for masks in BalancedPositiveNegativeSampler(64, 0.25)([kind])]
    counts = [int(sampled[kind == which].sum()) for which in (1, 0)]
    assert counts == [int(mask.sum()) for mask in reference] == [*expected]
    assert not sampled[kind == -1].any()


def test_samples_differ_from_step_to_step_in_training_only() -> None:
    positive = torch.ones(2, 100, dtype=torch.bool)
    samples = [
        fasterrcnn.sample_balanced(positive, ~positive, 20, 0.5, training) for training in (True, True, False, False)
    ]
    assert not torch.equal(samples[0], samples[1])
    assert torch.equal(samples[2], samples[3])
    assert [sample.sum(1).tolist() for sample in samples] == [[10, 10]] * 4
    torch.manual_seed(1)
    again = fasterrcnn.sample_balanced(positive, ~positive, 20, 0.5, training=True)
    torch.manual_seed(1)
    assert torch.equal(again, fasterrcnn.sample_balanced(positive, ~positive, 20, 0.5, training=True))


def test_it_learns_and_the_exported_file_finds_the_same(project: Project) -> None:
    root, model = project.root, Predictor(project.root / "stages/export")
    losses = [float(row.split(",")[2]) for row in (root / "stages/train-head/history.csv").read_text().split()[1:]]
    assert losses[-1] < 0.8 * losses[0]
    parity = tiny.read_json(root / "stages/export/parity.json")
    assert parity["same_box"] == parity["boxes"]
    test = tiny.manifest(root, "split", "test")
    tensors, spec = read_model_file(root / "stages/fine-tune/model.safetensors")
    pixels = np.stack([read_pixels(root / image.file_name, model.input) for image in test.images])
    found, network = model.detector_output(pixels), detector.build(tensors, spec)
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (spec.input.mean, spec.input.std))
    with torch.no_grad():
        outputs = network((torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / std)
    across_labels = tiny.read_json(root / "stages/evaluate/metrics.json")["class_agnostic_nms"]["used"]
    expected = detector.predict(network, outputs, class_agnostic_nms=across_labels)
    for ours, theirs in zip(expected, found, strict=True):
        mask = torch.from_numpy(found.scores) > 0.06  # at the threshold, 0.05, only one of them may have a box
        assert mask.any()
        np.testing.assert_allclose(ours[mask].numpy(), np.asarray(theirs)[mask.numpy()], atol=1e-2)
    alone = model.detector_output(pixels[:1])
    np.testing.assert_allclose(alone.scores, found.scores[:1], atol=1e-5)
    page = (root / "stages/evaluate/report.html").read_text(encoding="utf-8")
    assert "fasterrcnn on a feature pyramid of 64 channels" in page


def test_two_runs_give_the_same_bits_and_so_does_one_that_was_interrupted(
    project: Project, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted at the second step of fine-tune's second epoch; random numbers continue as they would have."""
    train_head(project.params, root)
    monkeypatch.setattr(checkpoint, "SAVE_INTERVAL", 0.0)
    monkeypatch.setattr(checkpoint, "MAX_WRITE_SHARE", math.inf)
    steps = iter(range(3))

    def killed(self: Any, *args: Any, train_batch: Callable[..., None] = loop_state.TrainingState.train_batch) -> None:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        train_batch(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(loop_state.TrainingState, "train_batch", killed)
        with pytest.raises(KeyboardInterrupt):
            fine_tune(project.params, root)
    torch.manual_seed(99)
    fine_tune(project.params, root)
    for stage in ("train-head", "fine-tune"):
        files = [each / f"stages/{stage}/model.safetensors" for each in (root, project.root)]
        assert files[0].read_bytes() == files[1].read_bytes(), stage
