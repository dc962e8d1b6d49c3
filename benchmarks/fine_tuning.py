"""What fine-tuning adds to the head alone: sets of pictures, settings of fine_tune and seeds, paired.

    python benchmarks/fine_tuning.py SET... [--try lr=1e-3,epochs=3]... [--seeds 0 1 2] [--train 200] [--test 300]
        [--no-groups] [--recipe cats-dogs] [--head kind=kernel] [--augment rotation=0,zoom=0]

A SET is a folder of class folders, or a table (.csv) as the source `table` takes it. For each set and seed: `--train`
pictures to train on (0: the recipe's own split), a fifth as many for val, of the others up to `--test`; the head as the
recipe has it; then fine-tuning once for each `--try`, keys of the recipe's fine_tune that are changed (without one: the
recipe's own), all from the same head. The columns are the test accuracy and log loss of the head alone; the paired
differences "fine-tuned minus head" with 95 % intervals over units (of the model that the stage writes: where it keeps
the head they are 0); the kept epoch; seconds of fine-tuning. Log loss is of calibrated probabilities, as reports have
it. The last lines sum up each setting: the mean over sets and seeds, with the interval of such a mean (t; a run is one
draw), and its worst run.
"""

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from headstart import tasks
from headstart.base.arrays import Floats, Ints
from headstart.base.manifest import Manifest, read_manifest
from headstart.base.units import unit_numbers
from headstart.engine.device import configure_torch
from headstart.engine.inference import INFERENCE_BATCH, prepare_for_inference, run_inference
from headstart.engine.pixels import load_pixels
from headstart.metrics.calibration import ClassifierPredictions, SplitLogits, calibrate_logits
from headstart.metrics.estimate import Estimate
from headstart.metrics.intervals import difference_interval, real_mean_interval
from headstart.models import classifier
from headstart.models.file import read_model_file
from headstart.params.root import Params

ROOT = Path(__file__).parents[1]
VAL_SHARE = 0.2  # val pictures for each training picture


