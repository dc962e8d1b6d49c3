"""The FastAPI app: POST /predict, GET /health, GET /model, the page at /, and the API's documentation at /docs."""

import asyncio
import importlib.resources
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

import jinja2
from fastapi import FastAPI, File, HTTPException, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as StarletteHTTPException

from headstart.export.speed import SERVING_BATCH
from headstart.images.decode import PictureError, configured_pil
from headstart.images.thumbnail import make_thumbnail
from headstart.serve.examples import ExampleFile
from headstart.serve.host_names import HostNames
from headstart.serve.prediction_service import PredictionService, ServedModel
from headstart.serve.request_limits import Ending, RequestLimiter, RequestLimits
from headstart.serve.schema import ErrorResponse, HealthResponse, ImagePrediction, ModelInfo, PredictResponse

PAGE = Path(str(importlib.resources.files("headstart.serve") / "page"))
_TASK_NAMES = {"classify": "Image classifier", "detect": "Object detector"}
# By PictureError.kind; all others: 422.
_STATUS_OF_KIND = {"too_large": 413, "not_a_picture": 415, "web_page": 415, "heic": 415}
_ERROR_DESCRIPTIONS = {
    408: "the request took too long to arrive",
    413: "too many bytes, pictures or pixels",
    415: "not a picture",
    422: "a picture that cannot be decoded, or no field `files`",
    429: "too many requests at once",
}


def create_app(
    model: ServedModel,
    info: ModelInfo,
    examples: Sequence[ExampleFile] = (),
    *,
    limits: RequestLimits | None = None,
    hosts: Sequence[str] | None = None,
    ending: Ending | None = None,
    max_batch: int = SERVING_BATCH,
) -> FastAPI:
    """The web app of a model.

    Args:
        model: what predicts.
        info: the response of /model, which the page shows.
        examples: the test pictures that `info` refers to.
        limits: of a request.
        hosts: names that a request may call the server by, beside the address that it came to; None: any.
        ending: told by the server when it is to end.
        max_batch: pictures at most in one pass of the model.
    """
    limits = limits or RequestLimits()
    service = PredictionService(model, max_pixels=limits.max_pixels, max_batch=max_batch)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with configured_pil():
            yield
        service.close()

    app = FastAPI(
        title="headstart serve",
        version="1",
        description=f"{_TASK_NAMES.get(info.task, info.task)}; labels: {', '.join(info.labels)}.",
        docs_url=None,  # FastAPI's own page loads its script from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(RequestLimiter, limits=limits, ending=ending)
    if hosts is not None:
        app.add_middleware(HostNames, names=hosts)
    app.add_exception_handler(RequestValidationError, _missing_files_response)
    app.add_exception_handler(StarletteHTTPException, _not_found_response)
    _add_api(app, service, info, limits)
    _add_examples(app, examples)
    app.mount("/", StaticFiles(directory=PAGE, html=True))
    return app


def _add_api(app: FastAPI, service: PredictionService, info: ModelInfo, limits: RequestLimits) -> None:
    error_responses: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorResponse, "description": text} for status, text in _ERROR_DESCRIPTIONS.items()
    }

    @app.post("/predict", response_model=PredictResponse, responses=error_responses)
    async def predict(
        files: Annotated[list[UploadFile], File(description=f"pictures, at most {limits.max_files}")],
    ) -> Response:
        """The prediction for each picture. One bad picture fails the whole request; the error names it."""
        if len(files) > limits.max_files:
            raise HTTPException(413, f"{len(files)} pictures: send at most {limits.max_files} at once")
        predictions = await _predict_files(service, files)
        # JSON already: a model that FastAPI is given it validates and copies first.
        return Response(PredictResponse(predictions=predictions).model_dump_json(), media_type="application/json")

    @app.get("/health")
    async def health() -> HealthResponse:
        """Whether the server is up."""
        return HealthResponse()

    @app.get("/model")
    async def model() -> ModelInfo:
        """The model: labels, test metrics with confidence intervals, confusion matrix, model card."""
        return info

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(_render_docs(app.openapi()))


def _add_examples(app: FastAPI, examples: Sequence[ExampleFile]) -> None:
    pictures = {example.picture: example.path for example in examples}
    thumbnails = {example.thumbnail: example.path for example in examples}

    @app.get("/examples/{name}", include_in_schema=False)
    def example(request: Request) -> Response:  # no `async`: thumbnails are made in a thread
        url = request.url.path.removeprefix("/")
        if url in pictures:
            return FileResponse(pictures[url])
        if url in thumbnails:
            return Response(make_thumbnail(thumbnails[url]), media_type="image/jpeg")
        raise HTTPException(404, f"{url}: no such test picture")


async def _predict_files(service: PredictionService, files: Sequence[UploadFile]) -> list[ImagePrediction]:
    """Predictions in the order of the files.

    Raises:
        HTTPException: for the first file that is no picture, after all of them have been processed.
    """
    results = await asyncio.gather(
        *(service.predict(file.filename or "", file.read) for file in files), return_exceptions=True
    )
    predictions = []
    for file, result in zip(files, results, strict=True):
        if isinstance(result, PictureError):
            raise HTTPException(_STATUS_OF_KIND.get(result.kind, 422), f"{file.filename or 'picture'}: {result}")
        if isinstance(result, BaseException):
            raise result
        predictions.append(result)
    return predictions


async def _not_found_response(request: Request, error: Exception) -> JSONResponse:
    """A 404 or 405 in a sentence, unless it has one."""
    assert isinstance(error, StarletteHTTPException)
    detail = error.detail
    if detail == HTTPStatus(error.status_code).phrase:
        detail = f"{request.method} {request.url.path[:80]}: not here; the page is at /, the API is described at /docs"
    return JSONResponse({"detail": detail}, error.status_code, error.headers)


async def _missing_files_response(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return JSONResponse({"detail": "no pictures: post them as multipart/form-data, each in a field `files`"}, 422)


def _render_docs(schema: dict[str, Any]) -> str:
    """The OpenAPI schema as an HTML page: no script, nothing loaded from elsewhere."""
    environment = jinja2.Environment(loader=jinja2.PackageLoader("headstart.serve"), autoescape=True, trim_blocks=True)
    return environment.get_template("api.html.j2").render(schema=schema)
