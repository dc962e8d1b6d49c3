"""Features and logits from one pass: the logits are those of a pass without features, to the bit."""

import numpy as np

import tiny
from conftest import Project
from headstart.base.manifest import SPLITS
from headstart.evaluation.classifier.predictions import StageClassifier
from headstart.images.foreign_pictures import PER_KIND


def test_logits_are_the_same_with_and_without_features(project: Project) -> None:
    splits = {split: tiny.manifest(project.root, "split", split) for split in SPLITS}
    model = StageClassifier.read("fine-tune", project.root)
    plain = model.logits(splits, project.params, project.root)
    logits, features = model.logits_and_features(splits, project.params, project.root)
    for name in ("val", "val_labels", "test", "test_labels"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(logits, name))
    counts = {split: len(splits[split].images) for split in SPLITS}
    assert len(features.plan.levels) > 1
    assert features.val.shape == (counts["val"], sum(features.plan.widths))
    assert features.test.shape[0] == counts["test"]
    assert features.bank.shape[0] == len(features.bank_labels) == counts["train"], "the originals, no copies"
    assert features.val_units.shape == (counts["val"],)
    assert {len(rows) for rows in features.generated.values()} == {PER_KIND}
