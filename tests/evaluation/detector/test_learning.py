"""The sentence for a detector that has not learned, or not to its end."""

import pytest

from headstart.evaluation.detector.learning import learning_sentence
from headstart.evaluation.history import History
from headstart.params.training import FineTuneParams

SECTION = FineTuneParams(epochs=9, lr=1e-3, freeze_depth=5)


def history(losses: list[float], ap50: list[float]) -> History:
    count = len(losses)
    return History(tuple(range(1, count + 1)), tuple(losses), (1.0,) * count, tuple(ap50), (1e-3,) * count, "AP50")


def test_a_detector_that_has_hardly_learned() -> None:
    """The course of a public set of 163 photographs at a rate of 1e-3."""
    sentence = learning_sentence(history([1.73, 1.6, 1.55, 1.5, 1.47], [0.0, 0.02, 0.05, 0.08, 0.09]), SECTION)
    assert sentence is not None
    assert sentence.startswith("The detector has hardly learned (train loss 1.73 to 1.47, val AP50 0.00 to 0.09): ")
    assert "another fine_tune.lr (5e-5 to 5e-4; it is 0.001), freeze_depth: 0" in sentence


def test_few_epochs_are_no_excuse() -> None:
    """A trial of one or two epochs, whose figures mean nothing."""
    for losses, ap50 in (([1.6], [0.11]), ([1.6, 1.2], [0.0, 0.1])):
        sentence = learning_sentence(history(losses, ap50), SECTION)
        assert sentence is not None
        assert "hardly learned" in sentence
        assert "more batches (fine_tune.min_steps)" in sentence


def test_a_detector_that_was_still_learning() -> None:
    sentence = learning_sentence(history([1.6, 1.5, 1.4, 1.3, 1.2, 1.1], [0.2, 0.3, 0.4, 0.5, 0.6, 0.7]), SECTION)
    assert sentence is not None
    assert "was still learning" in sentence
    assert "fine_tune.min_steps" in sentence


@pytest.mark.parametrize(
    ("losses", "ap50"),
    [
        ([1.6, 1.2, 1.0, 0.95, 0.92, 0.91], [0.5, 0.7, 0.8, 0.82, 0.83, 0.83]),  # has leveled off
        ([1.6, 1.5, 1.4, 1.3, 1.2, 1.1], [0.7, 0.8, 0.9, 0.9, 0.9, 0.9]),  # the loss falls, AP does not rise with it
        ([1.0, 1.0, 1.0], [0.9, 0.9, 0.9]),
        ([1.6, 1.2], [0.4, 0.6]),  # too few epochs to tell whether it is still learning
        ([], []),  # the head's weights were kept
    ],
)
def test_nothing_is_said_of_one_that_has(losses: list[float], ap50: list[float]) -> None:
    assert learning_sentence(history(losses, ap50), SECTION) is None
