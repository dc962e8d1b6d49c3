"""`headstart serve`: the app in uvicorn, until Ctrl-C or SIGTERM."""

import socket
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from headstart.errors import UserError
from headstart.serve.about import about, examples
from headstart.serve.app import create_app
from headstart.serve.engine import Exported

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(model: Path, host: str, port: int) -> None:
    """Serve the model of a folder. What was accepted is answered before the process ends, for at most ten seconds.

    Raises:
        UserError: there is no model, or the port cannot be had.
    """
    app = application(model, hosts=[*_LOOPBACK, "[::1]"] if host in _LOOPBACK else None)
    with _listen(host, port) as listening:
        shown = f"[{host}]" if ":" in host else host
        print(f"serve: http://{shown}:{listening.getsockname()[1]} (Ctrl-C ends)", flush=True)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_graceful_shutdown=10, timeout_keep_alive=30
        )
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:  # uvicorn has shut down, and passes the signal on
            print("serve: ended")


def application(model: Path, hosts: list[str] | None = None) -> FastAPI:
    """`create_app` for a model's folder and the exam beside it.

    Raises:
        UserError: there is no model.
    """
    found = examples(model)
    return create_app(Exported(model), about(model, found), found, hosts=hosts)


def _listen(host: str, port: int) -> socket.socket:
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        reason = str(error).partition(" (while")[0]
        raise UserError(f"--host {host} --port {port}: {reason}; name another: --port {port % 60000 + 1}") from None
    # asyncio does this only for sockets made with an explicit protocol; without it an answer's body waits 40 ms for the
    # client's delayed acknowledgement of its head
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
