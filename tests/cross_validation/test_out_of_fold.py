"""out-of-fold.json: what is written is read back; a damaged or missing file is one line."""

from pathlib import Path

import numpy as np
import pytest

from examined_pictures import gaussian
from headstart.base.errors import UserError
from headstart.base.files import write_text
from headstart.cross_validation.out_of_fold import out_of_fold_json, read_out_of_fold


def test_rows_come_back(tmp_path: Path) -> None:
    examined, features = gaussian(20, 0)
    head = np.stack([features[:, 0] % 1, 1 - features[:, 0] % 1], axis=1)
    write_text(tmp_path / "out-of-fold.json", out_of_fold_json(examined, {"head": head, "fine_tuned": head[:, ::-1]}))
    rows = read_out_of_fold(tmp_path / "out-of-fold.json")
    assert [row.file_name for row in rows] == [f"{n}.png" for n in range(20)]
    assert [row.fold for row in rows] == examined.fold.tolist()
    assert [row.unit for row in rows] == [f"unit {n}" for n in range(20)]
    assert [row.label for row in rows] == [examined.labels[t] for t in examined.targets]
    np.testing.assert_allclose([row.probabilities["head"] for row in rows], head, atol=1e-6)
    np.testing.assert_allclose([row.probabilities["fine_tuned"] for row in rows], head[:, ::-1], atol=1e-6)


def test_no_cross_validation_is_no_row(tmp_path: Path) -> None:
    write_text(tmp_path / "out-of-fold.json", "[]\n")
    assert read_out_of_fold(tmp_path / "out-of-fold.json") == ()


@pytest.mark.parametrize("text", ['[{"sha256": "a"}]', "[", "\x00"])
def test_a_damaged_file_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "out-of-fold.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"out-of-fold.json: damaged \(.*\); run `dvc repro` to make it anew"):
        read_out_of_fold(path)


def test_a_missing_file_names_the_stage(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file; run the stage that writes it: dvc repro evaluate"):
        read_out_of_fold(tmp_path / "out-of-fold.json")
