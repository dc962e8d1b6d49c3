"""Hugging Face's hub, the store behind it and torchvision's downloads, as their clients ask for them, on this machine.

What huggingface_hub asks for a file of a repository:

- HEAD /REPOSITORY/resolve/REVISION/FILE. Weights are in the store: 302 to it, with the commit (X-Repo-Commit), the
  SHA-256 (X-Linked-Etag) and the size (X-Linked-Size). Texts: 307 to a path of the hub, with git's SHA-1 as the ETag.
- GET of that store, at another origin, with a Range where a body broke off.

torch.hub asks for /models/NAME-HASH.pth, without ranges; HASH is the beginning of its SHA-256.
"""

import hashlib
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

import torch
from safetensors.torch import save_file
from torch import Tensor

IN_STORE = (".safetensors", ".bin")
CARD = "---\nlicense: {licence}\nlibrary_name: timm\n---\n# Model card\n"


@dataclass(frozen=True)
class Request:
    """One request: method, path, the Range asked for, and whether it carried a token."""

    method: str
    path: str
    range: str
    has_token: bool


@dataclass
class HubServer:
    """The published files at http://127.0.0.1:PORT, and the faults of their responses.

    Attributes:
        folder: where the published files lie.
        url: of the hub and of torchvision's downloads.
        store_url: of the store.
        scripts: a part of `METHOD PATH` -> the faults of its next responses, in order: an HTTP status, `cut` (half
            of the body, then the connection ends), `flip_first` or `flip_last` (that byte is another), `wait`.
        latency: seconds that `wait` takes.
        gated: repositories for which a token is needed.
        requests: in order.
    """

    folder: Path
    url: str = ""
    store_url: str = ""
    scripts: dict[str, list[str]] = field(default_factory=dict)
    latency: float = 0.2
    gated: set[str] = field(default_factory=set)
    requests: list[Request] = field(default_factory=list)
    _commits: dict[tuple[str, str], dict[str, Path]] = field(default_factory=dict)
    _newest: dict[str, str] = field(default_factory=dict)

    def publish(
        self, repository: str, tensors: Mapping[str, Tensor], file: str = "model.safetensors", card: str = "apache-2.0"
    ) -> str:
        """A commit of a repository: the weights, and a model card with that licence, if any. Returns its hash."""
        part = self.folder / "part"
        save_file(dict(tensors), part) if file.endswith(".safetensors") else torch.save(dict(tensors), part)
        files = {file: self._keep(part)}
        if card:
            part.write_text(CARD.format(licence=card))
            files["README.md"] = self._keep(part)
        commit = hashlib.sha1(repr((repository, files)).encode()).hexdigest()
        self._commits[repository, commit] = files
        self._newest[repository] = commit
        return commit

    def publish_for_torch(self, name: str, tensors: Mapping[str, Tensor]) -> str:
        """A file of torchvision's; returns its address."""
        part = self.folder / "part"
        torch.save(dict(tensors), part)
        kept = self._keep(part)
        path = f"models/{name}-{kept.name[:8]}.pth"
        (self.folder / "models").mkdir(exist_ok=True)
        kept.rename(self.folder / path)
        return f"{self.url}/{path}"

    def paths(self, method: str) -> list[str]:
        """Paths of the requests so far."""
        return [request.path for request in self.requests if request.method == method]

    def _keep(self, part: Path) -> Path:
        """A file of the store, named by its SHA-256."""
        with part.open("rb") as file:
            kept = self.folder / "store" / hashlib.file_digest(file, "sha256").hexdigest()
        kept.parent.mkdir(exist_ok=True)
        return part.rename(kept)

    def _fault(self, line: str) -> str:
        return next((faults.pop(0) for key, faults in self.scripts.items() if key in line and faults), "")

    def _find(self, repository: str, revision: str, name: str) -> tuple[str, Path | None]:
        """The commit that a revision stands for, empty if there is none; and the file in it."""
        commit = self._newest.get(repository, "") if revision == "main" else revision
        files = self._commits.get((repository, commit))
        return ("", None) if files is None else (commit, files.get(name))


