import shutil
from pathlib import Path

import pytest

from headstart.tracking.stage_graph import PIPELINE_STAGES
from headstart.tracking.stage_inputs import stage_inputs
from tracking.test_stage_results import make_params

DVC = Path(__file__).parents[2] / "dvc.yaml"
DIGESTS = dict.fromkeys(PIPELINE_STAGES, "0")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copy(DVC, tmp_path)
    (tmp_path / "src/headstart/split").mkdir(parents=True)
    (tmp_path / "src/headstart/split/stage.py").write_text("pass")
    return tmp_path


def test_a_stage_follows_from_the_params_that_dvc_yaml_lists(root: Path) -> None:
    before = stage_inputs("split", make_params(), root, DIGESTS)
    assert before == stage_inputs("split", make_params(train_head={"epochs": 9, "lr": 1}), root, DIGESTS)
    assert before != stage_inputs("split", make_params(seed=1), root, DIGESTS)
    assert before != stage_inputs("split", make_params(launcher="torchrun"), root, DIGESTS)
    one, other = ({"uri": f"http://{name}"} for name in ("one", "other"))
    exports = [stage_inputs("export", make_params(tracking=tracking), root, DIGESTS) for tracking in (one, other)]
    assert exports[0] == exports[1]


def test_a_stage_follows_from_its_code_and_from_what_it_reads(root: Path) -> None:
    before = stage_inputs("split", make_params(), root, DIGESTS)
    (root / "src/headstart/split/__pycache__").mkdir()
    (root / "src/headstart/split/__pycache__/stage.pyc").write_text("1")
    assert before == stage_inputs("split", make_params(), root, DIGESTS)
    assert before != stage_inputs("split", make_params(), root, DIGESTS | {"fetch": "1"})
    (root / "src/headstart/split/stage.py").write_text("pass  # other")
    assert before != stage_inputs("split", make_params(), root, DIGESTS)
    fetch = stage_inputs("fetch", make_params(), root, DIGESTS)
    (root / "data.dvc").write_text("outs: [{md5: changed}]")
    assert fetch != stage_inputs("fetch", make_params(), root, DIGESTS)


def test_it_is_unknown_without_the_pipeline_or_the_results(root: Path, tmp_path: Path) -> None:
    assert stage_inputs("split", make_params(), root, {"weights": "0"}) == ""
    (root / "dvc.yaml").unlink()
    assert stage_inputs("split", make_params(), root, DIGESTS) == ""
