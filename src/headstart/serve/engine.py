"""Bytes -> answers: pictures are decoded by a pool of threads, and what waits for the model goes through together."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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
        self._waiting: deque[tuple[In, Future[Out]]] = deque()

    def submit(self, item: In) -> Future[Out]:
        """The function's answer to this item; what the function raises is raised to all of its batch."""
        future: Future[Out] = Future()
        self._waiting.append((item, future))
        self._thread.submit(self._next)  # one call an item: those that find nothing left have nothing to do
        return future

    def _next(self) -> None:
        taken = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
        batch = [(item, future) for item, future in taken if future.set_running_or_notify_cancel()]
        if not batch:
            return
        items, futures = zip(*batch, strict=True)
        try:
            answered = list(zip(futures, self._function(items), strict=True))
        except BaseException as error:  # nobody else would settle these
            for future in futures:
                future.set_exception(error)
        else:
            for future, answer in answered:
                future.set_result(answer)

    def close(self) -> None:
        """End the thread, after what waits for it."""
        self._thread.shutdown()


class Engine:
    """A network with its threads: as many decode as there are cores, one runs the model.

    A file is read when its turn to be decoded is near: twice as many as can be decoded at once are in memory. Others
    wait where the form's parser put them, which for large ones is the disk. What then waits for the model is small.
    """

    def __init__(self, network: Network, *, max_pixels: int, batch: int = BATCH) -> None:
        self._network, self._max_pixels = network, max_pixels
        self._decoders = ThreadPoolExecutor(cores(), "decode")
        self._near = asyncio.Semaphore(2 * cores())
        self._model: Batcher[Look, Found] = Batcher(network.answer, batch)

    async def answer(self, name: str, read: Callable[[], Awaitable[bytes]]) -> Answer:
        """What the model says of a picture file; `read` gives its bytes.

        Raises:
            PictureError: the bytes are no picture, or a too large one.
        """
        begin = time.perf_counter()
        seen = await self._look(read)
        found = await asyncio.wrap_future(self._model.submit(seen))
        return Answer(
            name=name,
            width=seen.width,
            height=seen.height,
            label=max(found.probabilities, key=found.probabilities.__getitem__) if found.probabilities else None,
            probabilities=found.probabilities,
            boxes=found.boxes,
            milliseconds=round(1000 * (time.perf_counter() - begin), 1),
        )

    async def _look(self, read: Callable[[], Awaitable[bytes]]) -> Look:
        """Apart from `answer`, which would hold the bytes while the model works."""
        async with self._near:
            data = await read()
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._decoders, self._network.look, data, self._max_pixels)

    def close(self) -> None:
        """End the threads."""
        self._decoders.shutdown()
        self._model.close()
