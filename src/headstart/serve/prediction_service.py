"""Bytes -> predictions: a thread pool decodes, and a dynamic batcher runs the model on whatever is queued."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from headstart.base.parallel import process_cpu_count
from headstart.export.model_prediction import ModelPrediction
from headstart.export.predictor import Predictor, PreprocessedImage, preprocess
from headstart.export.speed import SERVING_BATCH
from headstart.serve.schema import ImagePrediction, ModelOutput, ScoredBox

In = TypeVar("In")
Out = TypeVar("Out")


class ServedModel(Protocol):
    """A model that can be served. Both methods are called from threads, `predict_batch` from one at a time."""

    def preprocess(self, data: bytes, max_pixels: int) -> PreprocessedImage:
        """Decode a picture file and resize it to the model's input; PictureError if it cannot be decoded."""

    def predict_batch(self, images: Sequence[PreprocessedImage]) -> list[ModelOutput]:
        """One output a picture."""


class ServedOnnxModel:
    """The exported model of either task as a ServedModel. A detector's boxes below its threshold are included."""

    def __init__(self, folder: Path) -> None:
        self._predictor = Predictor(folder)

    def preprocess(self, data: bytes, max_pixels: int) -> PreprocessedImage:
        return preprocess(data, self._predictor.input, max_pixels)

    def predict_batch(self, images: Sequence[PreprocessedImage]) -> list[ModelOutput]:
        return [_to_model_output(prediction) for prediction in self._predictor.predict_images(images)]


def _to_model_output(prediction: ModelPrediction) -> ModelOutput:
    if prediction.boxes is None:
        return ModelOutput(
            probabilities=prediction.probabilities,
            answer=prediction.answer,
            labels_in_set=list(prediction.labels_in_set),
            unknown=prediction.unknown,
            strangeness=prediction.strangeness,
        )
    return ModelOutput(boxes=[ScoredBox(label=box.label, score=box.score, box=box.corners) for box in prediction.boxes])


class DynamicBatcher(Generic[In, Out]):
    """Dynamic batching: single items submitted from any thread -> calls of a batch function in one thread.

    There is no waiting time: items that arrive while a batch is computed form the next batch, and an item that finds
    the thread idle is computed at once, alone.
    """

    def __init__(self, function: Callable[[Sequence[In]], Sequence[Out]], max_batch: int) -> None:
        self._function, self._max_batch = function, max_batch
        self._thread = ThreadPoolExecutor(1, "model")
        self._queue: deque[tuple[In, Future[Out]]] = deque()

    def submit(self, item: In) -> Future[Out]:
        """The function's output for this item; an exception of the function is set on every item of its batch."""
        future: Future[Out] = Future()
        self._queue.append((item, future))
        self._thread.submit(self._run_batch)  # one call an item: those that find the queue empty return at once
        return future

    def _run_batch(self) -> None:
        taken = [self._queue.popleft() for _ in range(min(self._max_batch, len(self._queue)))]
        batch = [(item, future) for item, future in taken if future.set_running_or_notify_cancel()]
        if not batch:
            return
        items, futures = zip(*batch, strict=True)
        try:
            outputs = list(zip(futures, self._function(items), strict=True))
        except BaseException as error:  # nobody else would settle these futures
            for future in futures:
                future.set_exception(error)
        else:
            for future, output in outputs:
                future.set_result(output)

    def close(self) -> None:
        """End the thread, after everything in the queue."""
        self._thread.shutdown()


class PredictionService:
    """A model with its threads: one decoder thread a core, and one thread that runs the model.

    A file is read shortly before it is decoded: at most twice as many files as cores are in memory. The others stay
    where the form's parser put them, which for large files is the disk. Preprocessed pictures, which queue for the
    model, are small.

    Args:
        model: what predicts.
        max_pixels: larger pictures are rejected.
        max_batch: pictures at most in one pass. More are no faster on a CPU, and the first would wait for the last.
    """

    def __init__(self, model: ServedModel, *, max_pixels: int, max_batch: int = SERVING_BATCH) -> None:
        self._model, self._max_pixels = model, max_pixels
        self._decoders = ThreadPoolExecutor(process_cpu_count(), "decode")
        self._in_memory = asyncio.Semaphore(2 * process_cpu_count())
        self._batcher: DynamicBatcher[PreprocessedImage, ModelOutput] = DynamicBatcher(model.predict_batch, max_batch)

    async def predict(self, name: str, read: Callable[[], Awaitable[bytes]]) -> ImagePrediction:
        """The prediction for a picture file.

        Args:
            name: the file's name, copied to the prediction.
            read: returns the file's bytes.

        Raises:
            PictureError: the bytes cannot be decoded, or the picture has more than `max_pixels`.
        """
        begin = time.perf_counter()
        image = await self._preprocess(read)
        output = await asyncio.wrap_future(self._batcher.submit(image))
        probabilities = output.probabilities
        return ImagePrediction(
            name=name,
            width=image.width,
            height=image.height,
            label=max(probabilities, key=probabilities.__getitem__) if probabilities else None,
            **dict(output),
            milliseconds=round(1000 * (time.perf_counter() - begin), 1),
        )

    async def _preprocess(self, read: Callable[[], Awaitable[bytes]]) -> PreprocessedImage:
        """A function of its own, so that the bytes are freed before the model runs."""
        async with self._in_memory:
            data = await read()
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._decoders, self._model.preprocess, data, self._max_pixels)

    def close(self) -> None:
        """End the threads."""
        self._decoders.shutdown()
        self._batcher.close()
