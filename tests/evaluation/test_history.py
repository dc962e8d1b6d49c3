"""history.csv: what is not one is named."""

from pathlib import Path

import pytest

from headstart.base.errors import UserError
from headstart.evaluation.history import History, read_history
from synthetic_logits import make_history


def test_a_history_reads_back(tmp_path: Path) -> None:
    history = read_history(make_history(tmp_path / "history.csv", 2, "AP50"), "AP50")
    assert history == History((1, 2), (1, 0.5), (1.2, 0.6), (0.5, 0.75), (0.001, 0), "AP50")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected epochs with columns epoch, train_loss"),
        ("epoch,loss\n1,2\n", "expected epochs with columns epoch, train_loss"),
        ("epoch,train_loss,val_loss,val_accuracy,lr\n1,2,3,x,4\n", "could not convert string to float: 'x'"),
    ],
)
def test_a_file_that_is_no_history_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "history.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=f"history.csv: {message}.*dvc repro"):
        read_history(path)


def test_a_missing_history_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.csv: no such file"):
        read_history(tmp_path / "none.csv")
