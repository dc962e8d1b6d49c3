"""How fast both training phases are beside the plain loop, and what a kill costs.

    python benchmarks/engine.py --pictures FOLDER [--seeds 0 1 2] [--only speed|resume|fastai] [--fastai] [--small]

FOLDER holds class folders (or train and val with class folders: val is the test set). For each seed, each in a process
of its own, taken in turns, on the same split, pictures, backbone (EfficientNet-Lite0, bundled weights), size, epochs
and strength of augmentation: plain_loop.py; ours with everything training; ours with the lower half of the backbone
frozen and cached; with --fastai also fastai_loop.py (--only fastai: that and ours alone). Then fine-tuning is killed
half a checkpoint interval after its first checkpoint, run again, and compared with an undisturbed one. Our head phase
includes the making of stored copies; imports count for nobody. Memory is that of the training process, without the
loops' workers.

Goals (2 cores, 15 + 5 epochs): head phase 30 times as fast, fine-tune 3 times, whole 7 times, lower half frozen 12
times, than fastai 10 times; accuracy not lower; a kill costs less than a checkpoint interval plus 10 s.
"""

import argparse
import importlib
import importlib.util
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
RUNS = ("plain", "ours", "half")
WORDS = {"plain": "plain loop", "ours": "ours", "half": "ours, half frozen", "fastai": "fastai"}
RATIOS = (  # phase, the slower, the faster, goal
    ("head", "plain", "ours", 30),
    ("tune", "plain", "ours", 3),
    ("whole", "plain", "ours", 7),
    ("whole", "plain", "half", 12),
    ("whole", "fastai", "ours", 10),
)
EVERY = "BENCHMARK_SECONDS_BETWEEN_CHECKPOINTS"
Figures = dict[str, float]
Row = tuple[str, str, str]  # what, measured, goal


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="class folders")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, nargs=2, default=[15, 5], metavar=("HEAD", "TUNE"))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--only", choices=["speed", "resume", "fastai"])
    parser.add_argument("--fastai", action="store_true", help="fastai as well, if it is installed")
    parser.add_argument("--small", action="store_true", help="few pictures of 64 px, 2 + 4 epochs: to see that it runs")
    parser.add_argument("--run", choices=RUN, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        print(json.dumps(RUN[args.run](Path.cwd())))
        return
    if not args.pictures:
        parser.error("--pictures is missing: a folder of class folders")
    if args.small:
        args.seeds, args.epochs, args.size = args.seeds[:1], [2, 4], 64
    runs: tuple[str, ...] = RUNS if args.only in (None, "speed") else ("ours",)
    if args.only == "fastai" or (args.fastai and args.only != "resume"):
        if importlib.util.find_spec("fastai"):
            runs += ("fastai",)
        else:
            print("fastai is not installed and left out; it comes with: pip install -e .[bench]")
    found: dict[str, list[Figures]] = {name: [] for name in runs}
    lines: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="headstart-") as scratch:
        for seed in args.seeds if args.only != "resume" else args.seeds[:1]:
            folders = prepared(Path(scratch) / str(seed), args, seed)
            for name in runs:
                found[name].append(told(name, folders[name], seed))
        if args.only != "resume":
            lines += compare(found)
        if args.only in (None, "resume"):
            lines += resume(Path(scratch) / "killed", folders["ours"], found["ours"][-1]["tune"])
    if args.only != "resume":
        show(found)
    print(f"\n{'':<52}{'measured':>12}  goal")
    for what, measured, goal in lines:
        print(f"{what:<52}{measured:>12}  {goal}")