@dataclass(frozen=True)
class Trial:
    """One fine-tuning: its setting, and what it changed on the test pictures.

    Attributes:
        setting: the changed keys, as given.
        accuracy: difference to the head alone.
        log_loss: the same, negative is better.
        metrics: the stage's metrics.json.
        seconds: of the stage.
    """

    setting: str
    accuracy: Estimate
    log_loss: Estimate
    metrics: dict[str, Any]
    seconds: float


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=Path, nargs="+", metavar="SET")
    parser.add_argument("--try", dest="settings", action="append", metavar="KEY=VALUE,...")
    parser.add_argument("--recipe", default="cats-dogs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--train", type=int, default=200, help="training pictures of each set; 0: the recipe's share")
    parser.add_argument("--test", type=int, default=300, help="test pictures at most; 0: all")
    parser.add_argument("--head", default="", metavar="KEY=VALUE,...", help="changed keys of model.head")
    parser.add_argument("--augment", default="", metavar="KEY=VALUE,...", help="changed keys of augment")
    parser.add_argument("--no-groups", action="store_true", help="of a table: only near-duplicates stay together")
    args = parser.parse_args()
    print("| set | seed | train, val, test | head: accuracy | log loss | setting | accuracy | log loss | epoch | s |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    trials = []
    for pictures in args.sets:
        with tempfile.TemporaryDirectory(prefix="headstart-") as scratch:
            for seed in args.seeds:
                trials += run_seed(Path(scratch), pictures.resolve(), args, seed)
    print()
    for setting in args.settings or [""]:
        print(summary(setting, [trial for trial in trials if trial.setting == setting]))


def run_seed(root: Path, pictures: Path, args: argparse.Namespace, seed: int) -> list[Trial]:
    """All settings on one split of a set, each printed as a row."""
    values = project_values(root, pictures, args) | {"seed": seed}
    run_stages(root, values, args.train)
    train, val, test = (read_manifest(root / f"stages/split/{name}.json") for name in ("train", "val", "test"))
    test = test.model_copy(update={"images": test.images[: args.test or None]})
    units = unit_numbers(test.images)
    head = predictions(root, "train-head", Params.model_validate(values), val, test)
    sizes = ", ".join(str(len(split.images)) for split in (train, val, test))
    trials = []
    for setting in args.settings or [""]:
        params = Params.model_validate(values | {"fine_tune": values["fine_tune"] | parse(setting)})
        begin = time.perf_counter()
        quietly("fine-tune", params, root)
        seconds = time.perf_counter() - begin
        tuned = predictions(root, "fine-tune", params, val, test)
        metrics = json.loads((root / "stages/fine-tune/metrics.json").read_text())
        trial = Trial(setting, *differences(head, tuned, units), metrics, seconds)
        trials.append(trial)
        print(
            f"| {pictures.stem} | {seed} | {sizes} | {head.correct.mean():.3f} | {losses(head).mean():.4f} "
            f"| {setting or args.recipe} | {show(trial.accuracy, 3)} | {show(trial.log_loss, 4)} "
            f"| {metrics['best_epoch']} of {metrics['epochs']} | {seconds:.0f} |",
            flush=True,
        )
    return trials


def project_values(root: Path, pictures: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The recipe's params with this set as the only source, its files linked into the project's data/."""
    values: dict[str, Any] = yaml.safe_load((ROOT / f"recipes/{args.recipe}.yaml").read_text())
    place = root / "data" / pictures.name
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        copy_links(pictures, place)
    source: dict[str, Any] = {"folder": f"data/{pictures.name}"}
    if pictures.is_file():
        source = {"table": f"data/{pictures.name}"} | ({"group_by": "none"} if args.no_groups else {})
    values["fetch"] |= {"sources": [source], "allow_conflicting_labels": True, "max_failed": 10}
    values["model"]["head"] |= parse(args.head)
    values["augment"] |= parse(args.augment)
    return values


def copy_links(source: Path, place: Path) -> None:
    """A folder of class folders with links to its files, or a copy of a table."""
    if source.is_file():
        place.write_bytes(source.read_bytes())
        return
    for file in sorted(path for path in source.glob("*/*") if path.is_file()):
        link = place / file.parent.name / file.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file.resolve())


def run_stages(root: Path, values: dict[str, Any], train: int) -> None:
    """Run what comes before fine-tuning, and set the split's shares."""
    fetched = root / "stages/fetch/annotations.json"
    if not fetched.exists():
        for stage in ("fetch", "weights"):
            quietly(stage, Params.model_validate(values), root)
    if train:
        count = len(read_manifest(fetched).images)
        share = min(train / count, 0.6)
        val = share * VAL_SHARE
        values["split"] |= {"train": share, "val": val, "test": 1 - share - val}
    for stage in ("split", "augment", "train-head"):
        quietly(stage, Params.model_validate(values), root)


def quietly(stage: str, params: Params, root: Path) -> None:
    """Run a stage without its lines."""
    with contextlib.redirect_stdout(io.StringIO()):
        tasks.run(stage, params, root)


def parse(text: str) -> dict[str, Any]:
    """`lr=1e-3,epochs=3` as keys and values; YAML reads 1e-3 as text, and params take that too."""
    return {key: yaml.safe_load(value) for key, _, value in (pair.partition("=") for pair in text.split(",") if pair)}


def predictions(root: Path, stage: str, params: Params, val: Manifest, test: Manifest) -> ClassifierPredictions:
    """Calibrated probabilities of the test pictures, by the model that a stage has written, in train.precision."""
    tensors, spec = read_model_file(root / f"stages/{stage}/model.safetensors")
    compute = configure_torch(params.train, params.seed)
    network = prepare_for_inference(classifier.build(tensors, spec), spec.input.size, compute, INFERENCE_BATCH)
    found = []
    for split in (val, test):
        pixels = load_pixels(split.images, root, spec.input, "decode")
        found += [run_inference(network, pixels, spec.input, compute).numpy()]
        found += [classifier.encode_targets(split.images, spec.labels).numpy()]
    return calibrate_logits(SplitLogits(*found))


def losses(model: ClassifierPredictions) -> Floats:
    """The log loss of each test picture, of the calibrated probabilities."""
    return np.asarray(-np.log(model.calibrated[np.arange(len(model.labels)), model.labels].clip(1e-15)))


def differences(head: ClassifierPredictions, tuned: ClassifierPredictions, units: Ints) -> tuple[Estimate, Estimate]:
    """Of accuracy and of log loss, fine-tuned minus head."""
    if np.array_equal(head.raw, tuned.raw):  # the head was kept: the two are one model
        return (Estimate(0.0),) * 2
    return difference_interval(tuned.correct - head.correct, units), real_mean_interval(
        losses(tuned) - losses(head), units
    )


def show(estimate: Estimate, digits: int) -> str:
    """`+0.012 (-0.003 to +0.027)`, without an interval where there is none."""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:+.{digits}f}"
    return f"{estimate.value:+.{digits}f} ({estimate.low:+.{digits}f} to {estimate.high:+.{digits}f})"


def summary(setting: str, trials: list[Trial]) -> str:
    """A setting's mean differences over all sets and seeds, its worst runs, and how often the head was kept."""
    said = []
    for name, values, worst in (
        ("accuracy", [trial.accuracy.value or 0.0 for trial in trials], min),
        ("log loss", [trial.log_loss.value or 0.0 for trial in trials], max),
    ):
        said.append(f"{name} {mean_of_runs(values)}, worst {worst(values):+.4f}")
    kept = sum(trial.metrics["best_epoch"] == 0 for trial in trials)
    seconds = statistics.fmean(trial.seconds for trial in trials)
    return f"{setting or 'as in the recipe'}: {'; '.join(said)}; head kept in {kept} of {len(trials)}; {seconds:.0f} s"


def mean_of_runs(values: list[float]) -> str:
    """The mean, with its 95 % t interval where there are two values or more."""
    from scipy.stats import t

    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:+.4f}"
    half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:+.4f} ({mean - half:+.4f} to {mean + half:+.4f})"


if __name__ == "__main__":
    main()
