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
            "(`headstart lr-find fine-tune` suggests a rate; val decides).",
        ),
        (
            CHANGE,
            "Fine-tuning was not kept, but the head-only model: its best epoch (1) lowered the val loss by 0.049 ± "
            "0.075 (standard error, 39 pictures), which may be chance. fine_tune.keep: lowest keeps it all the same.",
        ),
        (
            {key: value for key, value in CHANGE.items() if key != "val_loss_change_error"},
            "Fine-tuning was not kept, but the head-only model: its best epoch (1) lowered the val loss by 0.049, but "
            "the 39 pictures of val are one unit, which has no standard error. fine_tune.keep: lowest keeps it all the "
            "same.",
        ),
    ],
    ids=["no lower loss", "within the noise", "one unit"],
)
def test_the_sentence_says_why_the_head_was_kept(metrics: dict[str, float], sentence: str) -> None:
    assert kept_head_sentence(1e-3, metrics) == sentence