class _Listener(ThreadingHTTPServer):
    daemon_threads = True  # connections that clients keep open do not keep the server

    def __init__(self, hub: HubServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub

    def handle_error(self, *_: Any) -> None:
        """A client that leaves before the end of a body is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener

    def do_GET(self) -> None:
        hub = self.server.hub
        path = unquote(urlsplit(self.path).path)
        has_token = "Authorization" in self.headers
        hub.requests.append(Request(self.command, path, self.headers.get("Range", ""), has_token))
        fault = hub._fault(f"{self.command} {path}")
        if fault == "wait":
            time.sleep(hub.latency)
        if fault.isdigit():
            self._send(int(fault))
        elif match := re.fullmatch(r"/(?:api/resolve-cache/models/)?(.+?)(?:/resolve)?/(main|[0-9a-f]{40})/(.+)", path):
            self._resolve(match[1], match[2], match[3], fault)
        elif re.fullmatch(r"/(store|models)/[^/]+", path) and (file := hub.folder / path[1:]).is_file():
            self._send_file(file, {"ETag": f'"{file.name}"'}, fault)
        else:
            self._send(404)

    do_HEAD = do_GET  # noqa: N815 (http.server's name)

    def _resolve(self, repository: str, revision: str, name: str, fault: str) -> None:
        hub = self.server.hub
        commit, file = hub._find(repository, revision, name)
        if repository in hub.gated and "Authorization" not in self.headers:
            self._send(401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to this model is restricted."})
        elif not commit:
            self._send(404, {"X-Error-Code": "RepoNotFound"})
        elif file is None:
            self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        elif name.endswith(IN_STORE):
            linked = {"X-Linked-Etag": f'"{file.name}"', "X-Linked-Size": str(file.stat().st_size)}
            location = f"{hub.store_url}/store/{file.name}"
            self._send(302, {"X-Repo-Commit": commit, "Location": location} | linked)
        elif not self.path.startswith("/api/resolve-cache/"):
            location = f"/api/resolve-cache/models/{repository}/{commit}/{name}"
            self._send(307, {"X-Repo-Commit": commit, "Location": location})
        else:
            etag = hashlib.sha1(b"blob %d\0" % file.stat().st_size + file.read_bytes()).hexdigest()
            self._send_file(file, {"X-Repo-Commit": commit, "ETag": f'"{etag}"'}, fault)

    def _send(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": "0", **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()

    def _send_file(self, path: Path, headers: dict[str, str], fault: str) -> None:
        size = path.stat().st_size
        asked = self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        if asked:
            headers |= {"Content-Range": f"bytes {start}-{size - 1}/{size}"}
        self._send(206 if asked else 200, {"Accept-Ranges": "bytes", **headers, "Content-Length": str(size - start)})
        if self.command == "HEAD":
            return
        with path.open("rb") as file:
            file.seek(start)
            self._send_body(file, size - start, fault)

    def _send_body(self, file: BinaryIO, length: int, fault: str) -> None:
        if fault == "cut":
            self.wfile.write(file.read(length // 2))
            self.close_connection = True
        elif fault.startswith("flip"):
            data = bytearray(file.read())
            data[0 if fault == "flip_first" else -1] ^= 1
            self.wfile.write(data)
        else:
            shutil.copyfileobj(file, self.wfile, 1 << 20)

    def log_message(self, *_: Any) -> None:
        """Nothing: `requests` has them."""


@contextmanager
def serving(folder: Path) -> Iterator[HubServer]:
    """A server in threads of this process, its files in a new folder."""
    folder.mkdir()
    hub = HubServer(folder)
    listeners = [_Listener(hub) for _ in range(2)]
    threads = [Thread(target=each.serve_forever, args=(0.02,), daemon=True) for each in listeners]
    hub.url, hub.store_url = (f"http://127.0.0.1:{each.server_port}" for each in listeners)
    try:
        for thread in threads:
            thread.start()
        yield hub
    finally:
        for listener, thread in zip(listeners, threads, strict=True):
            listener.shutdown()
            listener.server_close()
            thread.join()
