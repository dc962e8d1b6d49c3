"""The head in each fold: scikit-learn's answers on the same folds, no leak, the same bits twice."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from examined_pictures import gaussian
from headstart.base.arrays import Bools, Floats
from headstart.cross_validation.folds import Examined
from headstart.cross_validation.heads import FoldHeads
from headstart.cross_validation.picture_features import FeatureRows
from headstart.params.root import HeadParams
from headstart.params.training import TrainHeadParams

LINEAR = HeadParams(kind="linear", dropout=0)


def heads_on(
    examined: Examined, features: Floats, learning: list[Bools] | None = None, weight_decay: float = 0.01
) -> FoldHeads:
    rows = FeatureRows(torch.from_numpy(features).float(), np.arange(len(features)))
    learning = learning or [examined.fold != fold for fold in range(examined.folds)]
    section = TrainHeadParams(weight_decay=weight_decay)
    return FoldHeads(examined, lambda: rows, learning, LINEAR, section, 0)


def logits_of(heads: FoldHeads) -> Floats:
    examined = heads.examined
    logits = np.zeros((len(examined.images), len(examined.labels)))
    for fold in range(examined.folds):
        logits[examined.fold == fold] = heads.answer(fold).double().numpy()
    return logits


@pytest.mark.parametrize("per_unit", [1, 5])
def test_the_answers_are_scikit_learns_on_the_same_folds(per_unit: int) -> None:
    examined, features = gaussian(200, 3, per_unit=per_unit)
    logits = logits_of(heads_on(examined, features))
    learning = int((examined.fold != 0).sum())  # folds are of one size here
    oracle = make_pipeline(StandardScaler(), LogisticRegression(C=1 / (0.01 * learning), tol=1e-8))
    expected = cross_val_predict(
        oracle, features, examined.targets, cv=PredefinedSplit(examined.fold), method="predict_proba"
    )
    probabilities = torch.from_numpy(logits).softmax(1).numpy()
    # Two weights for two labels share the penalty of scikit-learn's one: the solutions are near, not the same.
    assert np.abs(probabilities - expected).max() < 0.05
    accuracy, oracles = ((p.argmax(1) == examined.targets).mean() for p in (probabilities, expected))
    assert accuracy == pytest.approx(oracles, abs=0.01)
    assert 0.75 < accuracy < 0.9, "the truth is 0.841"


def test_the_same_bits_twice() -> None:
    examined, features = gaussian(60, 1)
    first, again = (logits_of(heads_on(examined, features)) for _ in range(2))
    assert np.array_equal(first, again)


def test_a_fold_does_not_depend_on_the_labels_and_features_of_its_own_pictures() -> None:
    examined, features = gaussian(60, 1)
    inside = examined.fold == 2
    rows = features.copy()
    rows[inside] = 0
    assert torch.equal(
        heads_on(examined, features).fit(2)[-1].weight,  # type: ignore[index]
        heads_on(examined, rows).fit(2)[-1].weight,  # type: ignore[index]
    )


def test_copies_are_learned_from_with_their_picture_and_are_not_examined() -> None:
    examined, features = gaussian(40, 2)
    copies = np.arange(40)
    doubled = FeatureRows(torch.from_numpy(np.concatenate([features, features])).float(), np.r_[copies, copies])
    learning = [examined.fold != fold for fold in range(examined.folds)]
    section = TrainHeadParams(weight_decay=0.01)
    with_copies = FoldHeads(examined, lambda: doubled, learning, LINEAR, section, 0)
    # Each picture twice is the same problem as each once.
    np.testing.assert_allclose(logits_of(with_copies), logits_of(heads_on(examined, features)), atol=1e-4)


def test_a_unit_on_both_sides_is_a_bug() -> None:
    examined, features = gaussian(40, 2)
    everything = [np.ones(40, dtype=bool)] * examined.folds
    with pytest.raises(AssertionError, match="a unit on both sides"):
        heads_on(examined, features, everything).answer(0)
