"""What `headstart serve` costs beside the bare model, and how it behaves under malformed requests.

    python benchmarks/serving.py [--model stages/export] [--seconds 40] [--requests 10000] [PICTURE...]

Latency: one client, one picture a request, against decoding and one onnxruntime call in this process; they take turns,
so that what else the machine does falls on both. Throughput: 16 clients against decoding by a pool of threads and
onnxruntime calls of whole batches, in turns too. Endurance: requests of which 5 % carry a bad picture and 2 % are given
up half way; counted are the statuses, and the server's memory over time.
"""

import argparse
import asyncio
import http.client
import itertools
import random
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil

from headstart.base.parallel import process_cpu_count
from headstart.engine.pixels import read_pixels
from headstart.export.prediction_files import find_images
from headstart.export.predictor import Predictor

CLIENTS = 16
BATCH = 16
TURNS = 20  # of a measurement of throughput: a neighbour on the machine then falls on both
BAD = (b"no picture at all", b"\x89PNG\r\n\x1a\n cut off", b"<!doctype html><p>not found", b"")


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="*", type=Path, default=[Path("stages/fetch/images")])
    parser.add_argument("--model", type=Path, default=Path("stages/export"))
    parser.add_argument("--seconds", type=float, default=40, help="of each measurement of throughput")
    parser.add_argument("--requests", type=int, default=10_000, help="of the endurance run")
    args = parser.parse_args()
    paths = find_images(args.pictures)[:200]
    bodies = [body(path.read_bytes()) for path in paths]
    process = subprocess.Popen(
        [sys.executable, "-c", "from headstart.cli import main; main()", "serve", "--port", "0", "--model", args.model],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        found = re.search(r":(\d+) ", process.stdout.readline())
        assert found
        port = int(found[1])
        model = Predictor(args.model)
        latency(model, paths, bodies, port, psutil.Process(process.pid))
        throughput(model, paths, bodies, port, args.seconds)
        endurance(bodies, port, args.requests, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait()


def body(*pictures: bytes) -> bytes:
    """Pictures as the body of a multipart request with the boundary `b`."""
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
    return b"".join(head + data + b"\r\n" for data in pictures) + b"--b--\r\n"


KIND = {"Content-Type": "multipart/form-data; boundary=b"}


def latency(model: Predictor, paths: list[Path], bodies: list[bytes], port: int, server: psutil.Process) -> None:
    """Median milliseconds of one picture, served and bare, in turns; and processor time, which no neighbour changes."""
    rounds = 200
    link = http.client.HTTPConnection("127.0.0.1", port)
    served, bare = [], []
    bare_work, served_work = 0.0, -sum(server.cpu_times()[:2])
    for path, data in itertools.islice(itertools.cycle(zip(paths, bodies, strict=True)), rounds + 20):
        begin = time.perf_counter()
        link.request("POST", "/predict", data, KIND)
        answer = link.getresponse()
        answer.read()
        middle = time.perf_counter()
        assert answer.status == 200
        before = time.process_time()
        model.classifier_output(read_pixels(path, model.input)[None])
        bare_work += time.process_time() - before
        served.append(1000 * (middle - begin))
        bare.append(1000 * (time.perf_counter() - middle))
    one, other = statistics.median(served[20:]), statistics.median(bare[20:])
    print(f"latency of one picture: served {one:.1f} ms, bare {other:.1f} ms, ratio {one / other:.2f}", flush=True)
    served_work += sum(server.cpu_times()[:2])
    one, other = (1000 * work / (rounds + 20) for work in (served_work, bare_work))
    print(
        f"processor time of one picture: served {one:.1f} ms, bare {other:.1f} ms, ratio {one / other:.2f}", flush=True
    )


def throughput(model: Predictor, paths: list[Path], bodies: list[bytes], port: int, seconds: float) -> None:
    """Pictures a second, by 16 clients and bare in batches, in turns; the ratio is the median of the turns' ratios."""
    served, bare = [], []
    for _ in range(TURNS):
        served.append(asyncio.run(clients(bodies, port, seconds / TURNS)))
        bare.append(batches(model, paths, seconds / TURNS))
    ratio = statistics.median(one / other for one, other in zip(served, bare, strict=True))
    one, other = statistics.median(served), statistics.median(bare)
    print(
        f"throughput: {CLIENTS} clients {one:.1f} pictures/s, bare in batches of {BATCH} {other:.1f}, "
        f"ratio {ratio:.2f}",
        flush=True,
    )


def batches(model: Predictor, paths: list[Path], seconds: float) -> float:
    """Pictures a second without a server: the next batch is decoded by threads while one is computed."""
    turns = itertools.cycle([paths[start : start + BATCH] for start in range(0, len(paths) - BATCH + 1, BATCH)])
    count, begin = 0, time.perf_counter()
    with ThreadPoolExecutor(process_cpu_count()) as threads:
        coming = [threads.submit(read_pixels, path, model.input) for path in next(turns)]
        while time.perf_counter() - begin < seconds:
            pixels = np.stack([one.result() for one in coming])
            coming = [threads.submit(read_pixels, path, model.input) for path in next(turns)]
            model.classifier_output(pixels)
            count += len(pixels)
        return count / (time.perf_counter() - begin)


async def clients(bodies: list[bytes], port: int, seconds: float) -> float:
    """Pictures a second of clients that each ask again as soon as they are answered."""
    end = time.perf_counter() + seconds

    async def client(number: int) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for count, data in enumerate(itertools.cycle(bodies[number:] + bodies[:number])):
            if time.perf_counter() > end:
                writer.close()
                return count
            assert await asked(reader, writer, data) == 200
        raise AssertionError

    begin = time.perf_counter()
    counts = await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    return sum(counts) / (time.perf_counter() - begin)


async def asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> int:
    """Post a body over an open connection; the status."""
    writer.write(request(data) + data)
    head = await reader.readuntil(b"\r\n\r\n")
    size = re.search(rb"content-length: (\d+)", head.lower())
    assert size
    await reader.readexactly(int(size[1]))
    return int(head.split()[1])


def request(data: bytes) -> bytes:
    """The head of a request with this body."""
    return (
        b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        b"Content-Length: %d\r\n\r\n" % len(data)
    )


def endurance(bodies: list[bytes], port: int, requests: int, server: psutil.Process) -> None:
    """Statuses of many requests, good, bad and given up; the server's memory after each tenth of them."""
    chance = random.Random(0)
    plan = chance.choices(["good", "bad", "given up"], [93, 5, 2], k=requests)
    statuses: Counter[str] = Counter()
    memory = []
    for tenth in range(10):
        part = iter(plan[tenth * requests // 10 : (tenth + 1) * requests // 10])
        asyncio.run(mixed(part, bodies, port, statuses, chance))
        memory.append(server.memory_info().rss / 2**20)
    shown = ", ".join(f"{count:,} x {status}" for status, count in sorted(statuses.items()))
    print(f"endurance: {requests:,} requests by {CLIENTS} clients: {shown}")
    print(f"memory of the server after each tenth, MiB: {' '.join(f'{each:.0f}' for each in memory)}", flush=True)


async def mixed(
    plan: Iterator[str], bodies: list[bytes], port: int, statuses: Counter[str], chance: random.Random
) -> None:
    """Work a plan off with 16 clients."""

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for what in plan:
            data = body(chance.choice(BAD)) if what == "bad" else chance.choice(bodies)
            if what == "given up":
                writer.write(request(data) + data[: len(data) // 2])
                await writer.drain()
                writer.close()
                statuses["given up"] += 1
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            else:
                statuses[f"{what} {await asked(reader, writer, data)}"] += 1
        writer.close()

    await asyncio.gather(*(client() for _ in range(CLIENTS)))


if __name__ == "__main__":
    main()
