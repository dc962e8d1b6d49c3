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
from headstart.base.errors import UserError
from headstart.base.files import read_json
from headstart.base.manifest import read_manifest
from headstart.export.saved_predictions import FILE_NAME, SavedPredictions, read_predictions
from headstart.params.root import Params

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
    "export/__init__",
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
PREDICTIONS_ARTIFACT = f"export/{FILE_NAME}"  # a run's test predictions
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
        params: `export.register`, the champion's metric, the bootstrap's resamples and seed.
        root: the repository root.

    Returns:
        the decision and its reason, in one line.
    """
    name = params.export.register_as
    number = _get_or_create_version(client, run, log_model(client, run, root / "stages/export"), name).version
    champion = client.get_registered_model(name).aliases.get(CHAMPION_ALIAS)
    if str(champion) == str(number):
        return f"{name} version {number} is the {CHAMPION_ALIAS} already"
    is_better, reason = _compare_with_champion(client, name, champion, params, root)
    if is_better:
        client.set_registered_model_alias(name, CHAMPION_ALIAS, number)
    decision = f"{'is' if is_better else 'is not'} the {CHAMPION_ALIAS}: {reason}"
    client.set_model_version_tag(name, number, "headstart.champion", decision)
    for key, value in {"registered": f"{name} version {number}", "champion": decision}.items():
        client.set_tag(run.info.run_id, f"headstart.{key}", value)
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
        probabilities = ColSpec(Map(DataType.double), "probabilities")
        outputs = Schema([ColSpec(DataType.string, "label"), ColSpec(DataType.double, "probability"), probabilities])
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


def _compare_with_champion(
    client: "MlflowClient", name: str, champion: str | None, params: Params, root: Path
) -> tuple[bool, str]:
    """Whether this export is better than the version that is champion (None: no version is), and why."""
    if champion is None:
        return True, "there was none before"
    candidate = read_predictions(root / "stages" / PREDICTIONS_ARTIFACT)
    baseline = _champion_predictions(client, client.get_model_version(name, champion))
    by_hand = "move the alias by hand in MLflow's page if you want to"
    if baseline is None:
        return False, f"version {champion} is, and its run has no test predictions to compare with; {by_hand}"
    from headstart.export.comparison import common_test_set, compare_predictions

    test = read_manifest(root / "stages/split/test.json")
    common = common_test_set(test, candidate, baseline) if set(candidate.labels) == set(baseline.labels) else None
    if common is None:
        return False, (
            f"version {champion} is, and it was evaluated on another test set ({baseline.test_set}, here "
            f"{candidate.test_set}), so the two cannot be compared; {by_hand}"
        )
    metric = params.champion_metric
    comparison = compare_predictions(common, candidate, baseline, metric, params.evaluate.bootstrap, params.seed)
    gain = comparison.gain
    reason = (
        f"{metric} {comparison.candidate:.4f} against {comparison.baseline:.4f} of version {champion} on the same "
        f"{len(common.images)} test pictures, better by {gain.value:.4f} (95 % interval {gain.low:.4f} to "
        f"{gain.high:.4f}, {'above 0' if comparison.is_better else 'not above 0'})"
    )
    return comparison.is_better, reason


def _champion_predictions(client: "MlflowClient", champion: "ModelVersion") -> SavedPredictions | None:
    """The test predictions of a registered version; None: they are missing, as with a model registered by hand."""
    from mlflow.exceptions import MlflowException
    from pydantic import ValidationError

    if not champion.run_id:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        try:
            return read_predictions(Path(client.download_artifacts(champion.run_id, PREDICTIONS_ARTIFACT, scratch)))
        except (MlflowException, OSError, ValidationError, UserError):
            return None
