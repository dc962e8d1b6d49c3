from pathlib import Path

import yaml

from headstart.tracking.pipeline_files import data_md5, read_pipeline_files

LOCK = """
schema: '2.0'
stages:
  fetch:
    cmd: headstart fetch
    deps: [{path: data, hash: md5, md5: aa.dir}, {path: src/headstart/base, md5: bb.dir}]
  split: {cmd: headstart split, params: {params.yaml: {größe: 1}}}
  export: {cmd: of an earlier variant}
"""


def test_the_lock_holds_the_stages_that_are_in_the_run(tmp_path: Path) -> None:
    assert read_pipeline_files(tmp_path, ["fetch"]) == {}
    (tmp_path / "dvc.lock").write_text(LOCK)
    (tmp_path / "params.yaml").write_text("# mine\nseed: 0\n")
    files = read_pipeline_files(tmp_path, ["fetch", "split"])
    assert files["params.yaml"] == "# mine\nseed: 0\n"
    lock, whole = yaml.safe_load(files["dvc.lock"]), yaml.safe_load(LOCK)
    assert lock == whole | {"stages": {name: whole["stages"][name] for name in ("fetch", "split")}}
    assert "dvc.lock" not in read_pipeline_files(tmp_path, [])


def test_the_hash_of_the_data_is_that_of_this_fetch(tmp_path: Path) -> None:
    assert data_md5(tmp_path, ["fetch"]) == ""
    (tmp_path / "data.dvc").write_text("outs: [{md5: cc.dir, path: data}]")
    (tmp_path / "dvc.lock").write_text(LOCK)
    assert data_md5(tmp_path, ["fetch"]) == "aa.dir"
    assert data_md5(tmp_path, []) == "cc.dir"  # the lock's entry is of the fetch before this one
    (tmp_path / "dvc.lock").write_text("<<<<<<< ours")
    (tmp_path / "data.dvc").write_text("nothing")
    assert data_md5(tmp_path, ["fetch"]) == ""
