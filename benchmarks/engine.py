"""How fast both training phases are beside the plain loop, and what a kill costs.

    python benchmarks/engine.py --pictures FOLDER [--seeds 0 1 2] [--small] [--no-resume]

FOLDER holds class folders (or train and val with class folders: val is then the exam). For each seed, each in a process
of its own, taken in turns, on the same split, pictures, backbone (EfficientNet-Lite0, bundled weights), size, epochs
and strength of augmentation: plain_loop.py; ours with everything training; ours with the lower half of the backbone
frozen and cached. Then fine-tuning is killed half a checkpoint interval after its first checkpoint, run again, and
compared with an undisturbed one. Our head phase includes the making of stored copies; imports count for nobody.

Goals (2 cores, 15 + 5 epochs): head phase 30 times as fast, fine-tune 3 times, whole 7 times, lower half frozen 12
times, accuracy not lower; a kill costs less than a checkpoint interval plus 10 s.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
RUNS = ("plain", "ours", "half")
WORDS = {"plain": "plain loop", "ours": "ours", "half": "ours, lower half frozen and cached"}
EVERY = "BENCHMARK_SECONDS_BETWEEN_CHECKPOINTS"
Figures = dict[str, float]


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="class folders")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, nargs=2, default=[15, 5], metavar=("HEAD", "TUNE"))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--small", action="store_true", help="few pictures of 64 px, 2 + 1 epochs: to see that it runs")
    parser.add_argument("--no-resume", action="store_true")
    parser.add_argument("--run", choices=[*RUNS, "prepare", "again"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        print(json.dumps(RUN[args.run](Path.cwd())))
        return
    if not args.pictures:
        parser.error("--pictures is missing: a folder of class folders")
    if args.small:
        args.seeds, args.epochs, args.size = [0], [2, 1], 64
    with tempfile.TemporaryDirectory(prefix="headstart-") as scratch:
        found: dict[str, list[Figures]] = {name: [] for name in RUNS}
        for seed in args.seeds:
            folders = prepared(Path(scratch) / str(seed), args, seed)
            for name, folder in folders.items():
                found[name].append(told(name, folder, seed))
        compare(found)
        if not args.no_resume:
            resume(Path(scratch) / "killed", folders["ours"], found["ours"][-1]["tune"])


def prepared(folder: Path, args: argparse.Namespace, seed: int) -> dict[str, Path]:
    """For each run a project whose pictures are fetched and split; nobody's clock runs."""
    base = folder / "plain"
    (base / "data").mkdir(parents=True)
    pictures = args.pictures.resolve()
    values = yaml.safe_load((ROOT / "recipes/cats-dogs.yaml").read_text())
    exam = next((name for name in ("test", "val") if (pictures / name).is_dir()), "")
    for name in ("train", exam) if exam else (".",):
        for source in sorted((pictures / name).iterdir()):
            place = base / "data" / (name.strip(".") or "all") / source.name
            place.mkdir(parents=True)
            for file in sorted(source.iterdir())[: 16 if args.small else None]:
                (place / file.name).symlink_to(file)
    values["fetch"]["sources"] = [{"folder": "data/all"}]
    if exam:
        values["fetch"]["sources"] = [{"folder": "data/train"}, {"folder": f"data/{exam}", "split": "test"}]
        values["split"] |= {"train": 0.85, "val": 0.15, "test": 0.0}
    values["seed"] = seed
    values["model"]["image_size"] = args.size
    values["train_head"] |= {"epochs": args.epochs[0], "batch_size": 32, "patience": 0}
    values["fine_tune"] |= {"epochs": args.epochs[1], "freeze_depth": 0, "cache_frozen": False, "batch_size": 32}
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
    return {name: folder / name for name in RUNS}


