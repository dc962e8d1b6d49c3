"""The command line: load params, open tracking, call one function. What a stage does is in its own module."""

import atexit
import gc
import io
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headstart import tasks
from headstart.base import distributed
from headstart.base.cache_dir import cache_budget
from headstart.base.errors import UserError, root_above
from headstart.base.one_line import one_line
from headstart.base.stage_lock import stage_lock

if TYPE_CHECKING:
    from headstart.params.root import Params

app = typer.Typer(
    help="A custom image classifier or object detector from a pretrained network. "
    "`dvc repro` runs the stages; the other commands are typed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # our own bugs get a plain traceback
)

PIPELINE_PANEL, MODEL_PANEL, TOOLS_PANEL = (
    "The stages, in the order of `dvc repro`",
    "The exported model",
    "Beside the pipeline",
)

# A training's checkpoints are kept until the stage after it begins: by then DVC has recorded it.
TRAINED_BEFORE = {"fine-tune": "train-head", "evaluate": "fine-tune"}
# Run by all processes that `launcher` starts; the first one does all other work.
DISTRIBUTED_STAGES = ("train-head", "fine-tune")


def run_stage(name: str) -> None:
    """Run one stage in the current folder, and record it."""
    from headstart.params.reader import load_params
    from headstart.tracking.recorder import recorded_stage

    if distributed.launched_world_size() > 1 and distributed.get_rank() and name not in DISTRIBUTED_STAGES:
        return
    root = Path.cwd()
    loaded = load_params(Path("params.yaml"))
    try:
        budget = cache_budget(root, loaded.train.cache_gb)
        with stage_lock(root, name), recorded_stage(name, loaded, root), budget:
            stage = _load_stage(name, loaded)
            if name in TRAINED_BEFORE:
                from headstart.training import checkpoint

                checkpoint.remove_finished(root, TRAINED_BEFORE[name])
            stage(loaded, root)
    except KeyboardInterrupt as stop:
        if not stop.args:  # a training prints a line of its own
            print(f"{name}: stopped; `dvc repro` goes on with what is cached", file=sys.stderr)
        raise


def _load_stage(name: str, params: "Params") -> tasks.Stage:
    """The stage's function. The garbage collector would find nothing in imports, and takes a quarter of their time."""
    gc.disable()
    try:
        if name in DISTRIBUTED_STAGES:
            distributed.init_distributed()
        return tasks.load(name, params)
    finally:
        gc.freeze()
        gc.enable()


@app.command(rich_help_panel=PIPELINE_PANEL)
def fetch() -> None:
    """Fetch the pictures of fetch.sources: decoded, upright, hashed, in one manifest."""
    run_stage("fetch")


@app.command(rich_help_panel=PIPELINE_PANEL)
def weights() -> None:
    """Fetch the pretrained weights."""
    run_stage("weights")


@app.command(rich_help_panel=PIPELINE_PANEL)
def split() -> None:
    """Split the pictures into train, val and test; near-duplicates stay together."""
    run_stage("split")


@app.command(rich_help_panel=PIPELINE_PANEL)
def augment() -> None:
    """Store augmented copies of training pictures, and a preview."""
    run_stage("augment")


@app.command("train-head", rich_help_panel=PIPELINE_PANEL)
def train_head() -> None:
    """Train the new head on cached features of the frozen backbone."""
    run_stage("train-head")


@app.command("fine-tune", rich_help_panel=PIPELINE_PANEL)
def fine_tune() -> None:
    """Train the backbone above fine_tune.freeze_depth too, at a learning rate of its own."""
    run_stage("fine-tune")


@app.command(rich_help_panel=PIPELINE_PANEL)
def evaluate() -> None:
    """Evaluate both models on the test set; write the report."""
    run_stage("evaluate")


@app.command(rich_help_panel=PIPELINE_PANEL)
def export() -> None:
    """Write the ONNX model, and check it against the PyTorch model."""
    run_stage("export")


@app.command(rich_help_panel=MODEL_PANEL)
def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures, or folders of pictures.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list, for programs.")] = False,
    model: Annotated[Path, typer.Option(help="The folder with model.onnx and labels.json.")] = Path("stages/export"),
    draw: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Write the pictures with their boxes as new files into this folder."),
    ] = None,
) -> None:
    """Predict the labels or boxes of pictures with the exported model."""
    from headstart.export import prediction_files
    from headstart.export.predictor import Predictor
    from headstart.images.decode import configured_pil

    with configured_pil():
        found = list(Predictor(model).predict_files(prediction_files.find_images(images)))
        if draw is not None:
            written = prediction_files.save_images_with_boxes(found, draw)
            print(f"predict: {len(written):,} pictures with boxes in {draw}", file=sys.stderr)
    if as_json:
        is_unicode = sys.stdout.encoding.lower().startswith("utf")
        typer.echo(json.dumps([prediction_files.to_json_row(f) for f in found], indent=2, ensure_ascii=not is_unicode))
    else:
        for f in found:
            typer.echo(f"{prediction_files.printable_path(f.path)}: {prediction_files.to_text(f)}")
    if any(f.error for f in found):
        raise typer.Exit(1)


