"""Dynamic batching and the decoder threads, with functions and models that wait for a signal."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

import fakes
from headstart.base.parallel import process_cpu_count
from headstart.export.predictor import PreprocessedImage
from headstart.images.decode import PictureError
from headstart.serve.prediction_service import DynamicBatcher, PredictionService
from headstart.serve.schema import ModelOutput


class Doubler:
    """A batch function that doubles numbers once `resume` is set; a batch with 13 raises. `batches` are its calls."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.batches: list[list[int]] = []
        self.entered, self.resume = threading.Event(), threading.Event()
        self._error = error

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.entered.set()
        assert self.resume.wait(20)
        if self._error and 13 in items:
            raise self._error
        return [2 * item for item in items]


def test_a_batch_is_what_is_queued() -> None:
    double = Doubler()
    batcher: DynamicBatcher[int, int] = DynamicBatcher(double, max_batch=4)
    first = batcher.submit(0)
    assert double.entered.wait(20)  # the first is computed alone, while the others queue
    others = [batcher.submit(number) for number in range(1, 7)]
    others[0].cancel()
    double.resume.set()
    outputs = [first.result(), *(future.result() for future in others[1:]), batcher.submit(9).result()]
    batcher.close()
    assert outputs == [0, 4, 6, 8, 10, 12, 18]
    assert double.batches == [[0], [2, 3, 4], [5, 6], [9]], "the cancelled one is not computed"


def test_a_cancelled_request_is_not_computed() -> None:
    double = Doubler()
    batcher: DynamicBatcher[int, int] = DynamicBatcher(double, max_batch=4)

    async def submit(item: int) -> int:
        return await asyncio.wrap_future(batcher.submit(item))

    async def submit_three_and_cancel_one() -> tuple[int, int]:
        first = asyncio.create_task(submit(0))
        assert await asyncio.to_thread(double.entered.wait, 20)
        cancelled, other = asyncio.create_task(submit(1)), asyncio.create_task(submit(2))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        double.resume.set()
        return await first, await other

    assert asyncio.run(submit_three_and_cancel_one()) == (0, 4)
    batcher.close()
    assert double.batches == [[0], [2]]


class Panic(BaseException):
    """As raised by code in Rust."""


@pytest.mark.parametrize("error", [PictureError("broken", "thirteen"), Panic("thirteen")])
def test_an_error_reaches_all_of_its_batch_and_no_later_one(error: BaseException) -> None:
    double = Doubler(error)
    batcher: DynamicBatcher[int, int] = DynamicBatcher(double, max_batch=4)
    first = batcher.submit(12)
    assert double.entered.wait(20)
    others = [batcher.submit(number) for number in (13, 14)]
    double.resume.set()
    assert first.result() == 24
    assert [future.exception(20) for future in others] == [error, error]
    assert batcher.submit(2).result() == 4
    batcher.close()


def test_few_files_are_in_memory_and_their_bytes_are_freed_before_the_model_runs() -> None:
    count = 5 * process_cpu_count()
    read: list[None] = []
    freed: list[None] = []
    decode, predict = threading.Event(), threading.Event()

    class Data(bytes):
        def __del__(self) -> None:
            freed.append(None)

    class SlowDetector(fakes.FakeDetector):
        def preprocess(self, data: bytes, max_pixels: int) -> PreprocessedImage:
            assert decode.wait(20)
            return super().preprocess(data, max_pixels)

        def predict_batch(self, images: Sequence[PreprocessedImage]) -> list[ModelOutput]:
            assert predict.wait(20)
            return super().predict_batch(images)

    async def read_file() -> bytes:
        read.append(None)
        return Data(fakes.PNG)

    async def files_in_memory() -> int:
        service = PredictionService(SlowDetector(), max_pixels=10_000)
        predictions = asyncio.gather(*(service.predict("", read_file) for _ in range(count)))
        await asyncio.sleep(0)
        in_memory = len(read)
        decode.set()
        async with asyncio.timeout(20):
            while len(freed) < count:
                await asyncio.sleep(0.001)
        predict.set()
        await predictions
        service.close()
        return in_memory

    assert asyncio.run(files_in_memory()) == 2 * process_cpu_count()
