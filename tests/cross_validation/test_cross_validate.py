"""Cross-validation of a whole project: the stages' own models in each fold, resumed after a kill."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from headstart.base.cache_dir import cache_budget
from headstart.base.code_digest import source_files
from headstart.base.manifest import SPLITS, Manifest, Split, read_manifest, write_manifest
from headstart.cross_validation import fold_pipeline
from headstart.cross_validation.cross_validate import cross_validate
from headstart.cross_validation.figures import CrossValidation
from headstart.cross_validation.fold_pipeline import PIPELINE_CODE
from headstart.cross_validation.heads import HEAD_CODE
from headstart.cross_validation.picture_features import PictureFeatures
from headstart.metrics.intervals import SAME_MODEL
from headstart.models import classifier
from headstart.models.file import read_model_file
from headstart.params.root import Params
from headstart.training.fine_tune import fine_tune
from test_dvc import closure, file_of

LINEAR: dict[str, Any] = {"head": {"hidden": [], "batch_norm": False, "kind": "linear"}}


def params_with(model: dict[str, Any] = LINEAR, **evaluate: Any) -> Params:
    changes = {"folds": 3} | evaluate
    return tiny.make_params(evaluate=changes, model=model, train_head={"weight_decay": 0.01})


def splits_of(root: Path) -> dict[Split, Manifest]:
    return {split: read_manifest(root / f"stages/split/{split}.json") for split in SPLITS}


def run(root: Path, params: Params) -> CrossValidation:
    return cross_validate(splits_of(root), params, root)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Look, do not touch: the stages before training have run."""
    root = tmp_path_factory.mktemp("prepared")
    tiny.make_pictures(root, 10)
    tiny.run(root, params_with(), "fetch", "weights", "split", "augment")
    return root


@pytest.fixture
def root(prepared: Path, tmp_path: Path) -> Path:
    shutil.copytree(prepared, tmp_path / "project")
    return tmp_path / "project"


def test_every_picture_of_all_splits_is_examined_once_by_the_head(root: Path) -> None:
    found = run(root, params_with())
    images = [image for manifest in splits_of(root).values() for image in manifest.images]
    assert sorted(image.sha256 for image in found.examined.images) == sorted(image.sha256 for image in images)
    assert (found.model, found.set_aside, found.pinned) == ("head", 0, 0)
    assert found.learned == pytest.approx(len(images) * 2 / 3)
    assert found.metrics.pictures == len(images) == 20
    assert found.metrics.accuracy.value == found.predictions["head"].correct.mean() > 0.8, "there is something to learn"
    assert set(found.alternatives) == {"linear_blocks", "kernel_last", "kernel_blocks"}


def test_the_head_of_a_fold_is_what_train_head_makes_of_the_same_pictures(root: Path, tmp_path: Path) -> None:
    """Copies of val and test pictures are those that the augment stage would have stored."""
    params = params_with()
    found = run(root, params)
    fold, splits = found.examined.fold == 1, splits_of(root)
    other = tmp_path / "by hand"
    shutil.copytree(root / "stages", other / "stages")
    for name, rows in (("train", ~fold), ("val", fold)):
        images = tuple(found.examined.images[n] for n in np.flatnonzero(rows))
        write_manifest(
            Manifest(images=images, categories=splits["train"].categories), other / f"stages/split/{name}.json"
        )
    tiny.run(other, params, "augment", "train-head")
    tensors, spec = read_model_file(other / "stages/train-head/model.safetensors")
    features = PictureFeatures(found.examined, params, root)
    inside = [found.examined.images[n] for n in np.flatnonzero(fold)]
    with torch.no_grad():
        logits = classifier.build(tensors, spec).head(features.embed(inside, spec.head))
    np.testing.assert_allclose(found.predictions["head"].raw[fold], logits.softmax(1), atol=1e-4)


def test_the_same_bits_twice_with_and_without_the_cache(root: Path) -> None:
    first, again = (run(root, params_with()).predictions["head"] for _ in range(2))
    shutil.rmtree(root / ".cache/cross-validation")
    anew = run(root, params_with()).predictions["head"]
    assert np.array_equal(first.raw, again.raw)
    assert np.array_equal(first.raw, anew.raw)


def test_where_every_fold_keeps_the_head_there_is_no_mean_and_no_difference(root: Path) -> None:
    params = params_with(folds=2, folds_fine_tune=True)
    params = params.model_copy(update={"fine_tune": params.fine_tune.model_copy(update={"lr": 1e-12, "ema": 0.0})})
    found = run(root, params)
    assert np.array_equal(found.predictions["head"].raw, found.predictions["fine_tuned"].raw)
    assert set(found.alternatives) == {"head", "linear_blocks", "kernel_last", "kernel_blocks"}
    assert found.alternatives["head"].difference is SAME_MODEL


