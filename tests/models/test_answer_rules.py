"""unknown.safetensors: what is read is what was written; and the score in a network is that of the arrays."""

from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.base.errors import UserError
from headstart.metrics.conformal import PredictionSets
from headstart.metrics.strangeness import fit_feature_bank
from headstart.models.answer_rules import NO_RULES, AnswerRules, StrangenessScore, read_answer_rules
from headstart.models.strangeness_features import FeaturePlan

RNG = np.random.default_rng(0)
BANK = fit_feature_bank(RNG.gamma(1.0, size=(50, 24)), [14, 10])
PLAN = FeaturePlan(("blocks.1", "blocks.4"), ((0, 14), (30, 40)))
RULES = AnswerRules(BANK, PLAN, 0.75, PredictionSets(0.9, np.array([0.25, 0.5]), "a note"))


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    for threshold in (0.75, float("inf")):
        rules = AnswerRules(BANK, PLAN, threshold, RULES.sets)
        (tmp_path / "unknown.safetensors").write_bytes(rules.to_bytes())
        assert rules.to_bytes() == rules.to_bytes()
        read = read_answer_rules(tmp_path / "unknown.safetensors")
        for name in ("mean", "components", "rows"):
            np.testing.assert_array_equal(getattr(read.bank, name), getattr(BANK, name))
        assert (read.bank.neighbours, read.bank.widths, read.threshold) == (5, (14, 10), threshold)
        assert read.plan == PLAN
        assert (read.sets.confidence, read.sets.note) == (0.9, "a note")
        assert read.sets.thresholds.tolist() == [0.25, 0.5]


def test_the_network_scores_as_the_arrays_do() -> None:
    features = RNG.gamma(1.0, size=(40, 24))
    features[0] = 0
    scores = StrangenessScore(BANK)(torch.from_numpy(features).float()).numpy()
    np.testing.assert_allclose(scores, BANK.strangeness(features), atol=2e-6)


@pytest.mark.parametrize("content", [b"", b"half of it", NO_RULES])
def test_a_missing_or_damaged_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "unknown.safetensors"
    with pytest.raises(UserError, match=r"unknown\.safetensors: no such file; run the stage that writes it"):
        read_answer_rules(path)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"unknown\.safetensors: damaged \(.*\); run `dvc repro` to make it anew$"):
        read_answer_rules(path)
