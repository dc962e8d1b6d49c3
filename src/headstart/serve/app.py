"""The server's addresses: POST /predict, GET /health, GET /model, the page at /, and what they are at /docs."""

import asyncio
import importlib.resources
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import jinja2
from fastapi import FastAPI, File, HTTPException, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.middleware.trustedhost import TrustedHostMiddleware

from headstart.door import PictureError, pil_set_up
from headstart.gallery import thumbnail
from headstart.serve.about import Sample
from headstart.serve.engine import BATCH, Engine, Network
from headstart.serve.guard import Guard, Limits
from headstart.serve.schema import About, Answer, Answers, Health, Problem

PAGE = Path(str(importlib.resources.files("headstart.serve") / "page"))
_STATUS = {"too_large": 413, "not_a_picture": 415, "web_page": 415}  # of a PictureError's kind; of all others 422


def create_app(
    network: Network,
    about: About,
    samples: Sequence[Sample] = (),
    *,
    limits: Limits | None = None,
    hosts: list[str] | None = None,
    batch: int = BATCH,
) -> FastAPI:
    """The application around a network.

    Args:
        network: what answers.
        about: what /model and the page say of it.
        samples: the test pictures that `about` names.
        limits: what a request may cost.
        hosts: the names a browser may call this server by (a foreign page that resolves its own name to this machine
            uses another); None: any.
        batch: pictures at most in one pass of the network.
    """
    limits = limits or Limits()
    engine = Engine(network, max_pixels=limits.pixels, batch=batch)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with pil_set_up():
            yield
        engine.close()

    problems: dict[int | str, dict[str, Any]] = {
        code: {"model": Problem, "description": said}
        for code, said in {
            408: "the request took too long to arrive",
            413: "too many bytes, pictures or pixels",
            415: "not a picture",
            422: "a picture that cannot be decoded, or no field `files`",
            429: "too many requests at once",
        }.items()
    }
    app = FastAPI(
        title="headstart serve",
        version="1",
        description=f"What the model sees in pictures: {', '.join(about.labels)}.",
        docs_url=None,  # FastAPI's own page takes its script from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(Guard, limits=limits)
    if hosts is not None:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    app.add_exception_handler(RequestValidationError, _no_files)

    @app.post("/predict", response_model=Answers, responses=problems)
    async def predict(
        files: Annotated[list[UploadFile], File(description=f"pictures, at most {limits.files}")],
    ) -> Response:
        """What the model sees in each picture. If one of them is bad there are no answers, and the problem names it."""
        if len(files) > limits.files:
            raise HTTPException(413, f"{len(files)} pictures: send at most {limits.files} at once")
        # All are waited for, so that none is still at work when the first bad one is told.
        found = await asyncio.gather(*(_answer(engine, file) for file in files), return_exceptions=True)
        answers = []
        for file, answer in zip(files, found, strict=True):
            if isinstance(answer, PictureError):
                raise HTTPException(_STATUS.get(answer.kind, 422), f"{file.filename or 'picture'}: {answer}")
            if isinstance(answer, BaseException):
                raise answer
            answers.append(answer)
        # As JSON at once: what FastAPI is given as a model it validates and copies first.
        return Response(Answers(answers=answers).model_dump_json(), media_type="application/json")

    @app.get("/health")
    async def health() -> Health:
        """Whether the server answers."""
        return Health()

    @app.get("/model")
    async def model() -> About:
        """The model: labels, test figures with intervals, what it gets wrong, its card."""
        return about

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(_docs(app.openapi()))

    pictures = {sample.picture: sample.path for sample in samples}
    thumbnails = {sample.thumbnail: sample.path for sample in samples}

    @app.get("/examples/{name}", include_in_schema=False)
    def example(request: Request) -> Response:  # no `async`: thumbnails are made in a thread
        address = request.url.path.removeprefix("/")
        if address in pictures:
            return FileResponse(pictures[address])
        if address in thumbnails:
            return Response(thumbnail(thumbnails[address]), media_type="image/jpeg")
        raise HTTPException(404, f"{address}: no such test picture")

    app.mount("/", StaticFiles(directory=PAGE, html=True))
    return app


async def _answer(engine: Engine, file: UploadFile) -> Answer:
    return await engine.answer(file.filename or "", file.read)


async def _no_files(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return JSONResponse({"detail": "no pictures: post them as multipart/form-data, each in a field `files`"}, 422)


def _docs(schema: dict[str, Any]) -> str:
    """The schema as a page: no script, nothing from elsewhere."""
    environment = jinja2.Environment(loader=jinja2.PackageLoader("headstart"), autoescape=True, trim_blocks=True)
    return environment.get_template("api.html.j2").render(schema=schema)
