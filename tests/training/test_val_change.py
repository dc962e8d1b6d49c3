"""The one-standard-error rule on val, against scipy and by hand."""

import numpy as np
import pytest
import torch
from scipy import stats

from headstart.training.val_change import ValChange


def change_of(differences: list[float], units: list[int] | None = None) -> ValChange:
    after = torch.tensor(differences, dtype=torch.float64) + 3
    before = torch.full_like(after, 3)
    return ValChange.of(4, before, after, np.array(units or range(len(differences))))


def test_each_picture_its_own_unit_has_scipy_s_standard_error() -> None:
    differences = [-0.3, -0.2, -0.1, -0.4, -0.5, 0.3]
    assert change_of(differences).to_metrics() == {
        "val_loss_change": pytest.approx(-0.2),
        "val_loss_change_error": pytest.approx(stats.sem(differences)),
        "val_loss_change_epoch": 4,
        "val_loss_change_pictures": 6,
    }


@pytest.mark.parametrize(
    ("differences", "gain"),
    [
        ([-0.3, -0.1, -0.3, -0.1], True),
        ([-0.3, 0.1, -0.3, 0.1], False),  # mean -0.1, standard error 0.115
        ([-0.3, 0.05, -0.3, 0.05], True),  # mean -0.125, standard error 0.101
        ([0.3, 0.1, 0.3, 0.1], False),
    ],
)
def test_a_gain_is_above_one_standard_error(differences: list[float], gain: bool) -> None:
    assert change_of(differences).is_gain is gain


def test_pictures_of_one_unit_count_as_one() -> None:
    """Four units of two equal pictures: the standard error of four numbers; a single unit has none."""
    means = [-0.3, 0.1, -0.3, 0.1]
    found = change_of([value for value in means for _ in range(2)], [0, 0, 1, 1, 2, 2, 3, 3])
    assert found.error == pytest.approx(stats.sem(means))
    one = change_of(means, [0, 0, 0, 0])
    assert not one.is_gain
    assert one.to_metrics() == {
        "val_loss_change": pytest.approx(-0.1),
        "val_loss_change_epoch": 4,
        "val_loss_change_pictures": 4,
    }
