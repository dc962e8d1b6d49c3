"""Weights that timm and torchvision download (`weights: hub`): checked, with their revision and licence.

The downloads are huggingface_hub's and torch.hub's own, and so are the caches (HF_HOME, TORCH_HOME): what is cached
needs no network.
"""

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError

import torch
from torch import Tensor, nn
from yaml import YAMLError

from headstart.base.errors import UserError, first_line
from headstart.base.files import name_write_errors, sha256_file
from headstart.base.one_line import one_line
from headstart.models.backbone import check_backbone, create_backbone

_WHERE = "params.yaml: model.weights: 'hub'"
_OTHERWISE = "set model.weights to bundled, none or the path of a file"
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")  # PyTorch's convention: NAME-<first digits of the SHA-256>.pth

Facts = dict[str, object]  # a part of weights.json
T = TypeVar("T")


def backbone_from_hub(name: str) -> tuple[nn.Module, Facts]:
    """A timm network with its pretrained weights, and where they are from.

    Raises:
        UserError: timm has no network or no weights of that name, they cannot be downloaded, or the file is damaged.
        OSError: the cache cannot be written.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read once, when timm imports huggingface_hub
    import timm
    from timm.models import set_pretrained_check_hash

    check_backbone(name)
    if not timm.is_model_pretrained(name):
        raise UserError(f"{_WHERE}: timm has no pretrained weights for {name}; choose another backbone")
    config = timm.get_pretrained_cfg(name)
    assert config is not None
    check: Callable[[], Facts]
    if repository := config.hf_hub_id:
        from huggingface_hub import constants

        source, address, cache = repository, f"{constants.ENDPOINT}/{repository}", Path(constants.HF_HUB_CACHE)
        check = partial(_check_snapshot, name, repository)
    else:
        assert isinstance(config.url, str)
        # Of a few files' names torch takes a number of epochs for the hash: vit.h.14-300e.pth.tar.
        set_pretrained_check_hash(bool(_hash_in_name(config.url)))
        source, address, cache = config.url, config.url, _torch_hub_file(config.url)
        check = partial(_check_torch_hub_file, name, address)
    load = partial(create_backbone, name, pretrained=True)
    network, facts = _download(load, check, name=name, address=address, cache=cache)
    licence = config.license
    if licence in (None, "", "unknown") and "revision" in facts:
        licence = _licence_of_card(source, str(facts["revision"]))
    return network, {"name": name, "source": source, **facts, "license": licence or "unknown"}


def detector_from_hub(name: str) -> tuple[dict[str, Tensor], Facts]:
    """The tensors of a complete detector that torchvision has trained on COCO, and where they are from.

    Raises:
        UserError: they cannot be downloaded, or the file is damaged.
        OSError: the cache cannot be written.
    """
    from torchvision.models import get_model_weights

    weights = get_model_weights(name).DEFAULT
    tensors, facts = _download(
        partial(weights.get_state_dict, progress=False, check_hash=True, map_location="cpu", weights_only=True),
        partial(_check_torch_hub_file, name, weights.url),
        name=name,
        address=weights.url,
        cache=_torch_hub_file(weights.url),
    )
    return tensors, {"name": name, "source": f"{weights.url} (COCO)", **facts, "license": "BSD-3-Clause"}


def _download(
    load: Callable[[], T], check: Callable[[], Facts], *, name: str, address: str, cache: Path
) -> tuple[T, Facts]:
    """Load weights through a library that downloads what is not cached, and check the cached file.

    Args:
        load: returns the weights.
        check: returns facts about the cached file, none if there is no file; raises a UserError if it is damaged.
        name: of the network.
        address: where the weights are published.
        cache: file or folder that the library writes; errors of the disk that name no file get its name.

    Raises:
        UserError: the download fails, or the file is damaged.
        OSError: the disk is full, or a folder forbidden.
    """
    try:
        with name_write_errors(cache, cache):
            loaded = load()
    except Exception as error:  # httpx's, safetensors' and pickle's have no base class in common
        if one_line(error):
            raise
        check()  # that the file is damaged explains more than what the library met in it
        reason, fix = _explain(error)
        if isinstance(error, HTTPError):
            error.close()  # urllib's is the response too
        raise UserError(f"{_WHERE}: {name} cannot be downloaded from {address} ({reason}); {fix}") from error
    return loaded, check()


def _check_snapshot(name: str, repository: str) -> Facts:
    """Check the file that timm has loaded from huggingface_hub's cache, `…/snapshots/<commit>/model.safetensors`.

    It is a link to a blob, which has the SHA-256 that the hub gives as its name; huggingface_hub compares only sizes.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    names = (constants.SAFETENSORS_SINGLE_FILE, constants.PYTORCH_WEIGHTS_NAME)  # timm's order
    found = (try_to_load_from_cache(repository, each) for each in names)
    file = next((Path(path) for path in found if isinstance(path, str)), None)
    if file is None:
        return {}
    blob = file.readlink().name if file.is_symlink() else ""  # Windows may have no links
    sha256 = _check_hash(name, file, blob if re.fullmatch(r"[0-9a-f]{64}", blob) else "")
    return {"revision": file.parent.name, "source_sha256": sha256}


def _check_torch_hub_file(name: str, url: str) -> Facts:
    """Check the file that torch.hub has cached; torch.hub itself checks it only when it downloads it."""
    file = _torch_hub_file(url)
    return {"source_sha256": _check_hash(name, file, _hash_in_name(url))} if file.is_file() else {}


def _torch_hub_file(url: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def _hash_in_name(url: str) -> str:
    """First digits of the SHA-256, as a file's name has them; empty where it has none."""
    match = _HASH_IN_NAME.search(url.rpartition("/")[2])
    return match[1] if match else ""


def _check_hash(name: str, file: Path, expected: str) -> str:
    """SHA-256 of a cached file.

    Raises:
        UserError: it does not begin with `expected`.
    """
    found = sha256_file(file)
    if not found.startswith(expected):
        raise UserError(
            f"{_WHERE}: {name}: {file.resolve()} is damaged (its SHA-256 is {found[:8]}…, not {expected[:8]}…); "
            "remove it, and the same command downloads it again"
        )
    return found


def _licence_of_card(repository: str, revision: str) -> str:
    """Licence in the model card of that revision, for weights of which timm knows none; empty where there is none."""
    from huggingface_hub import ModelCard, constants, hf_hub_download

    try:
        card = ModelCard.load(hf_hub_download(repository, constants.REPOCARD_NAME, revision=revision))
    except (OSError, ValueError, YAMLError) as error:
        print(f"weights: the licence is unknown: no model card of {repository} ({_explain(error)[0]})")
        return ""
    return str(card.data.license_name or card.data.license or "")


def _explain(error: Exception) -> tuple[str, str]:
    """Why a download failed, and what to do."""
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    cause: BaseException = error
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__:  # itself it is only that nothing is cached
        cause = error.__cause__
    if isinstance(cause, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, and it is not cached", f"unset it, or {_OTHERWISE}"
    status = _http_status(cause)
    if status in (401, 403):
        return f"HTTP {status}", f"if that page asks for it, accept its terms and set HF_TOKEN; else {_OTHERWISE}"
    reason = f"HTTP {status}" if status else first_line(cause)[:120]
    return reason, f"run it again later, or {_OTHERWISE}"


def _http_status(error: BaseException) -> int | None:
    """Status of the response that huggingface_hub (`response`) or urllib (`code`) has made an error; else None."""
    response: Any = getattr(error, "response", None)
    status = getattr(response, "status_code", None) or getattr(error, "code", None)
    return status if isinstance(status, int) else None
