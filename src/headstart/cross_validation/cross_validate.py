"""Cross-validation of a classifier: the head in each fold, and where asked for the fine-tuning as well."""

from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import numpy as np

from headstart.base.arrays import Bools
from headstart.base.files import read_json
from headstart.base.manifest import Manifest, Split
from headstart.cross_validation.answers import AnswerCache
from headstart.cross_validation.calibration import average, calibrate_out_of_fold
from headstart.cross_validation.figures import Alternative, CrossValidation, compare, measure
from headstart.cross_validation.fold_pipeline import PIPELINE_CODE, FoldPipeline, pipeline_key
from headstart.cross_validation.folds import choose_inner_val, examine
from headstart.cross_validation.heads import HEAD_CODE, FoldHeads
from headstart.cross_validation.picture_features import FeatureRows, PictureFeatures
from headstart.metrics.calibration import ClassifierPredictions
from headstart.params.root import HeadParams, Params

# Kinds and features of heads that are tried on the same folds, beside the head that params.yaml asks for.
OTHER_HEADS: tuple[tuple[Literal["linear", "kernel"], Literal["last", "blocks"]], ...] = (
    ("linear", "last"),
    ("linear", "blocks"),
    ("kernel", "last"),
    ("kernel", "blocks"),
)
MAX_ROWS = 1500  # pictures and copies; beyond them other heads take minutes, which only fine-tuned folds are worth


def cross_validate(splits: Mapping[Split, Manifest], params: Params, root: Path) -> CrossValidation:
    """Examine every picture that is not pinned to test, once, by a model that saw nothing of its unit.

    Args:
        splits: the manifests of train, val and test.
        params: all of params.yaml; `evaluate.folds` is not 0.
        root: the repository root.

    Raises:
        UserError: too few units of a label for two folds, or an earlier stage has not run.
    """
    run = _Run(splits, params, root)
    predictions = run.predictions()
    model = "fine_tuned" if "fine_tuned" in predictions else "head"
    measured = predictions[model]
    others = {name: other for name, other in predictions.items() if name != model}
    if model == "fine_tuned" and not np.array_equal(predictions["head"].raw, measured.raw):
        others["mean"] = average(predictions["head"], predictions["fine_tuned"])
    learning, set_aside = ([rows.sum() for rows in some] for some in (run.learning, run.set_aside))
    return CrossValidation(
        examined=run.examined,
        model=model,
        learned=float(np.mean(learning)),
        set_aside=float(np.mean(set_aside)),
        predictions=predictions,
        metrics=measure(measured, run.examined.labels, params.seed),
        alternatives={name: compare(other, measured) for name, other in others.items()} | run.other_heads(measured),
        pinned=sum(image.split == "test" for manifest in splits.values() for image in manifest.images),
        skipped=run.why_no_other_heads(),
    )


class _Run:
    """The pictures in their folds, what each fold learns from, and the models' answers.

    Attributes:
        examined: the pictures.
    """

    def __init__(self, splits: Mapping[Split, Manifest], params: Params, root: Path) -> None:
        self._splits, self._params, self._root = splits, params, root
        images = [image for manifest in splits.values() for image in manifest.images]
        self.examined, line = examine(images, splits["train"].labels(), params.evaluate.folds, params.seed)
        if line:
            print(line)
        self._features = PictureFeatures(self.examined, params, root)

    @cached_property
    def _share(self) -> float:
        """Of what a fold does not examine, the part that chooses its epoch, as val does in the pipeline.

        0 where no model of a fold chooses one. Where one does, no other model of the fold learns from that part either.
        """
        if self._params.model.head.is_fitted and not self._params.evaluate.folds_fine_tune:
            return 0.0
        train, val = (len(self._splits[name].images) for name in ("train", "val"))
        return val / (train + val)

    @cached_property
    def set_aside(self) -> list[Bools]:
        """For each fold the pictures that choose its epoch, (n,)."""
        folds = range(self.examined.folds)
        if not self._share:
            return [np.zeros(len(self.examined.images), dtype=bool) for _ in folds]
        return [choose_inner_val(self.examined, fold, self._share, self._params.seed) for fold in folds]

    @cached_property
    def learning(self) -> list[Bools]:
        """For each fold the pictures that it learns from, (n,)."""
        return [(self.examined.fold != fold) & ~aside for fold, aside in enumerate(self.set_aside)]

    def predictions(self) -> dict[str, ClassifierPredictions]:
        """Of the head, and of the fine-tuned model where `folds_fine_tune` is on."""
        params = self._params
        if not self._share:
            return {"head": self._solved_head(params.model.head)}
        cache = AnswerCache.of(
            self._root,
            "head and fine-tuned model" if params.evaluate.folds_fine_tune else "head",
            self.examined,
            PIPELINE_CODE,
            self._features.key(params.model.head),
            pipeline_key(params, self._share),
        )
        pipeline = FoldPipeline(
            self.examined, self._splits["train"].categories, self._features, self.set_aside, params, self._root, cache
        )
        logits = cache.answers(self.examined, pipeline.answer)
        of_models = np.split(logits, logits.shape[1] // len(self.examined.labels), axis=1)
        names = ("head", "fine_tuned")[: len(of_models)]
        return {
            name: calibrate_out_of_fold(of_model, self.examined)
            for name, of_model in zip(names, of_models, strict=True)
        }

    def _solved_head(self, head: HeadParams, *, copies: bool = True) -> ClassifierPredictions:
        """Of a head that is solved, `linear` or `kernel`; fitted on the pictures alone, or on their copies too."""
        params = self._params
        cache = AnswerCache.of(
            self._root,
            f"{head.kind} head on {head.features} features",
            self.examined,
            HEAD_CODE,
            self._features.key(head),
            params.train_head.model_dump(mode="json"),
            params.augment.model_dump(mode="json") if copies else None,
            [params.seed, self._share],
        )
        rows = partial(self._features.rows if copies else self._rows_without_copies, head)
        heads = FoldHeads(self.examined, rows, self.learning, head, params.train_head, params.seed)
        return calibrate_out_of_fold(cache.answers(self.examined, heads.answer, parallel=True), self.examined)

    def _rows_without_copies(self, head: HeadParams) -> FeatureRows:
        images = self.examined.images
        return FeatureRows(self._features.embed(images, head), np.arange(len(images)))

    def other_heads(self, measured: ClassifierPredictions) -> dict[str, Alternative]:
        """Heads that params.yaml does not ask for, against the measured model; by kind and features.

        A kernel head learns from the pictures alone: with their copies it would take as many times as long.
        """
        if self.why_no_other_heads():
            return {}
        own = self._params.model.head
        blocks = read_json(self._root / "stages/weights/weights.json").get("block_levels")
        heads = [
            HeadParams(kind=kind, features=features, dropout=own.dropout)
            for kind, features in OTHER_HEADS
            if (kind, features) != (own.kind, own.features) and (features == "last" or blocks)
        ]
        answers = {
            f"{head.kind}_{head.features}": self._solved_head(head, copies=head.kind == "linear") for head in heads
        }
        return {name: compare(answer, measured) for name, answer in answers.items()}

    def why_no_other_heads(self) -> str:
        """Why other heads are not tried; empty where they are."""
        rows = len(self.examined.images) * (1 + self._params.augment.copies)
        if rows <= MAX_ROWS or self._params.evaluate.folds_fine_tune:
            return ""
        return (
            f"Other heads are tried on at most {MAX_ROWS:,} pictures and copies, and these are {rows:,}; with "
            "evaluate.folds_fine_tune: true on any number."
        )
