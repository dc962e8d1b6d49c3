"""The command line: load params, open tracking, call one function. What a stage does is in its own module."""

import errno
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from headstart import ranks
from headstart.errors import UserError

app = typer.Typer(
    help="A custom image classifier or object detector from a pretrained network. "
    "`dvc repro` runs the stages; the other commands are typed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # our own bugs get a plain traceback
)

PIPELINE, MODEL, BESIDE = "The stages, in the order of `dvc repro`", "The exported model", "Beside the pipeline"

# command -> (module, function): imported when the command runs, so that --help does not pay for torch.
STAGES = {
    "fetch": ("fetch", "fetch"),
    "weights": ("weights", "weights"),
    "split": ("split", "split_stage"),
    "augment": ("augment", "augment"),
    "train-head": ("train_head", "train_head"),
    "fine-tune": ("fine_tune", "fine_tune"),
    "evaluate": ("exam", "evaluate"),
    "export": ("export", "export"),
}
SHARED = ("train-head", "fine-tune")  # by all processes that `launcher` starts; the first one does all other work


def run(name: str) -> None:
    """Run one stage in the current folder, and record it."""
    from headstart import params_file, recorder

    if ranks.launched() > 1 and ranks.rank() and name not in SHARED:
        return
    root = Path.cwd()
    loaded = params_file.load(Path("params.yaml"))
    module, function = STAGES[name]
    try:
        with recorder.stage(name, loaded, root):
            if name in SHARED:
                ranks.start()
            stage: Callable[..., None] = getattr(importlib.import_module(f"headstart.{module}"), function)
            stage(loaded, root)
    except KeyboardInterrupt as stop:
        if not stop.args:  # a training says it itself
            print(f"{name}: stopped; `dvc repro` goes on with what is kept", file=sys.stderr)
        raise


@app.command(rich_help_panel=PIPELINE)
def fetch() -> None:
    """Bring the pictures of fetch.sources in: decoded, upright, hashed, in one manifest."""
    run("fetch")


@app.command(rich_help_panel=PIPELINE)
def weights() -> None:
    """Bring the pretrained weights in."""
    run("weights")


@app.command(rich_help_panel=PIPELINE)
def split() -> None:
    """Divide the pictures into train, val and test; duplicates stay together."""
    run("split")


@app.command(rich_help_panel=PIPELINE)
def augment() -> None:
    """Store changed copies of training pictures, and a preview sheet."""
    run("augment")


@app.command("train-head", rich_help_panel=PIPELINE)
def train_head() -> None:
    """Train the new head on the embeddings of the frozen trunk."""
    run("train-head")


@app.command("fine-tune", rich_help_panel=PIPELINE)
def fine_tune() -> None:
    """Train the trunk above fine_tune.freeze_depth too, at a rate of its own."""
    run("fine-tune")


@app.command(rich_help_panel=PIPELINE)
def evaluate() -> None:
    """Examine both models on the test pictures; write the report."""
    run("evaluate")


@app.command(rich_help_panel=PIPELINE)
def export() -> None:
    """Write the ONNX model, and prove it equal."""
    run("export")


@app.command(rich_help_panel=MODEL)
def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures, or folders of pictures.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list, for programs.")] = False,
    model: Annotated[Path, typer.Option(help="The folder with model.onnx and labels.json.")] = Path("stages/export"),
    draw: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Write the pictures with their boxes into this folder.")
    ] = None,
) -> None:
    """Say what the exported model sees in pictures."""
    from headstart import predict as p

    found = list(p.Model(model).predict(p.find(images)))
    if draw is not None:
        p.draw_boxes(found, draw)
    if as_json:
        typer.echo(json.dumps([p.as_row(f) for f in found], indent=2, ensure_ascii=False))
    else:
        for f in found:
            typer.echo(f"{f.path}: {p.as_words(f)}")
    if any(f.error for f in found):
        raise typer.Exit(1)


@app.command(rich_help_panel=MODEL)
def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    host: Annotated[str, typer.Option(help="0.0.0.0: also for others on the network.")] = "127.0.0.1",
    model: Annotated[Path, typer.Option(help="The folder with model.onnx and labels.json.")] = Path("stages/export"),
) -> None:
    """Serve the exported model: a page to try it on, and an API for programs."""
    from headstart.serve.run import serve

    serve(model, host, port)


@app.command(rich_help_panel=MODEL)
def demo(
    out: Annotated[Path, typer.Argument(help="A new folder, for any web host.")],
    model: Annotated[Path, typer.Option(help="The folder with model.onnx and labels.json.")] = Path("stages/export"),
) -> None:
    """Write the page as a folder that needs no server: the model runs in the visitor's browser."""
    from headstart.serve.demo import demo

    demo(out, model)


@app.command("lr-find", rich_help_panel=BESIDE)
def lr_find(
    stage: Annotated[str, typer.Argument(help="train-head or fine-tune; the stages before it must have run.")],
    out: Annotated[Path, typer.Option(help="The folder for lr-find.csv and lr-find.png.")] = Path("lr-find"),
) -> None:
    """Try growing rates on a training stage, and say which to begin with; nothing of the stage is changed."""
    from headstart import params_file
    from headstart.lr_find import lr_find

    rate = lr_find(stage, params_file.load(Path("params.yaml")), Path.cwd(), out)
    told = f"try {stage.replace('-', '_')}.lr: {rate:.1e}" if rate else "the loss never falls: no rate to suggest"
    typer.echo(f"{told}; the curve is in {out}/lr-find.png")


cache_app = typer.Typer(help="What the stages keep under .cache to go faster, and how much.")
app.add_typer(cache_app, name="cache", rich_help_panel=BESIDE)


@cache_app.callback(invoke_without_command=True)
def cache(context: typer.Context) -> None:
    """Show what the stages keep under .cache to go faster; `headstart cache clear` removes it."""
    if context.invoked_subcommand is None:
        from headstart import kept

        kept.show(kept.entries(Path.cwd()))


@cache_app.command("clear")
def clear_cache(
    kind: Annotated[
        list[str] | None, typer.Option(help="Only this: pixels, embeddings, activations or checkpoints.")
    ] = None,
) -> None:
    """Remove what is kept; stages may run meanwhile, and make again what they lack."""
    from headstart import kept

    kept.show(kept.clear(Path.cwd(), kind or ()))


def main() -> None:
    """Run the app; a user's mistake is one line and exit code 2."""
    try:
        with ranks.quiet():
            app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        where = error.filename or Path.cwd()
        print(f"error: {where}: no room left on this disk; make some, and the same command goes on", file=sys.stderr)
        sys.exit(2)
