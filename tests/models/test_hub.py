"""`weights: hub`, downloaded by timm's and torchvision's own code from a server that speaks their hubs' protocols.

The weights are stand-ins of the right shapes. The recipes' networks are those that the recipes name, whole.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
import yaml
from huggingface_hub import constants
from safetensors.torch import load_file
from torch import Tensor

import hub_server
import tiny
from headstart.base.errors import UserError
from headstart.base.one_line import one_line
from headstart.models import torchvision_detectors
from headstart.models.weights import weights
from headstart.params.reader import load_params
from hub_server import HubServer

ROOT = Path(__file__).parents[2]
REPOSITORY = "timm/test_efficientnet.r160_in1k"  # what timm's name for tiny.TRUNK stands for
WEIGHTS = f"/{REPOSITORY}/resolve/main/model.safetensors"
WITHOUT_LICENCE = "cpubone_nano.r224_in1k"  # one of the few networks of which timm knows none
LITE = "ssdlite320_mobilenet_v3_large"


def use(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """HF_ENDPOINT, which huggingface_hub reads when it is imported."""
    huggingface_hub.close_session()
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """An empty hub, and empty caches for it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)  # as weights.py sets it before the import
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    with hub_server.serving(tmp_path / "served") as server:
        use(monkeypatch, server.url)
        yield server
        huggingface_hub.close_session()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub's retries without their waits, half a minute in all."""
    quick = SimpleNamespace(sleep=lambda _: None)
    monkeypatch.setattr("huggingface_hub.utils._http.time", quick)
    monkeypatch.setattr("huggingface_hub.file_download.time", quick)


def stand_in(name: str, seed: int = 0) -> dict[str, Tensor]:
    """A network's tensors with its classifier, random."""
    torch.manual_seed(seed)
    tensors: dict[str, Tensor] = timm.create_model(name).state_dict()
    return tensors


