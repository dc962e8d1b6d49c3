"""`headstart serve` over the wire: answers, refusals, limits, batches, the end."""

import asyncio
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient
from starlette.types import Message

import fakes
import tiny
from conftest import Project
from headstart import coco
from headstart.door import PictureError
from headstart.errors import UserError
from headstart.pool import cores
from headstart.predict import Look, Model
from headstart.serve.about import about, examples
from headstart.serve.app import create_app
from headstart.serve.engine import Batcher, Engine
from headstart.serve.guard import Limits
from headstart.serve.run import _listen, application, serve
from headstart.serve.schema import Box, Found
from pictures import encoded, picture

PNG = encoded(picture())


def files(*pictures: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (f"{number}.png", data)) for number, data in enumerate(pictures)]


@pytest.fixture(scope="module")
def client(project: Project) -> Iterator[TestClient]:
    with TestClient(application(project.root / "stages/export")) as client:
        yield client


@pytest.fixture(scope="module")
def finder() -> Iterator[TestClient]:
    limits = Limits(bytes=20_000, files=3, pixels=10_000, requests=2, seconds=5)
    with TestClient(create_app(fakes.Finder(), fakes.ABOUT, limits=limits, hosts=["testserver"])) as client:
        yield client


def test_the_answers_are_those_of_headstart_predict(client: TestClient, project: Project) -> None:
    paths = [project.root / image.file_name for image in tiny.manifest(project.root, "split", "test").images]
    answers = client.post("/predict", files=files(*(path.read_bytes() for path in paths))).json()["answers"]
    wanted = list(Model(project.root / "stages/export").predict(paths))
    assert [answer["name"] for answer in answers] == [f"{number}.png" for number in range(len(paths))]
    for answer, prediction in zip(answers, wanted, strict=True):
        assert answer["probabilities"] == pytest.approx(prediction.probabilities, abs=1e-6)
        assert (answer["label"], answer["boxes"]) == (prediction.label, None)
        assert (answer["width"], answer["height"]) == (48, 40)
        assert answer["milliseconds"] > 0


def test_the_size_told_is_that_of_the_upright_picture(client: TestClient) -> None:
    turned = encoded(picture(size=(40, 24)), "JPEG", orientation=6)
    (answer,) = client.post("/predict", files=files(turned)).json()["answers"]
    assert (answer["width"], answer["height"]) == (24, 40)


def test_boxes(finder: TestClient) -> None:
    (answer,) = finder.post("/predict", files=files(PNG)).json()["answers"]
    assert (answer["label"], answer["probabilities"]) == (None, None)
    assert answer["boxes"][0] == {"label": "dog", "score": 0.9, "box": [0, 0, 20, 24]}
    assert len(answer["boxes"]) == 3