@app.command(rich_help_panel=MODEL_PANEL)
def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    host: Annotated[str, typer.Option(help="0.0.0.0: also for others on the network.")] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A further name of this server, such as a proxy's.")
    ] = None,
    model: Annotated[Path, typer.Option(help="The folder with model.onnx and labels.json.")] = Path("stages/export"),
) -> None:
    """Serve the exported model: a page to try it on, and an API for programs."""
    from headstart.serve.server import serve

    serve(model, host, port, allow_host or ())


@app.command(rich_help_panel=MODEL_PANEL)
def demo(
    out: Annotated[Path, typer.Argument(help="A new folder, for any web host.")],
    model: Annotated[Path, typer.Option(help="The folder with model.onnx and labels.json.")] = Path("stages/export"),
) -> None:
    """Write the page as a folder that needs no server: the model runs in the visitor's browser."""
    from headstart.serve.demo import write_demo

    write_demo(out, model)


@app.command("lr-find", rich_help_panel=TOOLS_PANEL)
def lr_find(
    stage: Annotated[str, typer.Argument(help="train-head or fine-tune; the stages before it must have run.")],
    out: Annotated[Path, typer.Option(help="The folder for lr-find.csv and lr-find.png.")] = Path("lr-find"),
) -> None:
    """Learning-rate range test of a training stage: suggests a rate; nothing of the stage is changed."""
    from headstart.params.reader import load_params
    from headstart.training.lr_finder import lr_find

    params = load_params(Path("params.yaml"))
    task = tasks.TASKS[params.task]
    stages = {"train-head": task.train_head, "fine-tune": task.fine_tune}
    rate = lr_find(stage, params, Path.cwd(), out, stages)
    no_slope = "no clear slope: the loss falls by no more than its noise, so there is no rate to suggest"
    suggestion = f"try {stage.replace('-', '_')}.lr: {rate:.1e}" if rate else no_slope
    typer.echo(f"{suggestion}; the curve is in {out}/lr-find.png")


@app.command(hidden=True)
def outside() -> None:
    """Renew outside/files.json: what sources read behind links or outside data/. A stage of DVC runs this."""
    from headstart.fetch.outside import write_outside
    from headstart.params.reader import load_params

    write_outside(load_params(Path("params.yaml")).fetch, Path.cwd())


cache_app = typer.Typer(help="The caches and checkpoints of the stages under .cache, and their sizes.")
app.add_typer(cache_app, name="cache", rich_help_panel=TOOLS_PANEL)


@cache_app.callback(invoke_without_command=True)
def cache(context: typer.Context) -> None:
    """Show the caches and checkpoints under .cache; `headstart cache clear` removes them."""
    if root := root_above():
        raise UserError(f".cache: not here; the project is in {root}: cd {root}")
    if context.invoked_subcommand is None:
        from headstart.base.cache_dir import list_entries, print_entries

        print_entries(list_entries(Path.cwd()))


@cache_app.command("clear")
def clear_cache(
    kind: Annotated[
        list[str] | None,
        typer.Option(help="Only this: pixels, embeddings, activations, cross-validation or checkpoints."),
    ] = None,
) -> None:
    """Remove cache entries; stages may run meanwhile, and make again what is missing."""
    from headstart.base.cache_dir import print_entries, remove_entries

    print_entries(remove_entries(Path.cwd(), kind or ()))


def main() -> None:
    """Run the app; what a user can mend is one line and exit code 2."""
    for stream in (sys.stdout, sys.stderr):  # no stage fails for a label that the terminal has no letters for
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    succeeded: list[bool] = []
    atexit.register(_exit_fast, succeeded)  # registered first, so it runs last
    try:
        with distributed.silence_other_ranks():
            app()
    except SystemExit as end:
        succeeded.append(not end.code)
        raise
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if not (line := one_line(error)):
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(2)


def _exit_fast(succeeded: list[bool]) -> None:
    """After success end here: everything is written, and Python's teardown of torch takes more than a second."""
    if any(succeeded) and Path(sys.argv[0]).stem == "headstart":
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    gc.unfreeze()  # triton complains of objects that outlive it
