"""How fast pictures arrive: concurrent against one at a time, from a server on this machine that answers after 20 ms.

    python benchmarks/downloads.py [--pictures 2000] [--latency 0.02]

Prints the rate of both, their ratio and the peak memory of this process (the server is another one). "One at a time"
is a plain loop without any of our machinery: one connection that is kept open (http.client, the fastest there is in
the standard library), the same verification, the same file written whole or not at all. A sample of 200 is enough for
it: it is taken half before and half after the concurrent run, so that both meet the same machine.
The CPU time of a picture is there to judge a run by: on a machine that is at work for others too, the concurrent rate
suffers and the other, which mostly waits, does not.
Then the same pictures from a server that fails: 10 % of its answers are 503s, 5 % resets, 2 % bodies cut short.
"""

import argparse
import http.client
import io
import os
import resource
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from headstart import cache, download, files
from headstart.door import pil_set_up
from headstart.fetch import decodable
from headstart.fetch_params import DownloadParams
from mirror import in_its_own_process

FAULTS = {"503": 0.1, "reset": 0.05, "cut": 0.02}


def main() -> None:
    """Make the pictures, serve them, download them twice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--latency", type=float, default=0.02)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["HEADSTART_CACHE"] = f"{scratch}/cache"
        served = Path(scratch, "served")
        size = _make(served, arguments.pictures)
        with in_its_own_process(served, arguments.latency) as url:
            urls = [f"{url}/{number}.jpg" for number in range(arguments.pictures)]
            before, used = _rate(_one_by_one, urls[:100]), time.process_time()
            many, used = _rate(_all, urls), time.process_time() - used
            after = _rate(_one_by_one, urls[-100:])
            one = 2 / (1 / before + 1 / after)
        with in_its_own_process(served, arguments.latency, **FAULTS) as url:
            urls = [f"{url}/{number}.jpg" for number in range(arguments.pictures)]
            bad = _rate(_all, urls)
        whole = sum(cache.path_of(f"{url}/{path.name}").read_bytes() == path.read_bytes() for path in served.iterdir())
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{arguments.pictures:,} pictures of {size / 1000:.0f} kB, {arguments.latency * 1000:g} ms latency")
    print(f"one at a time  {one:7.1f} pictures/s (200 of them)")
    print(f"concurrent     {many:7.1f} pictures/s, {used / len(urls) * 1000:.2f} ms of CPU each")
    print(f"ratio          {many / one:7.1f}    (to reach: 15)")
    print(f"with failures  {bad:7.1f} pictures/s, {whole:,} of {arguments.pictures:,} arrived as they were")
    print(f"peak memory    {memory:7.0f} MB (to stay under: 300)")


def _make(folder: Path, count: int) -> float:
    """JPEGs of about 100 kB, each with pixels of its own; returns their mean size in bytes."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 40, (1200, 1200, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(rng.integers(0, 255, (9, 12, 3), np.uint8)).resize((640, 480)))
    total = 0
    for number in range(count):
        x, y = rng.integers(0, 500, 2)
        buffer = io.BytesIO()
        pixels = (smooth // 2 + noise[y : y + 480, x : x + 640]).astype(np.uint8)
        Image.fromarray(pixels).save(buffer, "JPEG", quality=89)
        (folder / f"{number}.jpg").write_bytes(buffer.getvalue())
        total += len(buffer.getvalue())
    return total / count


def _rate(load: Callable[[Sequence[str]], None], urls: Sequence[str]) -> float:
    """Verified pictures a second."""
    started = time.perf_counter()
    with pil_set_up():
        load(urls)
    return len(urls) / (time.perf_counter() - started)


def _all(urls: Sequence[str]) -> None:
    found = download.pictures(urls, DownloadParams(), decodable)
    assert all(isinstance(answer, Path) for answer in found.values()), list(found.values())[:3]


def _one_by_one(urls: Sequence[str]) -> None:
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(urls[0]).netloc)
    for url in urls:
        connection.request("GET", urllib.parse.urlsplit(url).path)
        response = connection.getresponse()
        data = response.read()
        assert response.status == 200
        decodable(data)
        files.write_bytes(cache.path_of(f"{url}?one"), data)
    connection.close()


if __name__ == "__main__":
    main()
