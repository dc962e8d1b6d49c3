"""Download rate of pictures, concurrent and one at a time, from a local server that responds after 20 ms.

    python benchmarks/downloads.py [--pictures 2000] [--latency 0.02]

Prints both rates, their ratio and the peak memory of this process (the server is another one). "One at a time" is a
plain loop: one connection that is kept open (http.client, the fastest in the standard library), the same verification,
the same atomic write. It downloads a sample of 200, half before and half after the concurrent run, so that both run on
the same machine in the same state. CPU time for each picture is printed too: on a shared machine the concurrent rate
decreases, and the other, which mostly waits, does not.
Then the same pictures from a server with faults: 10 % of its responses are 503s, 5 % resets, 2 % bodies cut short.
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

from headstart.base.files import write_bytes
from headstart.fetch.http import download_cache
from headstart.fetch.http.download import download_images
from headstart.fetch.stage import check_decodable
from headstart.images.decode import configured_pil
from headstart.params.fetch import DownloadParams
from mirror import mirror_process

FAULTS = {"503": 0.1, "reset": 0.05, "cut": 0.02}


def main() -> None:
    """Generate the pictures, serve them, download them twice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--latency", type=float, default=0.02)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["HEADSTART_CACHE"] = f"{scratch}/cache"
        served = Path(scratch, "served")
        size = _generate(served, arguments.pictures)
        with mirror_process(served, arguments.latency) as url:
            urls = [f"{url}/{number}.jpg" for number in range(arguments.pictures)]
            before, used = _rate(_one_by_one, urls[:100]), time.process_time()
            many, used = _rate(_concurrently, urls), time.process_time() - used
            after = _rate(_one_by_one, urls[-100:])
            one = 2 / (1 / before + 1 / after)
        with mirror_process(served, arguments.latency, **FAULTS) as url:
            urls = [f"{url}/{number}.jpg" for number in range(arguments.pictures)]
            bad = _rate(_concurrently, urls)
        intact = sum(
            download_cache.cached_path(f"{url}/{path.name}").read_bytes() == path.read_bytes()
            for path in served.iterdir()
        )
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{arguments.pictures:,} pictures of {size / 1000:.0f} kB, {arguments.latency * 1000:g} ms latency")
    print(f"one at a time  {one:7.1f} pictures/s (200 of them)")
    print(f"concurrent     {many:7.1f} pictures/s, {used / len(urls) * 1000:.2f} ms of CPU each")
    print(f"ratio          {many / one:7.1f}    (goal: 15)")
    print(f"with failures  {bad:7.1f} pictures/s, {intact:,} of {arguments.pictures:,} downloaded intact")
    print(f"peak memory    {memory:7.0f} MB (limit: 300)")


def _generate(folder: Path, count: int) -> float:
    """JPEGs of about 100 kB, all different; returns their mean size in bytes."""
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
    with configured_pil():
        load(urls)
    return len(urls) / (time.perf_counter() - started)


def _concurrently(urls: Sequence[str]) -> None:
    results = download_images(urls, DownloadParams(), check_decodable)
    assert all(isinstance(result, Path) for result in results.values()), list(results.values())[:3]


def _one_by_one(urls: Sequence[str]) -> None:
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(urls[0]).netloc)
    for url in urls:
        connection.request("GET", urllib.parse.urlsplit(url).path)
        response = connection.getresponse()
        data = response.read()
        assert response.status == 200
        check_decodable(data)
        write_bytes(download_cache.cached_path(f"{url}?one"), data)
    connection.close()


if __name__ == "__main__":
    main()
