"""The recipes with weights from a hub, from end to end: `dvc repro` of each as written, in a fresh clone.

    python benchmarks/hub_recipes.py [--recipes alpaca lucy shoes] [--quick]

Network, head, epochs, folds and picture size are the recipe's; `--quick` is one epoch each, and no fine-tuning in the
folds. The servers are on this machine: that of the weights (tests/hub_server.py) has untrained stand-ins of the whole
networks, and breaks off in the middle of the first body; that of the pictures (tests/recipe_data.py) has dozens. So
the figures are seconds and memory, not accuracies. At the end the weights stage runs again without a server, from the
cache.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import timm
import torch
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from pipeline import clone, environment, repro

import hub_server
import mirror
import recipe_data
from clone import merged

DATA = {"alpaca": recipe_data.put_alpaca, "lucy": recipe_data.put_lucy, "shoes": recipe_data.put_shoes}
QUICK: dict[str, object] = {
    "train_head": {"epochs": 1},  # no effect on alpaca's head, which is solved
    "fine_tune": {"epochs": 1, "warmup_epochs": 0},
    "evaluate": {"folds_fine_tune": False},
}


def main() -> None:
    """Run the recipes and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--quick", action="store_true", help="one epoch each, no fine-tuning in the folds")
    args = parser.parse_args()
    for recipe in args.recipes:
        with tempfile.TemporaryDirectory(prefix="headstart-") as scratch:
            print(run_recipe(recipe, Path(scratch), QUICK if args.quick else {}), flush=True)


def run_recipe(recipe: str, scratch: Path, changes: dict[str, object]) -> str:
    """All stages, then the weights stage again without a server; a line with the figures."""
    for variable, folder in (("HF_HOME", "hf"), ("TORCH_HOME", "torch"), ("HEADSTART_CACHE", "cache")):
        os.environ[variable] = str(scratch / folder)
    os.environ["NO_PROXY"] = "127.0.0.1"
    (scratch / "pictures").mkdir()
    pictures = mirror.Mirror(scratch / "pictures")
    with mirror.serving(pictures), hub_server.serving(scratch / "hub") as hub:
        project = clone(scratch / "project", recipe, 0)
        shutil.rmtree(project / "data")
        name = edit(project / "params.yaml", DATA[recipe](pictures, project), changes)
        os.environ["HF_ENDPOINT"] = hub.url
        torch.manual_seed(0)
        commit = hub.publish(f"timm/{name}", timm.create_model(name).state_dict())
        hub.scripts["GET /store/"] = ["cut"]
        seconds, peak, _ = repro(project)
        requests = [f"{request.method} {request.range}".strip() for request in hub.requests]
    facts = read_facts(project)
    assert (facts["source"], facts["revision"]) == (f"timm/{name}", commit)
    command = ["dvc", "repro", "--force", "--single-item", "weights"]
    subprocess.run(command, cwd=project, env=environment(project), check=True, capture_output=True)
    assert read_facts(project) == facts
    parity = json.loads((project / "stages/export/parity.json").read_text())
    return (
        f"{recipe}: {name}, {facts['parameters']:,} parameters, licence {facts['license']}, revision {commit[:8]}; "
        f"dvc repro {seconds:.0f} s, peak {peak / 2**20:.0f} MiB; the exported model labels {parity['same_label']} of "
        f"{parity['pictures']} test pictures as torch does; requests to the hub: {', '.join(requests)}; "
        "weights again without a server: the same"
    )


def edit(path: Path, addresses: recipe_data.Addresses, changes: dict[str, object]) -> str:
    """Set the addresses of the sources in a params.yaml, and change some keys; returns the name of the backbone."""
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    for source in params["fetch"]["sources"]:
        for kind in source.keys() & addresses.keys():
            source[kind] |= addresses[kind]
    path.write_text(yaml.safe_dump(merged(params, changes), sort_keys=False), encoding="utf-8")
    return str(params["model"]["backbone"])


def read_facts(project: Path) -> dict[str, Any]:
    """weights.json of a project."""
    facts: dict[str, Any] = json.loads((project / "stages/weights/weights.json").read_text(encoding="utf-8"))
    return facts


if __name__ == "__main__":
    main()