def run(root: Path, **model: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights stage: what it wrote."""
    if "detector" in model:
        params = tiny.make_detect_params(model={"backbone": "", "pyramid": 256, "weights": "hub", **model})
    else:
        params = tiny.make_params(model={"weights": "hub", **model})
    weights(params, root)
    folder = root / "stages/weights"
    return load_file(folder / "pretrained.safetensors"), json.loads((folder / "weights.json").read_text())


def error_line(root: Path, **model: str) -> str:
    """Why the weights stage failed, after the key."""
    with pytest.raises(UserError) as caught:
        run(root, **model)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("params.yaml: model.weights: 'hub': ")
    return line.removeprefix("params.yaml: model.weights: 'hub': ")


def assert_same(found: dict[str, Tensor], published: dict[str, Tensor]) -> None:
    assert found.keys() < published.keys(), "all but the classifier"
    assert all(torch.equal(tensor, published[name]) for name, tensor in found.items())


def test_the_weights_their_revision_and_licence(hub: HubServer, tmp_path: Path) -> None:
    tensors = stand_in(tiny.TRUNK)
    commit = hub.publish(REPOSITORY, tensors)
    found, facts = run(tmp_path)
    assert_same(found, tensors)
    (stored,) = [path.name for path in (tmp_path / "served/store").iterdir() if path.stat().st_size > 10_000]
    assert (facts["name"], facts["source"], facts["license"]) == (tiny.TRUNK, REPOSITORY, "apache-2.0")
    assert (facts["revision"], facts["source_sha256"]) == (commit, stored)
    assert [(request.method, request.path) for request in hub.requests] == [
        ("HEAD", WEIGHTS),
        ("GET", f"/store/{stored}"),
    ]


def test_a_repository_without_safetensors(hub: HubServer, tmp_path: Path) -> None:
    tensors = stand_in(tiny.TRUNK)
    commit = hub.publish(REPOSITORY, tensors, file="pytorch_model.bin")
    found, facts = run(tmp_path)
    assert_same(found, tensors)
    assert facts["revision"] == commit


@pytest.mark.parametrize("how", ["reached", "unreachable", "failing", "offline"])
def test_what_is_cached_is_not_downloaded_again(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    hub.publish(REPOSITORY, stand_in(tiny.TRUNK))
    first = run(tmp_path)[1]
    hub.requests.clear()
    if how == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    elif how == "unreachable":
        use(monkeypatch, "http://127.0.0.1:9")
    elif how == "failing":
        hub.scripts["HEAD"] = ["503"]
    assert run(tmp_path)[1] == first
    assert hub.paths("GET") == []
    assert len(hub.paths("HEAD")) == (how in ("reached", "failing"))


def test_a_new_commit_is_downloaded_and_named(hub: HubServer, tmp_path: Path) -> None:
    first = hub.publish(REPOSITORY, stand_in(tiny.TRUNK))
    assert run(tmp_path)[1]["revision"] == first
    tensors = stand_in(tiny.TRUNK, seed=1)
    second = hub.publish(REPOSITORY, tensors)
    found, facts = run(tmp_path)
    assert facts["revision"] == second != first
    assert_same(found, tensors)


@pytest.mark.usefixtures("impatient")
def test_a_body_that_breaks_off_is_resumed(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # of 10 MB: what is less is not written before the cut
    tensors = stand_in(tiny.TRUNK)
    hub.publish(REPOSITORY, tensors)
    hub.scripts["GET /store/"] = ["cut", "cut"]
    assert_same(run(tmp_path)[0], tensors)
    ranges = [request.range for request in hub.requests if request.method == "GET"]
    starts = [int(each.removeprefix("bytes=").removesuffix("-") or 0) for each in ranges]
    assert starts == sorted(set(starts))
    assert len(starts) == 3
    assert starts[0] == 0


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", ["503", "429"])
def test_a_server_that_is_busy_is_asked_again(hub: HubServer, tmp_path: Path, fault: str) -> None:
    tensors = stand_in(tiny.TRUNK)
    hub.publish(REPOSITORY, tensors)
    hub.scripts["HEAD"] = [fault]
    assert_same(run(tmp_path)[0], tensors)


def test_a_server_that_is_slow_is_waited_for(hub: HubServer, tmp_path: Path) -> None:
    hub.publish(REPOSITORY, stand_in(tiny.TRUNK))
    hub.scripts = {"HEAD": ["wait"], "GET": ["wait"]}
    run(tmp_path)
    assert hub.scripts == {"HEAD": [], "GET": []}


@pytest.mark.parametrize("fault", ["flip_first", "flip_last"])
def test_bytes_that_are_not_those_of_the_hash(hub: HubServer, tmp_path: Path, fault: str) -> None:
    """Whether the file can still be read or not; what the line asks for helps."""
    tensors = stand_in(tiny.TRUNK)
    hub.publish(REPOSITORY, tensors)
    hub.scripts["GET /store/"] = [fault]
    line = error_line(tmp_path)
    name, file, reason = line.split(": ", 1)[0], *line.split(": ", 1)[1].split(" is damaged ")
    assert name == tiny.TRUNK
    assert reason.endswith("remove it, and the same command downloads it again")
    assert not (tmp_path / "stages").exists()
    assert error_line(tmp_path) == line
    Path(file).unlink()
    assert_same(run(tmp_path)[0], tensors)


def test_a_licence_that_only_the_model_card_has(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = timm.get_pretrained_cfg(WITHOUT_LICENCE)
    assert config is not None
    assert not config.license
    commit = hub.publish(f"timm/{WITHOUT_LICENCE}", stand_in(WITHOUT_LICENCE), card="cc-by-4.0")
    _, facts = run(tmp_path, backbone=WITHOUT_LICENCE)
    assert (facts["revision"], facts["license"]) == (commit, "cc-by-4.0")
    use(monkeypatch, "http://127.0.0.1:9")
    assert run(tmp_path, backbone=WITHOUT_LICENCE)[1] == facts


def test_no_licence(hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub.publish(f"timm/{WITHOUT_LICENCE}", stand_in(WITHOUT_LICENCE), card="")
    assert run(tmp_path, backbone=WITHOUT_LICENCE)[1]["license"] == "unknown"
    line = f"weights: the licence is unknown: no model card of timm/{WITHOUT_LICENCE} (HTTP 404)"
    assert line in capsys.readouterr().out.splitlines()


@pytest.mark.usefixtures("impatient")
def test_a_server_that_cannot_be_reached(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, "http://127.0.0.1:9")
    line = error_line(tmp_path)
    assert line.startswith(f"{tiny.TRUNK} cannot be downloaded from http://127.0.0.1:9/{REPOSITORY} ([Errno ")
    assert line.endswith(
        "] Connection refused); run it again later, or set model.weights to bundled, none or the path of a file"
    )


def test_offline_and_not_cached(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    line = error_line(tmp_path)
    assert "(HF_HUB_OFFLINE is set, and it is not cached); unset it, or set model.weights to" in line
    assert not hub.requests


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("status", ["404", "500", "503"])
@pytest.mark.parametrize("request_line", ["HEAD", "GET"])
def test_a_server_that_answers_with_an_error(hub: HubServer, tmp_path: Path, status: str, request_line: str) -> None:
    hub.publish(REPOSITORY, stand_in(tiny.TRUNK))
    hub.scripts[request_line] = [status] * 20
    assert f" (HTTP {status}); run it again later, or set model.weights to" in error_line(tmp_path)


def test_a_repository_that_is_gone(hub: HubServer, tmp_path: Path) -> None:
    assert f"from {hub.url}/{REPOSITORY} (HTTP 404)" in error_line(tmp_path)


def test_a_gated_repository(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token that the line asks for opens it, and stays at the hub."""
    hub.publish(REPOSITORY, stand_in(tiny.TRUNK))
    hub.gated.add(REPOSITORY)
    line = error_line(tmp_path)
    assert (
        f"from {hub.url}/{REPOSITORY} (HTTP 401); if that page asks for it, accept its terms and set HF_TOKEN" in line
    )
    monkeypatch.setenv("HF_TOKEN", "hf_standin")
    hub.requests.clear()
    run(tmp_path)
    assert [(request.method, request.has_token) for request in hub.requests] == [("HEAD", True), ("GET", False)]


@pytest.mark.usefixtures("impatient")
def test_a_repository_that_the_token_does_not_open(hub: HubServer, tmp_path: Path) -> None:
    hub.scripts["HEAD"] = ["403"] * 9
    assert "(HTTP 403); if that page asks for it, accept its terms and set HF_TOKEN" in error_line(tmp_path)


@pytest.mark.parametrize("name", [tiny.TRUNK, LITE])
def test_a_full_disk_is_named_by_the_cache(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Here the largest size of a file that the kernel allows."""
    hub.publish(REPOSITORY, stand_in(tiny.TRUNK))
    publish_detector(hub, monkeypatch)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            run(tmp_path, **({"detector": name} if name == LITE else {}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    line = one_line(caught.value)
    assert line is not None
    assert line.startswith(str(tmp_path / ("torch/hub/checkpoints/" if name == LITE else "cache")))
    assert "ulimit -f unlimited" in line
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".incomplete", ".partial")]


def publish_detector(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Tensor], str]:
    """A stand-in for the COCO weights, at the address where torchvision then looks for them."""
    torch.manual_seed(0)
    tensors = torchvision_detectors.create_detector(LITE, 90).state_dict()
    from torchvision.models import get_model_weights

    published = get_model_weights(LITE).DEFAULT.value
    assert published.url.startswith("https://download.pytorch.org/models/")
    monkeypatch.setattr(published, "url", hub.publish_for_torch(f"{LITE}_coco", tensors))
    return tensors, published.url


def test_a_detector_of_torchvisions(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors, url = publish_detector(hub, monkeypatch)
    found, facts = run(tmp_path, detector=LITE)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in found.items())
    assert any("classification_head" in name for name in found), "the predictor of COCO's labels too"
    assert (facts["source"], facts["license"]) == (f"{url} (COCO)", "BSD-3-Clause")
    assert url.endswith(f"-{facts['source_sha256'][:8]}.pth")
    hub.scripts["GET"] = ["503"]
    assert run(tmp_path, detector=LITE)[1] == facts
    assert len(hub.requests) == 1


@pytest.mark.parametrize("fault", ["cut", "flip_last"])
def test_torchvisions_download_that_fails_leaves_nothing(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """torch.hub does not resume; the next run begins anew."""
    tensors, url = publish_detector(hub, monkeypatch)
    hub.scripts["GET"] = [fault]
    line = error_line(tmp_path, detector=LITE)
    assert line.startswith(f"{LITE} cannot be downloaded from {url} (invalid hash value (expected ")
    assert not list((tmp_path / "torch/hub/checkpoints").iterdir())
    found, _ = run(tmp_path, detector=LITE)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in found.items())


def test_a_damaged_file_in_torchs_cache(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it can still be read or not; what the line asks for helps."""
    _, url = publish_detector(hub, monkeypatch)
    _, facts = run(tmp_path, detector=LITE)
    cached = tmp_path / "torch/hub/checkpoints" / Path(url).name
    whole = cached.read_bytes()
    for damaged in (whole[:-1] + b"?", whole[: len(whole) // 2]):
        cached.write_bytes(damaged)
        line = error_line(tmp_path, detector=LITE)
        assert line.startswith(f"{LITE}: {cached} is damaged (its SHA-256 is ")
    cached.unlink()
    assert run(tmp_path, detector=LITE)[1] == facts


@pytest.mark.parametrize("status", ["403", "404", "503"])
def test_torchvisions_server_answers_with_an_error(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    _, url = publish_detector(hub, monkeypatch)
    hub.scripts["GET"] = [status]
    assert f"{LITE} cannot be downloaded from {url} (HTTP {status})" in error_line(tmp_path, detector=LITE)


def test_torchvisions_server_cannot_be_reached(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, url = publish_detector(hub, monkeypatch)
    from torchvision.models import get_model_weights

    monkeypatch.setattr(get_model_weights(LITE).DEFAULT.value, "url", url.replace(hub.url, "http://127.0.0.1:9"))
    assert "] Connection refused>)" in error_line(tmp_path, detector=LITE)


def test_a_network_of_timms_that_is_on_no_hub(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm itself would not look at the hash in its name."""
    tensors = stand_in(tiny.TRUNK)
    url = hub.publish_for_torch("stand_in", tensors)
    config = timm.models._registry._model_pretrained_cfgs[f"{tiny.TRUNK}.r160_in1k"]
    monkeypatch.setattr(config, "hf_hub_id", None)
    monkeypatch.setattr(config, "url", url)
    hub.scripts["GET"] = ["flip_last"]
    assert f"cannot be downloaded from {url} (invalid hash value (expected " in error_line(tmp_path)
    found, facts = run(tmp_path)
    assert_same(found, tensors)
    assert facts["source"] == url
    assert url.endswith(f"-{facts['source_sha256'][:8]}.pth")
    assert facts["license"] == "apache-2.0"
    assert "revision" not in facts


COMMAND = """
import sys
from headstart import cli
from headstart.tracking import recorder
recorder._start_process = lambda: None
sys.argv = ["headstart", "weights"]
cli.main()
"""


def test_the_command(hub: HubServer, tmp_path: Path) -> None:
    """With nothing but HF_ENDPOINT and HF_HOME in its environment."""
    hub.publish(REPOSITORY, stand_in(tiny.TRUNK))
    hub.scripts["GET /store/"] = ["500"]
    values = tiny.make_params(model={"weights": "hub"}).model_dump(mode="json", exclude_defaults=True)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "MLFLOW_"))}
    where = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", COMMAND]
    done = subprocess.run(command, cwd=tmp_path, env=kept | where, text=True, capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: params.yaml: model.weights: 'hub': test_efficientnet cannot be downloaded ")
    assert f"from {hub.url}/{REPOSITORY} (HTTP 500); run it again later" in done.stderr
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "home/hub").is_dir()
    assert [request.method for request in hub.requests] == ["HEAD", "GET"], "no telemetry"


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("recipe", "licence"), [("alpaca", "apache-2.0"), ("lucy", "bsd-3-clause"), ("shoes", "bsd-3-clause")]
)
def test_the_weights_of_a_recipe(hub: HubServer, tmp_path: Path, recipe: str, licence: str) -> None:
    """As written: the whole network from its own repository, cut once. All stages: benchmarks/hub_recipes.py."""
    params = load_params(ROOT / f"recipes/{recipe}.yaml")
    name = params.model.backbone
    with torch.device("meta"):
        shapes = timm.create_model(name).state_dict()
    tensors = {key: torch.full(tensor.shape, 0.5, dtype=tensor.dtype) for key, tensor in shapes.items()}
    commit = hub.publish(f"timm/{name}", tensors)
    hub.scripts["GET /store/"] = ["cut"]
    weights(params, tmp_path)
    facts = tiny.read_json(tmp_path / "stages/weights/weights.json")
    assert (facts["source"], facts["revision"], facts["license"]) == (f"timm/{name}", commit, licence)
    assert len(hub.paths("GET")) == 2
    size = sum(path.stat().st_size for path in (tmp_path / "served/store").iterdir())
    assert (hub.requests[-1].range != "") == (size > 2 * constants.DOWNLOAD_CHUNK_SIZE)
    found = load_file(tmp_path / "stages/weights/pretrained.safetensors")
    assert found.keys() < tensors.keys()
    assert all(bool((tensor == torch.full((), 0.5, dtype=tensor.dtype)).all()) for tensor in found.values())
    shutil.rmtree(tmp_path)
