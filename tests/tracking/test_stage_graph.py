import re
from pathlib import Path

import yaml

from headstart.tracking.stage_graph import PIPELINE_STAGES, upstream_stages

DVC = Path(__file__).parents[2] / "dvc.yaml"


def test_upstream_stages_are_all_that_a_stage_depends_on() -> None:
    assert upstream_stages("fetch") == []
    assert upstream_stages("augment") == ["fetch", "split"]
    assert upstream_stages("train-head") == ["fetch", "weights", "split", "augment"]
    assert upstream_stages("export") == list(PIPELINE_STAGES[:-1])


def test_the_graph_is_that_of_dvc_yaml() -> None:
    stages = yaml.safe_load(DVC.read_text(encoding="utf-8"))["stages"]
    assert list(stages) == list(PIPELINE_STAGES)
    for name, stage in stages.items():
        inputs = {match[1] for dep in stage["deps"] if (match := re.match(r"stages/([^/]+)", dep))}
        inputs -= {"outside"}  # no stage's folder: fetch keeps there what DVC cannot see of its sources
        upstream = inputs.union(*(upstream_stages(other) for other in inputs))
        assert upstream == set(upstream_stages(name)), name
