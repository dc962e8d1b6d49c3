"""What the page's tests share: its two kinds of web server, pictures given to it, predictions read from it."""

import functools
import http.server
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

import chromium
from headstart.serve.demo import ASSETS

ONNXRUNTIME_WEB = Path(__file__).parents[1] / ASSETS

# A file as the visitor's mouse or keyboard brings it: in the page's own DataTransfer.
TRANSFER = """(async () => {
  const data = new DataTransfer();
  const bytes = Uint8Array.from(%s);
  data.items.add(new File([bytes], "transferred.png", {type: "image/png"}));
  %s
})()"""
DROP = "document.getElementById('drop').dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true}))"
PASTE = "document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data}))"


@contextmanager
def serve_app(app: Any) -> Iterator[str]:
    """The URL of an app served in a thread, as `headstart serve` does."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def serve_folder(folder: Path) -> Iterator[str]:
    """The URL of a folder, served as any web host does."""

    class QuietHandler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def predictions(page: chromium.Chromium, count: int) -> Any:
    """Wait for so many predictions; their headings, or error lines, newest first."""
    page.until(f"document.querySelectorAll('#predictions > *').length >= {count}")
    shown = "[...document.querySelectorAll('#predictions > *')]"
    return page.js(f"{shown}.map(element => (element.querySelector('h3') ?? element).textContent)")


def predict(page: chromium.Chromium, data: bytes) -> Any:
    """What the page's own predict.js returns for a picture file."""
    blob = f"new Blob([Uint8Array.from({json.dumps(list(data))})])"
    return page.js(f"import('./predict.js').then(module => module.predict({blob}, 'a'))")