def prepared(folder: Path, args: argparse.Namespace, seed: int) -> dict[str, Path]:
    """For each run a project whose pictures are fetched and split; nobody's clock runs."""
    base = folder / "plain"
    (base / "data").mkdir(parents=True)
    pictures = args.pictures.resolve()
    values = yaml.safe_load((ROOT / "recipes/cats-dogs.yaml").read_text())
    test = next((name for name in ("test", "val") if (pictures / name).is_dir()), "")
    for name in ("train", test) if test else (".",):
        for source in sorted((pictures / name).iterdir()):
            place = base / "data" / (name.strip(".") or "all") / source.name
            place.mkdir(parents=True)
            for file in sorted(source.iterdir())[: 16 if args.small else None]:
                (place / file.name).symlink_to(file)
    values["fetch"]["sources"] = [{"folder": "data/all"}]
    if test:
        values["fetch"]["sources"] = [{"folder": "data/train"}, {"folder": f"data/{test}", "split": "test"}]
        values["split"] |= {"train": 0.85, "val": 0.15, "test": 0.0}
    values["seed"] = seed
    batch = 4 if args.small else 32
    values["model"]["image_size"] = args.size
    values["train_head"] |= {"epochs": args.epochs[0], "batch_size": batch, "patience": 0}
    values["fine_tune"] |= {"epochs": args.epochs[1], "freeze_depth": 0, "cache_frozen": False, "batch_size": batch}
    (base / "params.yaml").write_text(yaml.safe_dump(values))
    about = child("prepare", base)
    print(
        f"seed {seed}: {about['train']:.0f} pictures to train on, {about['val']:.0f} val, {about['test']:.0f} test, "
        f"{args.size} px, {args.epochs[0]} + {args.epochs[1]} epochs, {about['threads']:.0f} threads",
        flush=True,
    )
    for name in ("ours", "half"):
        shutil.copytree(base / "stages", folder / name / "stages")
        if name == "half":
            values["fine_tune"] |= {"freeze_depth": int(about["blocks"]) // 2, "cache_frozen": True}
        (folder / name / "params.yaml").write_text(yaml.safe_dump(values))
    return {name: folder / name for name in RUNS} | {"fastai": base}


def child(name: str, folder: Path) -> Figures:
    """This file in a process of its own: the last line it prints."""
    begin = time.perf_counter()
    done = subprocess.run(command(name), cwd=folder, text=True, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"{done.stdout}\n{done.stderr}")
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    return found | {"wall": time.perf_counter() - begin}


def command(name: str) -> list[str]:
    """What runs one of RUN."""
    return [sys.executable, str(Path(__file__).resolve()), "--run", name]


def told(name: str, folder: Path, seed: int) -> Figures:
    """Run one, and print its figures."""
    found = child(name, folder)
    found["whole"] = found["head"] + found["tune"]
    print(f"seed {seed}: {WORDS[name]:<18}{figures([found])}", flush=True)
    return found


def figures(some: list[Figures]) -> str:
    """Means: seconds of both phases and whole, memory; accuracy."""
    mean = {key: statistics.fmean(each[key] for each in some) for key in ("head", "tune", "whole", "peak", "accuracy")}
    return (
        f"{mean['head']:>8.1f} +{mean['tune']:>7.1f} ={mean['whole']:>7.1f} s{mean['peak']:>7.0f} MiB"
        f"   accuracy {mean['accuracy']:.4f}"
    )


def show(found: dict[str, list[Figures]]) -> None:
    """The means over all seeds."""
    print()
    for name, some in found.items():
        print(f"mean:   {WORDS[name]:<18}{figures(some)}")


def compare(found: dict[str, list[Figures]]) -> list[Row]:
    """Ratios of the sums over all seeds, and accuracies."""
    lines: list[Row] = []
    phases = {"head": "head phase", "tune": "fine-tune phase", "whole": "whole"}
    for phase, slower, faster, times in RATIOS:
        if slower in found and faster in found:
            theirs, own = (sum(each[phase] for each in found[which]) for which in (slower, faster))
            what = f"{phases[phase]}: {WORDS[slower]} / {WORDS[faster]}"
            lines.append((what, f"{theirs / own:.1f}", f"at least {times}"))
    others = [name for name in ("plain", "fastai") if name in found]
    for name, some in found.items():
        each = [one["accuracy"] for one in some]
        least = "" if name in others else f"at least {statistics.fmean(x['accuracy'] for x in found[others[0]]):.4f}"
        what = f"test accuracy, {WORDS[name]} ({min(each):.3f} to {max(each):.3f})"
        lines.append((what, f"{statistics.fmean(each):.4f}", least))
    return lines


def resume(folder: Path, source: Path, seconds: float) -> list[Row]:
    """Kill -9 and run again: seconds lost, and whether the model is the same. Undisturbed it took so many seconds."""
    os.environ[EVERY] = str(seconds / 8)
    shutil.copytree(source, folder)
    shutil.rmtree(folder / "stages/fine-tune")
    for each in (source, folder):  # they stay until the next stage begins
        shutil.rmtree(each / ".cache/checkpoints", ignore_errors=True)
    undisturbed = source / "stages/fine-tune/model.safetensors"
    whole = child("again", source)  # once more, so that both have warm files
    every = whole["every"]
    begin = time.perf_counter()
    process = subprocess.Popen(command("again"), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(folder.rglob("*.pt")) and process.poll() is None:
        time.sleep(0.02)
    if process.poll() is None:
        time.sleep(every / 2)
    process.kill()
    process.wait()
    if (folder / "stages/fine-tune/model.safetensors").exists():
        return [(f"a kill: fine-tuning ended within {1.5 * every:.1f} s", "none", "")]
    child("again", folder)
    lost = time.perf_counter() - begin - whole["wall"]
    same = (folder / "stages/fine-tune/model.safetensors").read_bytes() == undisturbed.read_bytes()
    return [
        (f"seconds lost by a kill, of {whole['wall']:.1f}", f"{lost:.1f}", f"under {every + 10:.1f}"),
        ("the same model after a kill", "yes" if same else "NO", "yes"),
    ]


def prepare(root: Path) -> Figures:
    """Fetch, weights and split; the split's files under plain/ as ImageFolder wants them."""
    import torch

    from headstart import tasks
    from headstart.base.manifest import read_manifest
    from headstart.models.backbone import create_backbone
    from headstart.models.freeze import list_blocks
    from headstart.params.reader import load_params

    loaded = load_params(Path("params.yaml"))
    for stage in ("fetch", "weights", "split"):
        tasks.run(stage, loaded, root)
    counts = {}
    for name in ("train", "val", "test"):
        images = read_manifest(root / f"stages/split/{name}.json").images
        for image in images:
            place = root / "plain" / name / str(image.label) / Path(image.file_name).name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(root / image.file_name)
        counts[name] = len(images)
    blocks = len(list_blocks(create_backbone(loaded.model.backbone)))
    return {**counts, "threads": torch.get_num_threads(), "blocks": blocks}


def loop(root: Path, module: str) -> Figures:
    """plain_loop or fastai_loop, in the pictures of `prepare`."""
    import torch

    from headstart.base.manifest import read_manifest
    from headstart.base.parallel import process_cpu_count
    from headstart.models.pretrained import load_pretrained
    from headstart.params.reader import load_params

    train = importlib.import_module(module).train
    loaded = load_params(Path("params.yaml"))
    labels = read_manifest(root / "stages/split/train.json").labels()
    card, pretrained = load_pretrained("classify", loaded.model, labels, root)
    torch.manual_seed(loaded.seed)
    found: Figures = train(
        root / "plain",
        pretrained,
        card,
        loaded.augment,
        batch_size=loaded.fine_tune.batch_size,
        head_epochs=loaded.train_head.max_epochs(),
        tune_epochs=loaded.fine_tune.max_epochs(),
        workers=process_cpu_count(),
        seed=loaded.seed,
    )
    return found | {"peak": peak()}


def ours(root: Path) -> Figures:
    """Augment, train-head, fine-tune, and the test accuracy."""
    import timm  # noqa: F401 (imports count for nobody)
    import torch

    from headstart import tasks
    from headstart.base.manifest import read_manifest
    from headstart.engine.device import Compute
    from headstart.engine.inference import run_inference
    from headstart.engine.pixels import load_pixels
    from headstart.models import classifier
    from headstart.models.file import read_model_file
    from headstart.params.reader import load_params

    loaded = load_params(Path("params.yaml"))
    threads = torch.get_num_threads()
    begin = time.perf_counter()
    tasks.run("augment", loaded, root)
    torch.set_num_threads(threads)  # augment and train-head turn it down, each in its own process
    tasks.run("train-head", loaded, root)
    torch.set_num_threads(threads)
    middle = time.perf_counter()
    tasks.run("fine-tune", loaded, root)
    end = time.perf_counter()
    tensors, card = read_model_file(root / "stages/fine-tune/model.safetensors")
    test = read_manifest(root / "stages/split/test.json").images
    seen = load_pixels(test, root, card.input, "decode")
    logits = run_inference(classifier.build(tensors, card), seen, card.input, Compute(torch.device("cpu")))
    accuracy = classifier.compute_val_metrics(logits, classifier.encode_targets(test, card.labels))["val_accuracy"]
    return {"head": middle - begin, "tune": end - middle, "accuracy": accuracy, "peak": peak()}


def again(root: Path) -> Figures:
    """Fine-tuning alone, checkpoints closer together where it is short."""
    from headstart import tasks
    from headstart.params.reader import load_params
    from headstart.training import checkpoint

    checkpoint.SAVE_INTERVAL = min(checkpoint.SAVE_INTERVAL, float(os.environ[EVERY]))
    tasks.run("fine-tune", load_params(Path("params.yaml")), root)
    return {"every": checkpoint.SAVE_INTERVAL}


def peak() -> float:
    """MiB of this process at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


RUN: dict[str, Callable[[Path], Figures]] = {
    "prepare": prepare,
    "plain": lambda root: loop(root, "plain_loop"),
    "fastai": lambda root: loop(root, "fastai_loop"),
    "ours": ours,
    "half": ours,
    "again": again,
}

if __name__ == "__main__":
    main()
