"""The sentence for a head-only model that was kept."""

import pytest

from headstart.base.kept_head import kept_head_sentence

CHANGE = {
    "best_epoch": 0,
    "val_loss_change": -0.049,
    "val_loss_change_error": 0.0751,
    "val_loss_change_epoch": 1,
    "val_loss_change_pictures": 39,
}


@pytest.mark.parametrize(
    ("metrics", "sentence"),
    [
        (
            {"best_epoch": 0},
            "No epoch of fine-tuning beat the head alone; the head-only model was kept; try a rate of 3.3e-04 "
            "(`headstart lr-find fine-tune` suggests a rate; the val loss decides).",
        ),
        (
            CHANGE,
            "The head-only model was kept: the val loss of epoch 1, the lowest, differs from the head's by -0.049 on "
            "39 pictures, and its standard error is 0.075; more val pictures may tell, or fine_tune.keep: lowest takes "
            "that epoch.",
        ),
        (
            {key: value for key, value in CHANGE.items() if key != "val_loss_change_error"},
            "The head-only model was kept: the val loss of epoch 1, the lowest, differs from the head's by -0.049 on "
            "39 pictures, and they are one unit, which has no standard error; more val pictures may tell, or "
            "fine_tune.keep: lowest takes that epoch.",
        ),
    ],
    ids=["no lower loss", "within the noise", "one unit"],
)
def test_the_sentence_says_why_the_head_was_kept(metrics: dict[str, float], sentence: str) -> None:
    assert kept_head_sentence(1e-3, metrics) == sentence
