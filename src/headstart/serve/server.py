"""`headstart serve`: the exported model's web app in uvicorn, until Ctrl-C or SIGTERM."""

import socket
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from headstart.base.errors import UserError
from headstart.serve.app import create_app
from headstart.serve.examples import find_examples
from headstart.serve.model_info import load_model_info
from headstart.serve.prediction_service import ServedOnnxModel

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(model: Path, host: str, port: int) -> None:
    """Serve an exported model. Requests in progress at the end are completed, for at most ten seconds.

    Args:
        model: the folder with model.onnx and labels.json.
        host: address to listen on; a loopback address accepts requests of this machine's own names only.
        port: to listen on; 0: any that is free.

    Raises:
        UserError: there is no model, or the port cannot be opened.
    """
    app = create_model_app(model, hosts=[*_LOOPBACK, "[::1]"] if host in _LOOPBACK else None)
    with _open_socket(host, port) as listening:
        url_host = f"[{host}]" if ":" in host else host
        print(f"serve: http://{url_host}:{listening.getsockname()[1]} (Ctrl-C ends)", flush=True)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_graceful_shutdown=10, timeout_keep_alive=30
        )
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:  # uvicorn has shut down, and passes the signal on
            print("serve: ended")


def create_model_app(model: Path, hosts: list[str] | None = None) -> FastAPI:
    """`create_app` for an exported model's folder and the evaluation beside it.

    Raises:
        UserError: there is no model.
    """
    examples = find_examples(model)
    return create_app(ServedOnnxModel(model), load_model_info(model, examples), examples, hosts=hosts)


def _open_socket(host: str, port: int) -> socket.socket:
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        reason = str(error).partition(" (while")[0]
        raise UserError(f"--host {host} --port {port}: {reason}; name another: --port {port % 60000 + 1}") from None
    # asyncio does this only for sockets made with an explicit protocol; without it (Nagle's algorithm) a response's
    # body waits 40 ms for the client's delayed acknowledgement of its headers.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
