"""Bytes -> answers: pictures are decoded by a pool of threads, and what waits for the model goes through together."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from headstart.pool import cores
from headstart.predict import Look, Model, Said, look
from headstart.serve.schema import Answer, Box, Found

In = TypeVar("In")
Out = TypeVar("Out")
BATCH = 8  # pictures at most in one pass: more are no faster on a CPU, and the first would wait for the last


class Network(Protocol):
    """A model that can be served. Both methods are called from threads, `answer` from one at a time."""

    def look(self, data: bytes, max_pixels: int) -> Look:
        """A picture file's bytes as the network sees them; PictureError where they are no picture."""

    def answer(self, seen: Sequence[Look]) -> list[Found]:
        """One answer a picture."""


class Exported:
    """The exported model, of either task, as a Network. A detector's unsure boxes are told too, with their scores."""

    def __init__(self, folder: Path) -> None:
        self._model = Model(folder)

    def look(self, data: bytes, max_pixels: int) -> Look:
        return look(data, self._model.input, max_pixels)

    def answer(self, seen: Sequence[Look]) -> list[Found]:
        return [_found(said) for said in self._model.say(seen)]


def _found(said: Said) -> Found:
    if said.boxes is None:
        return Found(probabilities=said.probabilities)
    return Found(boxes=[Box(label=one.label, score=one.score, box=one.corners) for one in said.boxes])


class Batcher(Generic[In, Out]):
    """Calls of one thing each -> calls of a function of many, in one thread.

    Nothing is waited for: while a batch is computed, those who come gather, and are the next batch. One alone is
    answered at once.
    """

    def __init__(self, function: Callable[[Sequence[In]], Sequence[Out]], most: int) -> None:
        self._function, self._most = function, most
        self._thread = ThreadPoolExecutor(1, "model")
        self._waiting: list[tuple[In, asyncio.Future[Out]]] = []
        self._running: asyncio.Task[None] | None = None

    async def __call__(self, item: In) -> Out:
        """The function's answer to this item; what the function raises is raised to all of its batch."""
        future: asyncio.Future[Out] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch = [one for one in self._waiting[: self._most] if not one[1].done()]  # done: cancelled by its caller
            del self._waiting[: self._most]
            if batch:
                futures = [future for _, future in batch]
                call = loop.run_in_executor(self._thread, self._function, [item for item, _ in batch])
                await asyncio.wait([call])
                _settle(futures, call)
        self._running = None

    def close(self) -> None:
        """End the thread, after what it computes now."""
        self._thread.shutdown()


def _settle(futures: "Sequence[asyncio.Future[Out]]", call: "asyncio.Future[Sequence[Out]]") -> None:
    error = call.exception()
    answers: Sequence[Out | None] = [None] * len(futures) if error else call.result()
    for future, answer in zip(futures, answers, strict=True):
        if future.done():
            continue
        if error:
            future.set_exception(error)
        else:
            assert answer is not None
            future.set_result(answer)


class Engine:
    """A network with its threads: as many decode as there are cores, one runs the model."""

    def __init__(self, network: Network, *, max_pixels: int, batch: int = BATCH) -> None:
        self._network, self._max_pixels = network, max_pixels
        self._decoders = ThreadPoolExecutor(cores(), "decode")
        self._model: Batcher[Look, Found] = Batcher(network.answer, batch)

    async def answer(self, name: str, data: bytes) -> Answer:
        """What the model says of a picture file's bytes.

        Raises:
            PictureError: the bytes are no picture, or a too large one.
        """
        begin = time.perf_counter()
        loop = asyncio.get_running_loop()
        seen = await loop.run_in_executor(self._decoders, self._network.look, data, self._max_pixels)
        found = await self._model(seen)
        return Answer(
            name=name,
            width=seen.width,
            height=seen.height,
            label=max(found.probabilities, key=found.probabilities.__getitem__) if found.probabilities else None,
            probabilities=found.probabilities,
            boxes=found.boxes,
            milliseconds=round(1000 * (time.perf_counter() - begin), 1),
        )

    def close(self) -> None:
        """End the threads."""
        self._decoders.shutdown()
        self._model.close()
