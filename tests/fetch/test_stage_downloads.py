"""The stage with pictures from a server: lists of links as they are found, and a process that is killed."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from headstart.fetch.outputs import FETCH_FOLDER
from mirror import Mirror
from pictures import encoded, fetched, picture, put, table


def test_a_list_of_links_as_a_search_leaves_it(mirror: Mirror, tmp_path: Path) -> None:
    served = mirror.folder
    put(served / "boot 1.jpg", encoded(picture(1), "JPEG"))
    put(served / "sandal.jpg", encoded(picture(2), "JPEG", 6))
    put(served / "thumb.jpg", encoded(picture(3, (90, 20)), "JPEG"))
    put(served / "page.jpg", b"<html>hotlinking forbidden")
    put(tmp_path / "data/own.png", seed=4)
    rows = [
        ("image", "label", "license", "landing_url"),
        (f"{mirror.url}/boot%201.jpg", "boot", "CC BY", "http://x/1"),
        (f"{mirror.url}/boot%201.jpg", "boot", "CC BY", "http://x/1"),
        (f"{mirror.url}/boot%201.jpg?size=large", "boot", "", ""),
        (f"{mirror.url}/sandal.jpg", "sandal", "", ""),
        (f"{mirror.url}/thumb.jpg", "sandal", "", ""),
        (f"{mirror.url}/page.jpg", "sandal", "", ""),
        (f"{mirror.url}/gone.jpg", "boot", "", ""),
        ("own.png", "boot", "", ""),
        ((tmp_path / "data/own.png").as_uri(), "boot", "", ""),
    ]
    table(tmp_path / "data/shoes.csv", rows)
    manifest = fetched(tmp_path, {"table": "data/shoes.csv", "min_side": 24}, max_failed=3)
    assert [image.label for image in manifest.images] == ["boot", "boot", "sandal", "boot", "boot"]
    assert manifest.images[0].license == "CC BY"
    assert manifest.images[0].sha256 == manifest.images[1].sha256
    assert (manifest.images[2].width, manifest.images[2].height) == (24, 40)
    failed = (tmp_path / FETCH_FOLDER / "failed.csv").read_text()
    assert f"{mirror.url}/gone.jpg,HTTP 404 Not Found\n" in failed
    assert f'{mirror.url}/page.jpg,"a web page, not a picture"\n' in failed
    assert "a side below min_side 24" in failed
    lines = (tmp_path / FETCH_FOLDER / "attribution.csv").read_text().splitlines()
    assert lines[0] == "file_name,source,license,author,landing_url"
    assert lines[1].endswith(",CC BY,,http://x/1")
    assert len(lines) == 2


# Imports once, then runs the stage in a fork for every line it reads: prints its process id, and how it ended.
SCRIPT = """
import os, sys
from pathlib import Path
from pictures import fetched
for line in sys.stdin:
    pid = os.fork()
    if not pid:
        sys.stdout = sys.stderr
        fetched(Path(line.strip()), {"table": "links.csv"})
        os._exit(0)
    print(pid, flush=True)
    print(os.waitpid(pid, 0)[1], flush=True)
"""


def run_and_kill(process: Any, root: Path, mirror: Mirror, rng: random.Random | None) -> int:
    """One run of the stage, killed a while after some more requests; its exit status (0: not killed)."""
    threshold = mirror.requests.total() + (rng.randint(0, 60) if rng else 0)
    print(root, file=process.stdin, flush=True)
    pid = int(process.stdout.readline())
    if rng:
        deadline = time.monotonic() + 1
        while mirror.requests.total() <= threshold and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(rng.random() * 0.05)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return int(process.stdout.readline())


def test_a_killed_fetch_is_resumed(mirror: Mirror, tmp_path: Path) -> None:
    """`kill -9` twenty times: no verified picture is requested again, and the manifest is the same."""
    count, kills, at_once = 400, 20, 32
    for number in range(count):
        put(mirror.folder / f"{number}.png", seed=number)
    links = [(f"{mirror.url}/{number}.png", "ab"[number % 2]) for number in range(count)]
    for project in ("killed", "calm"):
        table(tmp_path / project / "links.csv", [("image", "label"), *links])
    mirror.latency = 0.02
    command = [sys.executable, "-c", SCRIPT]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=Path(__file__).parents[1], **pipes) as process:
        endings = [run_and_kill(process, tmp_path / "killed", mirror, random.Random(kill)) for kill in range(kills)]
        endings.append(run_and_kill(process, tmp_path / "killed", mirror, None))
        process.communicate()
    assert endings.count(signal.SIGKILL) > kills // 2, "too few were killed before they were done"
    assert endings[-1] == 0
    assert mirror.requests.total() <= count + kills * at_once, "only downloads in flight are requested again"
    killed = tmp_path / "killed" / FETCH_FOLDER
    fetched(tmp_path / "calm", {"table": "links.csv"})
    for name in ("annotations.json", "failed.csv", "attribution.csv", "metrics.json"):
        assert (killed / name).read_bytes() == (tmp_path / "calm" / FETCH_FOLDER / name).read_bytes()
    before = mirror.requests.total()
    fetched(tmp_path / "killed", {"table": "links.csv"})
    assert mirror.requests.total() == before
