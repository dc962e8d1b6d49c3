"""The strangeness score: distances against scikit-learn's, strangers against members, the same bits every time."""

import numpy as np
import pytest

from headstart.base.arrays import Floats
from headstart.metrics.strangeness import (
    COMPONENTS,
    NEIGHBOURS,
    cross_fitted_strangeness,
    fit_feature_bank,
    normalize_features,
    pick_for_bank,
    principal_components,
)


def cloud(count: int, seed: int, width: int = 40, rank: int = 6) -> Floats:
    """Features as a rectified backbone has them, around a plane of `rank` directions."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(9).normal(size=(rank, width))
    return np.asarray(np.maximum(2 + rng.normal(size=(count, rank)) @ directions + rng.normal(size=(count, width)), 0))


def test_the_score_is_the_distance_to_the_fifth_nearest_training_picture() -> None:
    """With all components kept it is that of normalized features, whatever their length."""
    neighbors = pytest.importorskip("sklearn.neighbors")
    bank, others = cloud(60, 0), cloud(30, 1)
    exact = neighbors.NearestNeighbors(n_neighbors=NEIGHBOURS).fit(normalize_features(bank, [40]))
    distances = exact.kneighbors(normalize_features(others, [40]))[0][:, -1]
    fitted = fit_feature_bank(bank, [bank.shape[1]])
    assert fitted.rows.shape == (60, 40)
    assert fitted.strangeness(others) == pytest.approx(distances, abs=1e-5)
    assert fitted.strangeness(7 * others) == pytest.approx(distances, abs=1e-5)


def test_each_part_of_the_features_counts_alike() -> None:
    """A hundred times as large, or of another length: a part divided by its length is the same."""
    one, other = cloud(60, 0), cloud(60, 1)
    plain, scaled = np.hstack([one, other]), np.hstack([100 * one, 0.01 * other])
    fitted = fit_feature_bank(plain[:40], [40, 40])
    assert fitted.strangeness(plain[40:]) == pytest.approx(fitted.strangeness(scaled[40:]))
    whole = fit_feature_bank(plain[:40], [80])
    assert whole.strangeness(plain[40:]) != pytest.approx(whole.strangeness(scaled[40:]), rel=0.1)
    np.testing.assert_allclose(np.linalg.norm(normalize_features(scaled, [40, 40]), axis=1), np.sqrt(2))


def test_what_lies_outside_of_the_components_counts_as_distance() -> None:
    bank = cloud(400, 0, width=300, rank=4)
    fitted = fit_feature_bank(bank, [bank.shape[1]])
    assert fitted.components.shape == (300, COMPONENTS)
    assert fitted.rows.shape == (400, COMPONENTS)
    np.testing.assert_allclose(fitted.components.T @ fitted.components, np.eye(COMPONENTS), atol=1e-5)
    member = cloud(1, 5, width=300, rank=4)
    direction = np.random.default_rng(3).normal(size=300)
    direction -= fitted.components @ (fitted.components.T @ direction)
    scores = [float(fitted.strangeness(member + step * direction)[0]) for step in (0, 2, 5, 20)]
    assert scores == sorted(scores)
    assert scores[-1] > 2 * scores[0]


def test_strangers_are_stranger_than_members() -> None:
    fitted = fit_feature_bank(cloud(300, 0), [40])
    members, strangers = fitted.strangeness(cloud(200, 1)), fitted.strangeness(cloud(200, 1)[:, ::-1])
    assert np.quantile(members, 0.95) < np.quantile(strangers, 0.05)


def test_cross_fitted_scores_are_those_of_new_pictures() -> None:
    """Each comes from a bank without its unit: a picture's exact copy in its unit brings it no nearer."""
    bank = cloud(300, 0)
    units = np.arange(300)
    crossed, new = (
        cross_fitted_strangeness(bank, [40], units, 0),
        fit_feature_bank(bank, [bank.shape[1]]).strangeness(cloud(2000, 1)),
    )
    assert np.quantile(crossed, 0.95) == pytest.approx(np.quantile(new, 0.95), abs=0.03)
    doubled = np.repeat(bank, 8, axis=0)
    scores = cross_fitted_strangeness(doubled, [40], np.repeat(units, 8), 0)
    assert scores.min() > 0.1
    assert cross_fitted_strangeness(doubled, [40], np.arange(2400), 0).min() < 0.01, (
        "as units of their own they are copies"
    )


@pytest.mark.parametrize("count", [2, 3, 30])
def test_banks_of_few_pictures(count: int) -> None:
    fitted = fit_feature_bank(cloud(count, 0), [40])
    assert fitted.neighbours == min(count, NEIGHBOURS)
    assert fitted.components.shape[1] == min(count - 1, 40), "so many directions have a variance"
    assert np.isfinite(fitted.strangeness(cloud(4, 1))).all()
    assert np.isfinite(fit_feature_bank(np.zeros((count, 5)), [2, 3]).strangeness(np.zeros((2, 5)))).all()


@pytest.mark.parametrize("shape", [(200, 30), (30, 200)])
def test_principal_components_are_those_of_the_singular_value_decomposition(shape: tuple[int, int]) -> None:
    """By either matrix."""
    rows = np.random.default_rng(0).normal(size=shape) * np.linspace(3, 1, shape[1])
    rows -= rows.mean(0)
    found = principal_components(rows, 5)
    expected = np.linalg.svd(rows, full_matrices=False)[2][:5].T
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-8)


def test_every_label_gives_as_many_pictures_and_the_choice_is_repeatable() -> None:
    labels = np.repeat([0, 1, 2], [900, 90, 9])
    picked = pick_for_bank(labels, seed=4, most=200)
    assert np.bincount(labels[picked]).tolist() == [101, 90, 9]
    assert (np.diff(picked) > 0).all()
    np.testing.assert_array_equal(picked, pick_for_bank(labels, seed=4, most=200))
    assert picked.tolist() != pick_for_bank(labels, seed=5, most=200).tolist()
    np.testing.assert_array_equal(pick_for_bank(labels, seed=4, most=5000), np.arange(999))