def test_on_many_pictures_other_heads_are_tried_only_beside_fine_tuning(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.cross_validation.cross_validate.MAX_ROWS", 10)
    found = run(root, params_with(folds=2))
    assert not found.alternatives
    assert found.skipped.startswith("Other heads are tried on at most 10 pictures and copies, and these are ")
    found = run(root, params_with(folds=2, folds_fine_tune=True))
    assert {"linear_blocks", "kernel_last", "kernel_blocks"} < set(found.alternatives)
    assert not found.skipped


def test_a_small_budget_of_the_cache_changes_nothing(root: Path, tmp_path: Path) -> None:
    params = params_with(folds=2, folds_fine_tune=True)
    shutil.copytree(root, tmp_path / "other")
    found = run(root, params).predictions["fine_tuned"]
    with cache_budget(tmp_path / "other", 1e-6):
        assert np.array_equal(run(tmp_path / "other", params).predictions["fine_tuned"].raw, found.raw)


def test_pinned_pictures_stay_apart(root: Path) -> None:
    test = read_manifest(root / "stages/split/test.json")
    pinned = tuple(image.model_copy(update={"split": "test"}) for image in test.images)
    write_manifest(Manifest(images=pinned, categories=test.categories), root / "stages/split/test.json")
    found = run(root, params_with())
    assert found.pinned == len(pinned)
    assert not {image.id for image in pinned} & {image.id for image in found.examined.images}


def test_a_head_with_hidden_layers_chooses_its_epoch_on_pictures_set_aside(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(root, params_with({"head": {"hidden": [8], "batch_norm": True}}, folds=2))
    assert list(found.predictions) == ["head"]
    assert found.set_aside > 0
    assert found.learned + found.set_aside == pytest.approx(10)
    out = capsys.readouterr().out
    assert "evaluate: fold 1 of 2: head on " in out
    assert set(found.alternatives) == {"linear_last", "linear_blocks", "kernel_last", "kernel_blocks"}


def test_fine_tuning_is_repeated_in_each_fold_and_resumes_after_a_kill(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    params, trained, killed_at = params_with(folds=2, folds_fine_tune=True), list[str](), [2]
    untouched = tmp_path / "untouched"
    shutil.copytree(root, untouched)

    def recorded(params: Params, project: Path, **more: Any) -> None:
        if len(trained) + 1 == killed_at[0]:
            raise KeyboardInterrupt
        trained.append(project.name)
        fine_tune(params, project, **more)

    monkeypatch.setattr(fold_pipeline, "fine_tune", recorded)
    with pytest.raises(KeyboardInterrupt):
        run(root, params)
    assert list(root.glob(".cache/cross-validation/*/fold-2/.cache")), "the project of the fold that was killed"
    assert "evaluate: fold 2 of 2: stopped; `dvc repro` resumes there" in capsys.readouterr().out
    killed_at[0] = 0
    resumed = run(root, params)
    assert trained == ["fold-1", "fold-2"]
    in_one_go = run(untouched, params)
    assert trained == ["fold-1", "fold-2"] * 2
    for model in ("head", "fine_tuned"):
        assert np.array_equal(resumed.predictions[model].raw, in_one_go.predictions[model].raw)
    assert resumed.model == "fine_tuned"
    assert {"head", "mean", "linear_blocks", "kernel_last", "kernel_blocks"} == set(resumed.alternatives)
    assert not list(root.glob(".cache/cross-validation/*/fold-*")), "the folds' projects are gone"
    assert not list(root.glob(".cache/checkpoints/*/*")), "so are their checkpoints"


@pytest.mark.parametrize(("code", "module"), [(HEAD_CODE, "heads"), (PIPELINE_CODE, "fold_pipeline")])
def test_the_keys_are_of_all_code_that_computes_an_answer(code: tuple[str, ...], module: str) -> None:
    """Beside it, values are hashed: what is read of base, params and images; metrics of detectors have no part."""
    covered = {path for name in code for path in source_files(name)}
    outside = tuple(f"headstart.{wing}" for wing in ("base", "params", "images", "metrics"))
    reached = {file_of(name) for name in closure(f"headstart.cross_validation.{module}", outside)}
    kept = {file_of("headstart.cross_validation.answers")}  # keeps answers, computes none
    missing = {path for path in reached - covered - kept if path and path.name != "__init__.py"}
    if code is HEAD_CODE:  # the features' own key has these
        missing = {path for path in missing if path.parts[-2] not in ("engine", "cpu", "features")}
    assert not missing
