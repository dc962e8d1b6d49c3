"""A page in headless Chromium, driven over its DevTools protocol through a pipe: no driver, no port.

The protocol: https://chromedevtools.github.io/devtools-protocol/
"""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
INSTALL = "no Chromium: apt-get install -y chromium (Debian), or put `chromium` on the PATH"

# The browser reads commands from file 3 and writes responses to file 4; these two may be open as something else here.
_LAUNCH = """import fcntl, os, sys
commands, responses = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(commands, 3)
os.dup2(responses, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Chromium:
    """One browser with one page; `with Chromium(folder) as page`. `timeout` is in seconds, of every wait."""

    def __init__(self, folder: Path, timeout: float = 60.0) -> None:
        self._timeout, self._number, self._buffer = timeout, 0, b""
        commands, self._write = os.pipe()
        self._read, responses = os.pipe()
        options = "--headless=new --no-sandbox --disable-gpu --hide-scrollbars --no-first-run --disable-dev-shm-usage"
        fake_camera = "--use-fake-device-for-media-stream --use-fake-ui-for-media-stream --remote-debugging-pipe"
        command = [
            PROGRAM or "",
            *options.split(),
            *fake_camera.split(),
            f"--user-data-dir={folder / 'profile'}",
            "about:blank",
        ]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, str(commands), str(responses), *command],
            pass_fds=(commands, responses),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(responses)
        self._session = ""
        self.console: list[str] = []  # what the page wrote to the console, and its uncaught errors

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.push(self.__exit__)
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log"):
                self.call(f"{domain}.enable")
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def call(self, method: str, **params: Any) -> Any:
        """A command of the protocol, and its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            response = self._message()
            if response.get("id") == self._number:
                assert "error" not in response, f"{method}: {response['error']}"
                return response["result"]
            if response.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                self.console.append(json.dumps(response["params"])[:600])

    def _message(self) -> Any:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], self._timeout)
            assert ready, f"no message from the browser within {self._timeout} s"
            data = os.read(self._read, 1 << 20)
            assert data, "the browser has ended"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def open(self, url: str, *, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Load a page, and wait until it sets `data-ready`."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.console.clear()
        self.call("Page.navigate", url=url)
        self.until("document.body?.dataset.ready === 'yes'")

    def js(self, expression: str) -> Any:
        """The value of an expression in the page; of a promise, what it resolves to."""
        reply = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + self._timeout
        while not self.js(condition):
            assert time.monotonic() < deadline, f"not within {self._timeout} s: {condition}; {self.console}"
            time.sleep(0.05)

    def press(self, key: str, code: int) -> None:
        """A key, down and up."""
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def choose(self, selector: str, files: Sequence[Path]) -> None:
        """Files for an `<input type="file">`."""
        element = self.call("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")
        self.call("DOM.setFileInputFiles", files=[str(path) for path in files], objectId=element["result"]["objectId"])

    def screenshot(self, path: Path, *, full_page: bool = True) -> None:
        """The page as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=full_page)["data"]))
