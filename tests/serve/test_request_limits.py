"""Requests beyond the limits get a 4xx response with a sentence, and the server goes on."""

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence

import pytest
from starlette.testclient import TestClient
from starlette.types import Message

import fakes
from fakes import PNG, upload
from headstart.export.predictor import PreprocessedImage
from headstart.serve.app import create_app
from headstart.serve.request_limits import RequestLimits
from headstart.serve.schema import ModelOutput


def test_too_many_pictures_and_too_many_bytes(detector_client: TestClient) -> None:
    many = detector_client.post("/predict", files=upload(PNG, PNG, PNG, PNG))
    assert (many.status_code, many.json()["detail"]) == (413, "4 pictures: send at most 3 at once")
    detail = "a request may have 20,000 bytes: send fewer or smaller pictures"
    large = detector_client.post("/predict", files=upload(b"x" * 30_000))
    assert (large.status_code, large.json()["detail"]) == (413, detail)

    def chunks() -> Iterator[bytes]:  # no Content-Length: counted as they arrive
        yield b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
        for _ in range(30):
            yield b"x" * 1000

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    chunked = detector_client.post("/predict", content=chunks(), headers=headers)
    assert (chunked.status_code, chunked.json()["detail"]) == (413, detail)


def test_requests_beyond_the_limit_get_429_and_retry_after() -> None:
    started, finish = threading.Semaphore(0), threading.Event()

    class SlowDetector(fakes.FakeDetector):
        def predict_batch(self, images: Sequence[PreprocessedImage]) -> list[ModelOutput]:
            started.release()
            finish.wait(20)
            return super().predict_batch(images)

    app = create_app(SlowDetector(), fakes.MODEL_INFO, limits=RequestLimits(max_requests=1))
    with TestClient(app) as client:
        statuses: list[int] = []
        first = threading.Thread(target=lambda: statuses.append(client.post("/predict", files=upload(PNG)).status_code))
        first.start()
        assert started.acquire(timeout=20)
        rejected = client.post("/predict", files=upload(PNG))
        assert (rejected.status_code, rejected.headers["Retry-After"]) == (429, "1")
        assert rejected.json()["detail"].startswith("1 requests are in progress already")
        assert client.get("/health").json() == {"status": "ok"}, "only POST requests are limited"
        finish.set()
        first.join()
        assert statuses == [200]
        assert client.post("/predict", files=upload(PNG)).status_code == 200


@pytest.mark.parametrize("early", [0.0, 0.04])
def test_a_body_that_does_not_arrive_is_a_timeout(early: float) -> None:
    content_type = (b"content-type", b"multipart/form-data; boundary=b")
    scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": [content_type]}
    parts = iter([{"type": "http.request", "body": b"--b\r\n", "more_body": True}])
    sent: list[Message] = []

    async def receive() -> Message:
        loop = asyncio.get_running_loop()
        loop._clock_resolution = early  # type: ignore[attr-defined] # timers fire that early
        loop.call_later(0.02, lambda: None)  # if the loop runs then
        for part in parts:
            return part
        return await asyncio.Future()  # nothing more arrives

    async def send(message: Message) -> None:
        sent.append(message)

    app = create_app(fakes.FakeDetector(), fakes.MODEL_INFO, limits=RequestLimits(timeout_seconds=0.05))
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"]) == {"detail": "the request took more than 0.05 s to arrive"}
