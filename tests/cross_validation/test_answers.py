"""Answers of folds: a kill between two folds costs none that is finished, and nothing stale is used."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from examined_pictures import LABELS, gaussian, image
from headstart.base.cache_dir import list_entries
from headstart.base.manifest import Image
from headstart.cross_validation.answers import AnswerCache
from headstart.cross_validation.folds import Examined, examine

CODE = ("headstart.cross_validation.folds",)


class Model:
    """Answers with the pictures' ids; it can be killed at the beginning of a fold."""

    def __init__(self, examined: Examined, killed_at: int | None = None) -> None:
        self.examined, self.killed_at, self.answered = examined, killed_at, list[int]()

    def answer(self, fold: int) -> Tensor:
        if fold == self.killed_at:
            raise KeyboardInterrupt
        self.answered.append(fold)
        ids = [one.id for one, of in zip(self.examined.images, self.examined.fold, strict=True) if of == fold]
        return torch.tensor(ids, dtype=torch.float32)[:, None] * torch.tensor([1.0, 0.1])


def test_a_kill_between_folds_resumes_and_the_answers_are_those_of_one_go(tmp_path: Path) -> None:
    examined, _ = gaussian(50, 0)
    cache = AnswerCache.of(tmp_path, "a model", examined, CODE, "linear")
    killed, resumed = Model(examined, killed_at=3), Model(examined)
    with pytest.raises(KeyboardInterrupt):
        cache.answers(examined, killed.answer)
    answers = cache.answers(examined, resumed.answer)
    assert killed.answered == [0, 1, 2]
    assert resumed.answered == [3, 4]
    in_one_go = AnswerCache.of(tmp_path / "new", "a model", examined, CODE, "linear")
    assert np.array_equal(in_one_go.answers(examined, Model(examined).answer), answers)
    np.testing.assert_allclose(answers[:, 0], [one.id for one in examined.images])
    assert answers.dtype == np.float64


def test_folds_in_threads_are_answered_as_one_after_the_other(tmp_path: Path) -> None:
    examined, _ = gaussian(50, 0)
    first, other = (AnswerCache.of(tmp_path / name, "a model", examined, CODE) for name in "ab")
    one_by_one, threads = Model(examined), torch.get_num_threads()
    expected = first.answers(examined, one_by_one.answer)
    in_threads = Model(examined)
    assert np.array_equal(other.answers(examined, in_threads.answer, parallel=True), expected)
    assert sorted(in_threads.answered) == one_by_one.answered
    assert torch.get_num_threads() == threads


def test_finished_answers_are_read_and_listed(tmp_path: Path) -> None:
    examined, _ = gaussian(50, 0)
    cache = AnswerCache.of(tmp_path, "a model", examined, CODE, "linear")
    cache.answers(examined, Model(examined).answer)
    again = Model(examined)
    cache.answers(examined, again.answer)
    assert not again.answered
    (entry,) = list_entries(tmp_path)
    assert (entry.kind, entry.description, entry.count) == ("cross-validation", "a model, 5 folds", 50)


def test_a_damaged_file_costs_its_fold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    examined, _ = gaussian(50, 0)
    cache = AnswerCache.of(tmp_path, "a model", examined, CODE)
    answers = cache.answers(examined, Model(examined).answer)
    next(cache.folder.glob("*.safetensors")).write_bytes(b"half")
    again = Model(examined)
    assert np.array_equal(cache.answers(examined, again.answer), answers)
    assert len(again.answered) == 1
    assert "computed anew" in capsys.readouterr().err


def test_the_key_is_of_all_that_answers_depend_on(tmp_path: Path) -> None:
    images = [image(n, LABELS[n % 2]) for n in range(40)]

    def key(some: list[Image], folds: int = 5, seed: int = 0, *parts: object) -> Path:
        return AnswerCache.of(tmp_path, "", examine(some, LABELS, folds, seed)[0], CODE, *parts).folder

    relabeled = [*images[:-1], image(39, "ant")]
    unsure = [*images[:-1], image(39, "bee", confidence=0.5)]
    other = [*images[:-1], image(39, "bee", sha256="f" * 64)]
    keys = [key(some) for some in (images, relabeled, unsure, other, images[:-1])]
    keys += [key(images, 4), key(images, 5, 1), key(images, 5, 0, {"weight_decay": 0.1})]
    assert len(set(keys)) == len(keys)
    assert key(images) == key(images)
