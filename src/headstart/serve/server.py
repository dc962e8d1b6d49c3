"""`headstart serve`: the exported model's web app in uvicorn, until Ctrl-C or SIGTERM."""

import asyncio
import errno
import ipaddress
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from headstart.base.errors import UserError
from headstart.serve.app import create_app
from headstart.serve.examples import find_examples
from headstart.serve.host_names import ANY, machine_names, parse_name
from headstart.serve.model_info import load_model_info
from headstart.serve.prediction_service import ServedOnnxModel
from headstart.serve.request_limits import Ending


def serve(model: Path, host: str, port: int, allow_hosts: Sequence[str] = ()) -> None:
    """Serve an exported model. Requests in progress at the end are completed, for at most ten seconds.

    Args:
        model: the folder with model.onnx and labels.json.
        host: address to listen on.
        port: to listen on; 0: any that is free.
        allow_hosts: further names, beside this machine's own, that requests may call the server by; `*`: any.

    Raises:
        UserError: there is no model, or the port cannot be opened.
    """
    if not host:
        raise UserError("--host '': empty; give 127.0.0.1, or 0.0.0.0 for others on the network too")
    names = [*machine_names(), *map(parse_name, allow_hosts)]
    if not _is_address(host):
        names.append(host)
    ending = Ending()
    app = create_model_app(model, hosts=names, ending=ending)
    with _open_socket(host, port) as listening:
        print(f"serve: http://{_url_host(host)}:{listening.getsockname()[1]} (Ctrl-C ends)", flush=True)
        print(f"serve: accepts requests to {_accepted(names)}", flush=True)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_graceful_shutdown=10, timeout_keep_alive=30
        )
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # uvicorn passes on what it has caught
        with suppress(KeyboardInterrupt):  # raised when uvicorn has shut down
            _Server(config, ending).run(sockets=[listening])
        print("serve: ended")


def _url_host(host: str) -> str:
    """The host in an address for this machine's own browser; 0.0.0.0 is none that every browser opens."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (compared, not bound)
    return f"[{host}]" if ":" in host else host


def _accepted(names: Sequence[str]) -> str:
    """For the terminal: what a request may call the server."""
    if ANY in names:
        return "any name: every website that a visitor has open can then read the answers (DNS rebinding)"
    return f"{', '.join(dict.fromkeys(names))} and this machine's addresses; for another name: --allow-host NAME"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ending: Ending) -> None:
        super().__init__(config)
        self._ending = ending

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._loop.call_soon_threadsafe(self._ending.begin)


def create_model_app(model: Path, hosts: Sequence[str] | None = None, ending: Ending | None = None) -> FastAPI:
    """`create_app` for an exported model's folder and the evaluation beside it.

    Raises:
        UserError: there is no model.
    """
    examples = find_examples(model)
    served = ServedOnnxModel(model)
    return create_app(served, load_model_info(model, examples), examples, hosts=hosts, ending=ending)


def _open_socket(host: str, port: int) -> socket.socket:
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        reason = str(error).partition(" (while")[0]
        number = getattr(error, "errno", None) or 0
        if number < 0 or number == errno.EADDRNOTAVAIL:  # negative: of getaddrinfo
            fix = "give an address of this machine, such as --host 127.0.0.1"
        else:
            fix = f"name another: --port {8000 + port if number == errno.EACCES else port % 60000 + 1}"
        raise UserError(f"--host {host} --port {port}: {reason}; {fix}") from None
    # asyncio does this only for sockets made with an explicit protocol; without it (Nagle's algorithm) a response's
    # body waits 40 ms for the client's delayed acknowledgement of its headers.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
