"""Both training stages once more in each fold, in a project of its own under .cache.

The fold's project has manifests of its own; pictures, weights and .cache are links to those of the repository. So the
stages run as they are, and a training that was killed resumes from its checkpoint.
"""

import contextlib
import io
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from headstart.base.arrays import Bools
from headstart.base.files import read_json
from headstart.base.manifest import Category, Image, Manifest, write_manifest
from headstart.cross_validation.answers import AnswerCache
from headstart.cross_validation.folds import Examined
from headstart.cross_validation.picture_features import PictureFeatures
from headstart.engine.device import configure_torch
from headstart.engine.inference import INFERENCE_BATCH, prepare_for_inference, run_inference
from headstart.engine.pixels import LazyPixels
from headstart.models import classifier
from headstart.models.file import hash_tensors, read_model_file
from headstart.params.root import Params
from headstart.training import checkpoint
from headstart.training.classifier_batches import load_classifier
from headstart.training.fine_tune import fine_tune
from headstart.training.train_head import train_classifier_head

# What computes an answer here: part of the cache's key. (Its figures and their intervals are not.)
PIPELINE_CODE = (
    *(f"headstart.{wing}" for wing in ("augment", "engine", "features", "models", "training")),
    *(f"headstart.cross_validation.{name}" for name in ("copies", "fold_pipeline", "folds", "picture_features")),
)
TRAINED = ("train-head", "fine-tune")


@dataclass(frozen=True)
class FoldPipeline:
    """The training stages on what a fold learns from, and their answers for its pictures.

    Attributes:
        examined: the pictures.
        categories: of the set.
        features: of the pictures; a head that is trained in epochs is examined on them.
        set_aside: for each fold the pictures that choose its epoch, (n,).
        params: all of params.yaml.
        root: the repository root.
        cache: where the answers are kept; the folds' projects lie there too, while they are trained.
    """

    examined: Examined
    categories: tuple[Category, ...]
    features: PictureFeatures
    set_aside: Sequence[Bools]
    params: Params
    root: Path
    cache: AnswerCache

    def answer(self, fold: int) -> Tensor:
        """Logits of the fold's pictures: those of the head, and where `folds_fine_tune` is on the fine-tuned ones.

        Returns:
            (pictures, labels), or (pictures, 2 * labels), side by side; both the same to the bit where the head-only
            model was kept: both networks compute in fp32 then, as those that the evaluate stage examines.
        """
        project, both = self.cache.folder / f"fold-{fold + 1}", self.params.evaluate.folds_fine_tune
        started = time.perf_counter()
        learning, val = self._make_project(project, fold)
        what = "head and fine-tuning" if both else "head"
        where = f"evaluate: fold {fold + 1} of {self.examined.folds}"
        print(f"{where}: {what} on {learning:,} pictures, {val:,} more choose the epoch", flush=True)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                train_classifier_head(self.params, project)
                if both:
                    fine_tune(self.params, project, load=load_classifier)
        except (KeyboardInterrupt, SystemExit):
            print(f"{where}: stopped; `dvc repro` resumes there", flush=True)
            raise
        answers = self._examine(project, fold) if both else self._examine_head(project, fold)
        print(
            f"{where}: {self._result_line(project, fold, answers)}, {time.perf_counter() - started:.0f} s", flush=True
        )
        for stage in TRAINED:
            checkpoint.remove_finished(project, stage)
        shutil.rmtree(project)
        return answers

    def _make_project(self, project: Path, fold: int) -> tuple[int, int]:
        """Make the fold's project anew; how many pictures it trains and validates on."""
        shutil.rmtree(project, ignore_errors=True)
        stages, root = project / "stages", self.root.absolute()
        (stages / "augment").mkdir(parents=True)
        (project / ".cache").symlink_to(root / ".cache", target_is_directory=True)
        for name in ("fetch", "weights", "augment/images"):
            (stages / name).symlink_to(root / "stages" / name, target_is_directory=True)
        val = self.set_aside[fold]
        learning = (self.examined.fold != fold) & ~val
        train, validation = ([self.examined.images[n] for n in np.flatnonzero(rows)] for rows in (learning, val))
        copies = [copy for n in np.flatnonzero(learning) for copy in self.features.copies[n]]
        first = max(image.id for image in self.examined.images) + 1
        copies = [copy.model_copy(update={"id": number}) for number, copy in enumerate(copies, first)]
        for path, images in (
            ("split/train.json", train),
            ("split/val.json", validation),
            ("augment/train.json", [*train, *copies]),
        ):
            write_manifest(Manifest(images=tuple(images), categories=self.categories), stages / path)
        return len(train), len(validation)

    def _images(self, fold: int) -> list[Image]:
        return [self.examined.images[n] for n in np.flatnonzero(self.examined.fold == fold)]

    @torch.no_grad()
    def _examine_head(self, project: Path, fold: int) -> Tensor:
        """Logits of the fold's pictures by its head, from cached features."""
        tensors, spec = read_model_file(project / "stages/train-head/model.safetensors")
        head = classifier.build(tensors, spec).head
        logits: Tensor = head(self.features.embed(self._images(fold), spec.head))
        return logits

    def _examine(self, project: Path, fold: int) -> Tensor:
        """Logits of the fold's pictures by the models of both stages, side by side; equal models run once."""
        images = self._images(fold)
        compute = configure_torch(self.params.train.in_fp32(), self.params.seed)
        answers = dict[str, Tensor]()
        logits = []
        for stage in TRAINED:
            tensors, spec = read_model_file(project / f"stages/{stage}/model.safetensors")
            if (digest := hash_tensors(tensors)) not in answers:
                network = prepare_for_inference(
                    classifier.build(tensors, spec), spec.input.size, compute, INFERENCE_BATCH
                )
                pixels = LazyPixels(images, self.root, spec.input)
                answers[digest] = run_inference(network, pixels, spec.input, compute)
            logits.append(answers[digest])
        return torch.cat(logits, dim=1)

    def _result_line(self, project: Path, fold: int, answers: Tensor) -> str:
        targets = torch.from_numpy(self.examined.targets[self.examined.fold == fold])
        models = answers.chunk(answers.shape[1] // len(self.examined.labels), dim=1)
        head, *tuned = (f"{(logits.argmax(1) == targets).double().mean():.4f}" for logits in models)
        line = f"accuracy {head} on {len(targets):,} pictures"
        if tuned:
            epoch = read_json(project / "stages/fine-tune/metrics.json")["best_epoch"]
            line = f"accuracy {head}, fine-tuned {tuned[0]} (epoch {epoch}), on {len(targets):,} pictures"
        return line


def pipeline_key(params: Params, share: float) -> str:
    """What answers depend on beside pictures, folds and code, as JSON: params, the share set aside, the machine.

    Args:
        params: all of params.yaml.
        share: of the pictures that a fold sets aside.
    """
    sections = [params.train_head, params.augment, *([params.fine_tune] if params.evaluate.folds_fine_tune else [])]
    train = [params.train.precision, params.train.cpu_kernels, params.train.compile]
    return json.dumps([params.seed, share, train, *(section.model_dump(mode="json") for section in sections)])