BAD = {
    "text": (b"no picture", 415, "not a picture"),
    "web page": (b"<!doctype html><p>", 415, "a web page, not a picture"),
    "empty": (b"", 422, "an empty file"),
    "cut off": (encoded(picture(size=(90, 90)))[:-40], 422, "cannot be decoded"),
    "too many pixels": (encoded(picture(size=(101, 100))), 413, "101 x 100 pixels, more than 10,000"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_picture_is_a_sentence_that_names_it(finder: TestClient, kind: str) -> None:
    data, status, said = BAD[kind]
    told = finder.post("/predict", files=files(PNG, data))
    assert told.status_code == status
    assert told.json()["detail"].startswith("1.png: ")
    assert said in told.json()["detail"]


def test_a_request_without_pictures_is_a_sentence(finder: TestClient) -> None:
    for asked in (
        finder.post("/predict"),
        finder.post("/predict", data={"files": "text"}),
        finder.post("/predict", json={"files": []}),
    ):
        assert asked.status_code == 422
        assert asked.json()["detail"].startswith("no pictures: post them as multipart/form-data")


def test_too_many_pictures_and_too_many_bytes(finder: TestClient) -> None:
    many = finder.post("/predict", files=files(PNG, PNG, PNG, PNG))
    assert (many.status_code, many.json()["detail"]) == (413, "4 pictures: send at most 3 at once")
    wanted = "a request may have 20,000 bytes: send fewer or smaller pictures"
    large = finder.post("/predict", files=files(b"x" * 30_000))
    assert (large.status_code, large.json()["detail"]) == (413, wanted)

    def pieces() -> Iterator[bytes]:  # no Content-Length: counted as it comes
        yield b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
        for _ in range(30):
            yield b"x" * 1000

    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    growing = finder.post("/predict", content=pieces(), headers=kind)
    assert (growing.status_code, growing.json()["detail"]) == (413, wanted)


def test_requests_beyond_the_limit_are_told_to_come_again() -> None:
    begun, finish = threading.Semaphore(0), threading.Event()

    class Slow(fakes.Finder):
        def answer(self, seen: Sequence[Any]) -> list[Any]:
            begun.release()
            finish.wait(20)
            return super().answer(seen)

    with TestClient(create_app(Slow(), fakes.ABOUT, limits=Limits(requests=1))) as client:
        told: list[int] = []
        first = threading.Thread(target=lambda: told.append(client.post("/predict", files=files(PNG)).status_code))
        first.start()
        assert begun.acquire(timeout=20)
        refused = client.post("/predict", files=files(PNG))
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        assert refused.json()["detail"].startswith("1 requests are being answered already")
        assert client.get("/health").json() == {"status": "ok"}, "only what costs is limited"
        finish.set()
        first.join()
        assert told == [200]
        assert client.post("/predict", files=files(PNG)).status_code == 200


def test_a_body_that_does_not_arrive_is_given_up() -> None:
    kind = (b"content-type", b"multipart/form-data; boundary=b")
    scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": [kind]}
    begun = iter([{"type": "http.request", "body": b"--b\r\n", "more_body": True}])
    sent: list[Message] = []

    async def receive() -> Message:
        for part in begun:
            return part
        return await asyncio.Future()  # nothing more comes

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(create_app(fakes.Finder(), fakes.ABOUT, limits=Limits(seconds=0.05))(scope, receive, send))
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"]) == {"detail": "the request took more than 0.05 s to arrive"}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_no_answer(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Found(probabilities={"cat": value})
    with pytest.raises(ValidationError, match="finite"):
        Box(label="cat", score=value, box=(0, 0, 1, 1))
    with pytest.raises(ValidationError, match="finite"):
        Box(label="cat", score=1, box=(0, 0, 1, value))


def test_a_model_that_says_no_number_is_an_error_and_the_next_picture_is_answered() -> None:
    class Unsure(fakes.Finder):
        share = math.nan

        def answer(self, seen: Sequence[Look]) -> list[Found]:
            return [Found(probabilities={"cat": self.share}) for _ in seen]

    network = Unsure()
    with TestClient(create_app(network, fakes.ABOUT), raise_server_exceptions=False) as client:
        assert client.post("/predict", files=files(PNG)).status_code == 500
        network.share = 1.0
        (answer,) = client.post("/predict", files=files(PNG)).json()["answers"]
        assert answer["probabilities"] == {"cat": 1.0}


def test_another_name_for_this_machine_is_refused(finder: TestClient) -> None:
    assert finder.get("/health", headers={"Host": "evil.example"}).status_code == 400


def test_what_the_server_says_of_the_model(client: TestClient, project: Project) -> None:
    told = client.get("/model").json()
    metrics = tiny.read_json(project.root / "stages/evaluate/metrics.json")["test"]
    assert told["labels"] == ["blue", "red"]
    assert told["figures"][0] == {
        "name": "accuracy",
        "value": metrics["accuracy"],
        "low": metrics["accuracy_low"],
        "high": metrics["accuracy_high"],
        "note": "",
    }
    assert told["pictures"] == 6
    assert told["card"].startswith("# Model card")
    rows = tiny.read_json(project.root / "stages/evaluate/predictions.json")
    for label, said in told["said"].items():
        answered = [row["label"] for row in rows if row["fine_tuned"]["predicted"] == label]
        assert said == {"times": len(answered), "really": {name: answered.count(name) for name in said["really"]}}
    assert sum(said["times"] for said in told["said"].values()) == 6


def test_examples_are_test_pictures_with_what_was_said_of_them(client: TestClient, project: Project) -> None:
    shown = client.get("/model").json()["examples"]
    test = {(project.root / i.file_name).read_bytes(): i for i in tiny.manifest(project.root, "split", "test").images}
    assert shown
    for example in shown:
        data = client.get(f"/{example['picture']}").content
        assert test[data].label == example["label"]
        (answer,) = client.post("/predict", files=files(data)).json()["answers"]
        assert answer["label"] == example["predicted"]
        assert answer["probabilities"][answer["label"]] == pytest.approx(example["confidence"], abs=1e-5)
        small = client.get(f"/{example['thumbnail']}")
        assert small.headers["content-type"] == "image/jpeg"
    assert client.get("/examples/../../params.yaml").status_code == 404
    assert client.get("/examples/999.png").status_code == 404


def test_examples_say_whose_they_are(project: Project, tmp_path: Path) -> None:
    shutil.copytree(project.root / "stages", tmp_path / "stages")
    path, model = tmp_path / "stages/split/test.json", tmp_path / "stages/export"
    test = coco.read(path)
    known: list[dict[str, str]] = [{"author": "Ada", "license": "CC BY 4.0"}, {"license": "CC0"}, {}]
    images = tuple(image.model_copy(update=known[number % 3]) for number, image in enumerate(test.images))
    coco.write(test.model_copy(update={"images": images}), path)
    wanted = {tmp_path / i.file_name: ("Ada, CC BY 4.0", "CC0", "")[n % 3] for n, i in enumerate(images)}
    found = examples(model)
    assert {"Ada, CC BY 4.0", "CC0", ""} == {sample.credit for sample in found}
    for shown in (found, about(model, found).examples):
        assert [one.credit for one in shown] == [wanted[sample.path] for sample in found]


def test_figures_of_the_model_before_it_was_int8_say_so(project: Project, tmp_path: Path) -> None:
    shutil.copytree(project.root / "stages", tmp_path / "stages")
    path = tmp_path / "stages/export/parity.json"
    for after, said in ((0.747, "lost 0.003"), (0.76, "gained 0.010")):
        int8 = {"accuracy": after, "accuracy_fp32": 0.75, "bytes": 1, "bytes_fp32": 4, "calibrated_on": 12}
        path.write_text(json.dumps(tiny.read_json(path) | {"int8": int8}))
        notes = {figure.name: figure.note for figure in about(path.parent, []).figures}
        assert notes == {
            "accuracy": f"of the fp32 model; int8 {said} on the same pictures",
            "balanced accuracy": "of the fp32 model",
        }


def test_a_model_alone_has_no_figures(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "somewhere"
    folder.mkdir()
    for name in ("model.onnx", "labels.json"):
        (folder / name).write_bytes((project.root / "stages/export" / name).read_bytes())
    told = about(folder, examples(folder))
    assert (told.labels, told.figures, told.examples, told.said, told.card) == (["blue", "red"], [], [], {}, "")


def test_the_docs_page_takes_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs").text
    for said in ("POST /predict", "GET /health", "GET /model", "milliseconds", "not a picture", "curl -F files=@"):
        assert said in page
    assert "<script" not in page
    assert set(re.findall(r"https?://[^/\s<\"]+", page)) == {"http://127.0.0.1:8000"}
    assert set(client.get("/openapi.json").json()["paths"]) == {"/predict", "/health", "/model"}


def test_the_page_takes_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/").text
    assert "Content-Security-Policy" in page
    for name in ("page.js", "page.css", "answer.js"):
        text = client.get(f"/{name}").text
        assert text
        assert "//" not in re.sub(r"// .*|import.meta.*", "", text.replace("http://www.w3.org", ""))


class Doubler:
    """Doubles numbers, once it may; 13 is refused. `seen` is what came together."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.seen: list[list[int]] = []
        self.entered, self.go_on = threading.Event(), threading.Event()
        self._error = error

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.seen.append(list(items))
        self.entered.set()
        assert self.go_on.wait(20)
        if self._error and 13 in items:
            raise self._error
        return [2 * item for item in items]


def test_a_batch_is_those_who_wait() -> None:
    double = Doubler()
    batcher: Batcher[int, int] = Batcher(double, most=4)
    first = batcher.submit(0)
    assert double.entered.wait(20)  # the first is at work, alone; the others gather
    others = [batcher.submit(number) for number in range(1, 7)]
    others[0].cancel()
    double.go_on.set()
    found = [first.result(), *(one.result() for one in others[1:]), batcher.submit(9).result()]
    batcher.close()
    assert found == [0, 4, 6, 8, 10, 12, 18]
    assert double.seen == [[0], [2, 3, 4], [5, 6], [9]], "the cancelled one is not computed"


def test_who_no_longer_waits_is_not_computed() -> None:
    double = Doubler()
    batcher: Batcher[int, int] = Batcher(double, most=4)

    async def ask(item: int) -> int:
        return await asyncio.wrap_future(batcher.submit(item))

    async def all_of_them() -> tuple[int, int]:
        first = asyncio.create_task(ask(0))
        assert await asyncio.to_thread(double.entered.wait, 20)
        gone, other = asyncio.create_task(ask(1)), asyncio.create_task(ask(2))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        double.go_on.set()
        return await first, await other

    assert asyncio.run(all_of_them()) == (0, 4)
    batcher.close()
    assert double.seen == [[0], [2]]


class Panic(BaseException):
    """As of code in Rust."""


@pytest.mark.parametrize("error", [PictureError("broken", "thirteen"), Panic("thirteen")])
def test_an_error_reaches_all_of_its_batch_and_none_after(error: BaseException) -> None:
    double = Doubler(error)
    batcher: Batcher[int, int] = Batcher(double, most=4)
    first = batcher.submit(12)
    assert double.entered.wait(20)
    others = [batcher.submit(number) for number in (13, 14)]
    double.go_on.set()
    assert first.result() == 24
    assert [one.exception(20) for one in others] == [error, error]
    assert batcher.submit(2).result() == 4
    batcher.close()


def test_a_file_is_read_when_its_turn_is_near_and_does_not_wait_for_the_model() -> None:
    many = 5 * cores()
    read: list[None] = []
    freed: list[None] = []
    decode, say = threading.Event(), threading.Event()

    class Data(bytes):
        def __del__(self) -> None:
            freed.append(None)

    class Slow(fakes.Finder):
        def look(self, data: bytes, max_pixels: int) -> Look:
            assert decode.wait(20)
            return super().look(data, max_pixels)

        def answer(self, seen: Sequence[Look]) -> list[Found]:
            assert say.wait(20)
            return super().answer(seen)

    async def file() -> bytes:
        read.append(None)
        return Data(PNG)

    async def ask() -> int:
        engine = Engine(Slow(), max_pixels=10_000)
        answers = asyncio.gather(*(engine.answer("", file) for _ in range(many)))
        await asyncio.sleep(0)
        near = len(read)
        decode.set()
        async with asyncio.timeout(20):
            while len(freed) < many:
                await asyncio.sleep(0.001)
        say.set()
        await answers
        engine.close()
        return near

    assert asyncio.run(ask()) == 2 * cores()


def test_no_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.onnx: no such file; make it: dvc repro"):
        serve(tmp_path, "127.0.0.1", 0)


def test_a_port_in_use_is_one_line(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port {port}: .*in use; name another: --port {port % 60000 + 1}"):
            serve(project.root / "stages/export", "127.0.0.1", port)


def test_a_request_under_way_is_answered_before_the_end(project: Project) -> None:
    source = str(Path(sys.modules["headstart"].__file__ or "").parent.parent)
    paths = os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-c", "from headstart.cli import main; main()", "serve", "--port", "0"],
        cwd=project.root,
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    line = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
    assert found, line
    body = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n' + PNG + b"\r\n--b--\r\n"
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    kind = "Content-Type: multipart/form-data; boundary=b\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection(("127.0.0.1", int(found[1])), timeout=30) as link:
        link.sendall((head + kind).encode())
        assert link.recv(100).startswith(b"HTTP/1.1 100"), "it has begun to read"
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        link.sendall(body)
        answer = b""
        while chunk := link.recv(65536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 200")
    assert set(json.loads(answer.split(b"\r\n\r\n", 1)[1])["answers"][0]["probabilities"]) == {"blue", "red"}
    _, said = process.communicate(timeout=30)
    assert process.returncode in (0, -signal.SIGTERM)
    assert said == "", "no traceback"


def test_an_answer_does_not_wait_for_the_acknowledgement_of_its_head() -> None:
    """Accepted connections inherit it; Nagle's algorithm costs each answer 40 ms."""
    with _listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