def child(name: str, folder: Path) -> Figures:
    """This file in a process of its own: the last line it prints."""
    begin = time.perf_counter()
    done = subprocess.run(command(name), cwd=folder, text=True, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise SystemExit(done.stdout)
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    return found | {"wall": time.perf_counter() - begin}


def command(name: str) -> list[str]:
    """What runs one of RUN."""
    return [sys.executable, str(Path(__file__).resolve()), "--run", name]


def told(name: str, folder: Path, seed: int) -> Figures:
    """Run one, and print its figures."""
    found = child(name, folder)
    print(
        f"seed {seed}, {WORDS[name]}: head {found['head']:.1f} s + fine-tune {found['tune']:.1f} s = "
        f"{found['head'] + found['tune']:.1f} s, test accuracy {found['accuracy']:.4f}, peak {found['peak']:.0f} MiB",
        flush=True,
    )
    return found


def compare(found: dict[str, list[Figures]]) -> None:
    """Ratios of the sums over all seeds, and accuracies."""
    both = {name: [{**each, "whole": each["head"] + each["tune"]} for each in some] for name, some in found.items()}
    for name, phases in (("ours", {"head": 30, "tune": 3, "whole": 7}), ("half", {"whole": 12})):
        for phase, goal in phases.items():
            theirs, own = (sum(each[phase] for each in both[which]) for which in ("plain", name))
            print(f"{WORDS[name]}: {phase} {theirs / own:.1f} times as fast as the plain loop (goal {goal})")
    for name, some in both.items():
        each = [one["accuracy"] for one in some]
        mean, low, high = statistics.fmean(each), min(each), max(each)
        print(f"{WORDS[name]}: test accuracy mean {mean:.4f}, {low:.4f} to {high:.4f}, n = {len(each)}")


def resume(folder: Path, source: Path, seconds: float) -> None:
    """Kill -9 and run again: seconds lost, and whether the model is the same. Undisturbed it took so many seconds."""
    os.environ[EVERY] = str(seconds / 4)
    shutil.copytree(source, folder)
    shutil.rmtree(folder / "stages/fine-tune")
    undisturbed = source / "stages/fine-tune/model.safetensors"
    whole = child("again", source)  # once more, so that both have warm files
    every = whole["every"]
    begin = time.perf_counter()
    process = subprocess.Popen(command("again"), cwd=folder, stdout=subprocess.DEVNULL)
    while not list(folder.rglob("*.pt")) and process.poll() is None:
        time.sleep(0.02)
    if process.poll() is None:
        time.sleep(every / 2)
    process.kill()
    process.wait()
    if (folder / "stages/fine-tune/model.safetensors").exists():
        print(f"resume: not measured: fine-tuning ended within a checkpoint interval and a half ({1.5 * every:.1f} s)")
        return
    again = child("again", folder)
    lost = time.perf_counter() - begin - whole["wall"]
    same = (folder / "stages/fine-tune/model.safetensors").read_bytes() == undisturbed.read_bytes()
    print(
        f"killed {every / 2:.1f} s after a checkpoint and run again: {lost:.1f} s lost (goal: under {every + 10:.0f})"
        f", {again['wall']:.1f} s for the rest, of {whole['wall']:.1f} s; model {'the same' if same else 'DIFFERENT'}"
    )


def prepare(root: Path) -> Figures:
    """Fetch, weights and split; the split's files under plain/ as ImageFolder wants them."""
    import torch

    from headstart import coco, fetch, freeze, params_file, split, weights

    loaded = params_file.load(Path("params.yaml"))
    for stage in (fetch.fetch, weights.weights, split.split_stage):
        stage(loaded, root)
    counts = {}
    for name in ("train", "val", "test"):
        images = coco.read(root / f"stages/split/{name}.json").images
        for image in images:
            place = root / "plain" / name / str(image.label) / Path(image.file_name).name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(root / image.file_name)
        counts[name] = len(images)
    blocks = len(freeze.blocks(weights.trunk(loaded.model.backbone)))
    return {**counts, "threads": torch.get_num_threads(), "blocks": blocks}


def plain(root: Path) -> Figures:
    """The plain loop."""
    import plain_loop
    import torch

    from headstart import coco, params_file, pool, train_head

    loaded = params_file.load(Path("params.yaml"))
    labels = coco.read(root / "stages/split/train.json").labels()
    card, pretrained = train_head._start("classify", loaded.model, labels, root)
    torch.manual_seed(loaded.seed)
    found = plain_loop.train(
        root / "plain",
        pretrained,
        card,
        loaded.augment,
        batch_size=loaded.fine_tune.batch_size,
        head_epochs=loaded.train_head.most_epochs(),
        tune_epochs=loaded.fine_tune.most_epochs(),
        workers=pool.cores(),
    )
    return found | {"peak": peak()}


def ours(root: Path) -> Figures:
    """Augment, train-head, fine-tune, and the exam's accuracy."""
    import timm  # noqa: F401 (imports count for nobody)
    import torch

    from headstart import augment, classify, coco, fine_tune, modelfile, params_file, pixels, train_head
    from headstart.batches import outputs
    from headstart.compute import Compute

    loaded = params_file.load(Path("params.yaml"))
    threads = torch.get_num_threads()
    begin = time.perf_counter()
    augment.augment(loaded, root)
    torch.set_num_threads(threads)  # augment and train-head turn it down, each in its own process
    train_head.train_head(loaded, root)
    torch.set_num_threads(threads)
    middle = time.perf_counter()
    fine_tune.fine_tune(loaded, root)
    end = time.perf_counter()
    tensors, card = modelfile.read(root / "stages/fine-tune/model.safetensors")
    test = coco.read(root / "stages/split/test.json").images
    seen = pixels.load(test, root, card.input, "decode")
    logits = outputs(classify.build(tensors, card), seen, card.input, Compute(torch.device("cpu"), bf16=False))
    accuracy = classify.score(logits, classify.targets(test, card.labels))["val_accuracy"]
    return {"head": middle - begin, "tune": end - middle, "accuracy": accuracy, "peak": peak()}


def again(root: Path) -> Figures:
    """Fine-tuning alone, checkpoints closer together where it is short."""
    from headstart import checkpoint, fine_tune, params_file

    checkpoint.EVERY = min(checkpoint.EVERY, float(os.environ[EVERY]))
    fine_tune.fine_tune(params_file.load(Path("params.yaml")), root)
    return {"every": checkpoint.EVERY}


def peak() -> float:
    """MiB of this process at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


RUN: dict[str, Any] = {"prepare": prepare, "plain": plain, "ours": ours, "half": ours, "again": again}

if __name__ == "__main__":
    main()
