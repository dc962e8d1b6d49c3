import json
from pathlib import Path

from headstart.params.root import Params
from headstart.tracking import stage_results


def make_params(**changes: object) -> Params:
    values: dict[str, object] = {
        "task": "classify",
        "seed": 0,
        "model": {"backbone": "tiny_net", "weights": "none", "image_size": 32},
        "fetch": {"sources": [{"table": "data/cells.csv"}, {"folder": "data/hike", "split": "test"}]},
        "split": {},
        "augment": {},
        "train": {},
        "train_head": {"epochs": 3, "lr": 0.001},
        "fine_tune": {"epochs": 2, "lr": 0.0001, "freeze_depth": 1},
        "evaluate": {},
        "export": {},
    }
    return Params.model_validate(values | changes)


def test_results_digest_covers_results_only(tmp_path: Path) -> None:
    assert stage_results.results_digest(tmp_path) == ""
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    before = stage_results.results_digest(tmp_path)
    (tmp_path / "history.csv").write_text("epoch,seconds\n1,2.5\n")
    assert stage_results.results_digest(tmp_path) == before
    (tmp_path / "metrics.json").write_text("{}")
    assert stage_results.results_digest(tmp_path) != before


def test_artifacts_digest_covers_the_files_that_a_run_holds(tmp_path: Path) -> None:
    assert stage_results.artifacts_digest(tmp_path) == ""
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert stage_results.artifacts_digest(tmp_path) == ""
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots/roc.svg").write_text("<svg/>")
    before = stage_results.artifacts_digest(tmp_path)
    (tmp_path / "report.html").write_text("<p>")
    after = stage_results.artifacts_digest(tmp_path)
    (tmp_path / "plots/roc.svg").write_text("<svg></svg>")
    assert len({before, after, stage_results.artifacts_digest(tmp_path), ""}) == 4


def test_inputs_digest_covers_values_and_data(tmp_path: Path) -> None:
    digest = stage_results.inputs_digest(make_params(), tmp_path)
    assert stage_results.inputs_digest(make_params(tracking={"experiment": "other"}), tmp_path) == digest
    assert stage_results.inputs_digest(make_params(seed=1), tmp_path) != digest
    (tmp_path / "data.dvc").write_text("outs: [{md5: 0123}]")
    assert stage_results.inputs_digest(make_params(), tmp_path) != digest


def test_params_are_flat_truncated_and_without_the_tracking_server(tmp_path: Path) -> None:
    sources = [{"folder": f"data/class-{index:03d}"} for index in range(100)]
    flat = stage_results.flat_params(
        make_params(
            fetch={"sources": [{"table": "https://user:secret@word@host/a.csv"}, *sources]},
            tracking={"uri": "http://user:secret@host"},
        )
    )
    assert flat["train_head.lr"] == "0.001"
    assert flat["model.head.batch_norm"] == "false"
    assert flat["fetch.sources"].endswith("…")
    assert max(map(len, flat.values())) == stage_results.MAX_PARAM_LENGTH
    assert not any("secret" in value or "word" in value for value in flat.values())
    assert "https://…@host/a.csv" in flat["fetch.sources"]
    (tmp_path / "weights.json").write_text(json.dumps({"name": "lite0", "licence": None, "mean": [0.5]}))
    assert stage_results.weights_params(tmp_path) == {"weights.name": "lite0"}


def test_dataset_is_named_after_its_sources() -> None:
    assert stage_results.dataset_name(make_params()) == "cells+hike"
