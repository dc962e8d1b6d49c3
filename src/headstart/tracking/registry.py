"""MLflow's model registry: the export as a logged model, as a registered version, and as champion if it is better."""

import base64
import io
import json
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

import headstart
from headstart.base.files import read_json
from headstart.params.root import Params
from headstart.tracking.champion import challenge

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import Model, ModelSignature
    from mlflow.tracking import MlflowClient

# The modules of headstart that a logged model holds: tracking.pyfunc and all that it imports.
BUNDLED_MODULES = (
    "__init__",
    "base/__init__",
    "base/arrays",
    "base/errors",
    "base/files",
    "base/one_line",
    "engine/__init__",
    "engine/input_spec",
    "engine/tiles",
    "export/__init__",
    "export/answer_text",
    "export/model_prediction",
    "export/predictor",
    "images/__init__",
    "images/decode",
    "images/depth",
    "images/jpeg",
    "images/upright",
    "tracking/__init__",
    "tracking/pyfunc",
)
# Its requirements, pinned to the versions installed here.
SERVING_PACKAGES = ("mlflow", "numpy", "onnxruntime", "pillow", "pydantic")
CHAMPION_ALIAS = "champion"
VERSIONS_TAG = "mlflow.modelVersions"  # MLflow's own tag: its page shows a logged model's versions from it


def log_model(client: "MlflowClient", run: "Run", folder: Path) -> "LoggedModel":
    """Log the exported model with its run; a model that the run has already is not logged again.

    Args:
        client: of the store.
        run: whose model it is.
        folder: stages/export.
    """
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    run_id, experiment = run.info.run_id, run.info.experiment_id
    for logged in client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'"):
        if logged.status == "READY":
            return logged
    logged = client.create_logged_model(experiment, "export", source_run_id=run_id)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            ids = {"run_id": run_id, "model_uuid": logged.model_id, "model_id": logged.model_id}
            save_pyfunc(Path(scratch), folder, Model(logged.artifact_location, **ids))
            client.log_model_artifacts(logged.model_id, str(Path(scratch) / "model"))
    except BaseException:
        client.finalize_logged_model(logged.model_id, "FAILED")
        raise
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return client.finalize_logged_model(logged.model_id, "READY")


def register_model(client: "MlflowClient", run: "Run", params: Params, root: Path) -> str:
    """Register this run's model under `export.register`; set the alias `champion` if it beats the current champion.

    The decision and its reason become tags of the run and of the version.

    Args:
        client: of the store.
        run: whose model it is.
        params: `export.register`, the champion's metric and rule, the seed.
        root: the repository root.

    Returns:
        the decision and its reason, in one line.
    """
    name = params.export.register_as
    number = _get_or_create_version(client, run, log_model(client, run, root / "stages/export"), name).version
    champion = client.get_registered_model(name).aliases.get(CHAMPION_ALIAS)
    if str(champion) == str(number):
        return f"{name} version {number} is the {CHAMPION_ALIAS} already"
    outcome = challenge(client, name, number, champion, params, root)
    if outcome.is_champion:
        client.set_registered_model_alias(name, CHAMPION_ALIAS, number)
    decision = f"{'is' if outcome.is_champion else 'is not'} the {CHAMPION_ALIAS}: {outcome.reason}"
    tags = {"headstart.champion": decision, **outcome.tags}
    for key, value in tags.items():
        client.set_model_version_tag(name, number, key, value)
    for key, value in {"headstart.registered": f"{name} version {number}", **tags}.items():
        client.set_tag(run.info.run_id, key, value)
    return f"{name} version {number} {decision}"


def save_pyfunc(scratch: Path, folder: Path, model: "Model") -> None:
    """Write `scratch`/model, an MLflow python_function: the exported model, and the code that serves it.

    Args:
        scratch: an empty folder.
        folder: stages/export.
        model: MLflow's metadata, which is completed.
    """
    import pandas as pd
    from mlflow import pyfunc

    code = scratch / "headstart"
    for module in BUNDLED_MODULES:
        (code / module).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(headstart.__file__).parent / f"{module}.py", code / f"{module}.py")
    pyfunc.save_model(
        scratch / "model",
        mlflow_model=model,
        loader_module="headstart.tracking.pyfunc",
        data_path=str(folder),
        code_paths=[str(code)],
        signature=_signature(read_json(folder / "labels.json")["task"]),
        input_example=pd.DataFrame({"image": [_example_image()]}),
        pip_requirements=[f"{package}=={version(package)}" for package in SERVING_PACKAGES],
    )


def _signature(task: str) -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import AnyType, Array, Map, Object, Property

    if task == "detect":
        corners = Property("box", Array(DataType.double))
        box = Object([Property("label", DataType.string), Property("score", DataType.double), corners])
        outputs = Schema([ColSpec(Array(box), "boxes")])
    else:
        outputs = Schema(
            [
                ColSpec(DataType.string, "label"),
                ColSpec(DataType.double, "probability"),
                ColSpec(Map(DataType.double), "probabilities"),
                ColSpec(DataType.string, "answer"),
                ColSpec(Array(DataType.string), "labels_in_set"),
                ColSpec(DataType.boolean, "unknown"),
                ColSpec(DataType.double, "strangeness", required=False),
            ]
        )
    # Bytes from Python, base64 over HTTP, or a path: no other type of MLflow's covers all of them.
    image = AnyType()  # type: ignore[no-untyped-call]
    return ModelSignature(inputs=Schema([ColSpec(image, "image")]), outputs=outputs)


def _example_image() -> str:
    """A grey picture in base64: the test pictures may have a licence that forbids redistribution."""
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "#808080").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _get_or_create_version(client: "MlflowClient", run: "Run", logged: "LoggedModel", name: str) -> "ModelVersion":
    """The run's version of the registered model `name`; both are created at first use."""
    from mlflow.exceptions import MlflowException

    for existing in client.search_model_versions(f"run_id = '{run.info.run_id}'"):
        if existing.name == name:
            return existing
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # Not models:/<id>, which MLflow would look up in the store of the environment instead of the client's.
    source = logged.artifact_location
    created = client.create_model_version(name, source, run_id=run.info.run_id, model_id=logged.model_id)
    versions = json.loads(logged.tags.get(VERSIONS_TAG, "[]"))
    versions.append({"name": name, "version": created.version})
    client.set_logged_model_tags(logged.model_id, {VERSIONS_TAG: json.dumps(versions)})
    return created
