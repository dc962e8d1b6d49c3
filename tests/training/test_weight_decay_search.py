"""Cross-validation of the weight decay: folds by units and labels, and what it chooses."""

import math

import numpy as np
import torch

from headstart.training.weight_decay_search import UNSEARCHED, WEIGHT_DECAYS, assign_folds, choose_weight_decay


def test_units_stay_together_and_labels_are_spread() -> None:
    labels = np.array([0] * 60 + [1] * 30)
    units = np.arange(90)
    units[:10] = 0
    folds = assign_folds(labels, units, 5, seed=0)
    assert len(set(folds[:10])) == 1
    assert set(folds) == set(range(5))
    for fold in range(5):
        assert (folds == fold).sum() == 18
        assert (labels[folds == fold] == 1).sum() == 6
    assert (folds == assign_folds(labels, units, 5, seed=0)).all()
    assert (folds != assign_folds(labels, units, 5, seed=1)).any()
    assert set(assign_folds(labels[:3], np.array([0, 1, 1]), 5, seed=0)) == {0, 1}


def test_noise_asks_for_a_stronger_decay_than_a_clear_rule() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 40, generator=generator, dtype=torch.float64)
    clear, noise = (features[:, 0] > 0).long(), torch.randint(0, 2, (200,), generator=generator)
    chosen = [
        choose_weight_decay(features, torch.eye(2, dtype=torch.float64)[labels], np.arange(200), 0)[0]
        for labels in (clear, noise)
    ]
    assert chosen[0] <= 0.01
    assert chosen[1] == WEIGHT_DECAYS[0]


def test_a_copy_in_another_fold_would_have_been_learned_by_heart() -> None:
    """Each picture twice, labels at random: with both in one unit nothing can be predicted, so the decay is strong."""
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(60, 80, generator=generator, dtype=torch.float64).repeat(2, 1)
    targets = torch.eye(2, dtype=torch.float64)[torch.randint(0, 2, (60,), generator=generator).repeat(2)]
    together, _ = choose_weight_decay(features, targets, np.tile(np.arange(60), 2), 0)
    apart, loss = choose_weight_decay(features, targets, np.arange(120), 0)
    assert together >= 1
    assert apart < 0.1
    assert loss < 0.5 < math.log(2)


def test_one_unit_leaves_nothing_to_compare() -> None:
    features, targets = torch.randn(4, 2, dtype=torch.float64), torch.eye(2, dtype=torch.float64).repeat(2, 1)
    assert choose_weight_decay(features, targets, np.zeros(4, dtype=np.int64), 0) == (UNSEARCHED, math.inf)


def test_a_label_of_one_unit_is_left_out_of_the_score() -> None:
    """Its fold has not seen it: its loss would grow without end as the decay weakens."""
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(101, 5, generator=generator, dtype=torch.float64)
    labels = (features[:, 0] > 0).long()
    labels[100] = 2
    chosen, loss = choose_weight_decay(features, torch.eye(3, dtype=torch.float64)[labels], np.arange(101), 0)
    assert chosen <= 0.01
    assert loss < 0.2
