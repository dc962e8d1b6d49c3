"""The export as a model of MLflow's: logged with its run, registered under a name, and its champion if it is better."""

import base64
import io
import json
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from headstart import coco, sitting
from headstart.errors import UserError
from headstart.files import read_json
from headstart.params import Params

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import Model, ModelSignature
    from mlflow.tracking import MlflowClient

# What a logged model carries of headstart: `servable` and all that it imports.
CODE = (
    "__init__",
    "coco",
    "door",
    "draw",
    "errors",
    "files",
    "jpeg",
    "kept",
    "pixels",
    "pool",
    "predict",
    "progress",
    "ranks",
    "section",
    "servable",
)
NEEDED = ("mlflow", "numpy", "onnxruntime", "pillow", "pydantic", "rich")  # to serve; in the versions installed here
CHAMPION = "champion"  # the alias
ANSWERS = f"export/{sitting.NAME}"  # where a run keeps what its model said of the test pictures
LINKS = "mlflow.modelVersions"  # MLflow's own tag, by which its page shows a logged model's versions


def log(client: "MlflowClient", run: "Run", folder: Path) -> "LoggedModel":
    """The exported model as a logged model of this run; one that the run has already is not logged again.

    Args:
        client: of the store.
        run: which the model comes from.
        folder: stages/export.
    """
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    run_id, experiment = run.info.run_id, run.info.experiment_id
    for found in client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'"):
        if found.status == "READY":
            return found
    logged = client.create_logged_model(experiment, "export", source_run_id=run_id)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            about = {"run_id": run_id, "model_uuid": logged.model_id, "model_id": logged.model_id}
            save(Path(scratch), folder, Model(logged.artifact_location, **about))
            client.log_model_artifacts(logged.model_id, str(Path(scratch) / "model"))
    except BaseException:
        client.finalize_logged_model(logged.model_id, "FAILED")
        raise
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return client.finalize_logged_model(logged.model_id, "READY")


def publish(client: "MlflowClient", run: "Run", params: Params, root: Path) -> str:
    """Register this run's model under `export.register`, and give it the alias if it is better than who has it.

    The reason is left as a tag of the run and of the version.

    Returns:
        what was done and why, in one line.
    """
    name = params.export.register_as
    made = _version(client, run, log(client, run, root / "stages/export"), name)
    holder = client.get_registered_model(name).aliases.get(CHAMPION)
    if str(holder) == str(made.version):
        return f"{name} version {made.version} is the {CHAMPION} already"
    moves, reason = _judge(client, name, holder, params, root)
    if moves:
        client.set_registered_model_alias(name, CHAMPION, made.version)
    said = f"{'is' if moves else 'is not'} the {CHAMPION}: {reason}"
    client.set_model_version_tag(name, made.version, "headstart.champion", said)
    for key, value in {"registered": f"{name} version {made.version}", "champion": said}.items():
        client.set_tag(run.info.run_id, f"headstart.{key}", value)
    return f"{name} version {made.version} {said}"


def save(scratch: Path, folder: Path, about: "Model") -> None:
    """Write `scratch`/model, a model as MLflow reads it: the exported folder, the code that answers, what they need."""
    import pandas as pd
    from mlflow import pyfunc

    code = scratch / "headstart"
    code.mkdir()
    for module in CODE:
        shutil.copyfile(Path(__file__).parent / f"{module}.py", code / f"{module}.py")
    pyfunc.save_model(
        scratch / "model",
        mlflow_model=about,
        loader_module="headstart.servable",
        data_path=str(folder),
        code_paths=[str(code)],
        signature=_signature(read_json(folder / "labels.json")["task"]),
        input_example=pd.DataFrame({"image": [_example()]}),
        pip_requirements=[f"{package}=={version(package)}" for package in NEEDED],
    )


def _signature(task: str) -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import AnyType, Array, Map, Object, Property

    if task == "detect":
        sides = Property("box", Array(DataType.double))
        box = Object([Property("label", DataType.string), Property("score", DataType.double), sides])
        outputs = Schema([ColSpec(Array(box), "boxes")])
    else:
        shares = ColSpec(Map(DataType.double), "probabilities")
        outputs = Schema([ColSpec(DataType.string, "label"), ColSpec(DataType.double, "probability"), shares])
    # Bytes where Python asks, base64 over HTTP, or a path: no type of MLflow's but this one is all of them.
    anything = AnyType()  # type: ignore[no-untyped-call]
    return ModelSignature(inputs=Schema([ColSpec(anything, "image")]), outputs=outputs)


def _example() -> str:
    """A grey picture in base64: the test pictures may have a licence that forbids to hand them on."""
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "#808080").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _version(client: "MlflowClient", run: "Run", logged: "LoggedModel", name: str) -> "ModelVersion":
    """The run's version under this name; made at first use, as is the name."""
    from mlflow.exceptions import MlflowException

    for found in client.search_model_versions(f"run_id = '{run.info.run_id}'"):
        if found.name == name:
            return found
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # Not models:/<id>, which MLflow would look up in the store of the environment instead of the client's.
    where = logged.artifact_location
    made = client.create_model_version(name, where, run_id=run.info.run_id, model_id=logged.model_id)
    links = json.loads(logged.tags.get(LINKS, "[]"))
    links.append({"name": name, "version": made.version})
    client.set_logged_model_tags(logged.model_id, {LINKS: json.dumps(links)})
    return made


def _judge(client: "MlflowClient", name: str, holder: str | None, params: Params, root: Path) -> tuple[bool, str]:
    """Whether this export takes the alias from the version that holds it, and why."""
    if holder is None:
        return True, "the name had none"
    mine = sitting.read(root / "stages" / ANSWERS)
    theirs = _answers(client, client.get_model_version(name, holder))
    by_hand = "move the alias by hand in MLflow's page if you want to"
    if theirs is None:
        return False, f"version {holder} holds it, and nothing says what that answered in the test; {by_hand}"
    if (mine.exam, set(mine.labels)) != (theirs.exam, set(theirs.labels)):
        return False, (
            f"version {holder} holds it and was judged on other test pictures (exam {theirs.exam}, here {mine.exam}), "
            f"so the two cannot be compared; {by_hand}"
        )
    from headstart.champion import compare

    test = coco.read(root / "stages/split/test.json")
    metric = params.champion_metric
    found = compare(test, mine, theirs, metric, params.evaluate.bootstrap, params.seed)
    gain = found.gain
    figures = (
        f"{metric} {found.mine:.4f} against {found.theirs:.4f} of version {holder} on the same {len(test.images)} test "
        f"pictures, better by {gain.value:.4f} (95 % interval {gain.low:.4f} to {gain.high:.4f}"
    )
    return found.better, figures + (", above 0)" if found.better else ", not above 0)")


def _answers(client: "MlflowClient", champion: "ModelVersion") -> sitting.Sitting | None:
    """What a registered version said of its test pictures; None: it was registered by somebody else's hand."""
    from mlflow.exceptions import MlflowException
    from pydantic import ValidationError

    if not champion.run_id:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        try:
            return sitting.read(Path(client.download_artifacts(champion.run_id, ANSWERS, scratch)))
        except (MlflowException, OSError, ValidationError, UserError):
            return None
