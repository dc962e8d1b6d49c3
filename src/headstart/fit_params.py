"""The sections of params.yaml on training: what both training stages share, and what is fine_tune's own."""

import itertools
import math
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from headstart.section import Count, Positive, Section

AUTO_EPOCHS, AUTO_PATIENCE = 50, 5  # of `epochs: auto`
_COUNT: TypeAdapter[int] = TypeAdapter(Count)
Share = Annotated[float, Field(ge=0, lt=1)]
AtLeastNone = Annotated[float, Field(ge=0)]


def _epochs(value: Any, _: ValidatorFunctionWrapHandler) -> int | str:
    return "auto" if value == "auto" else _COUNT.validate_python(value)


class FitParams(Section):
    """What both training stages have in common."""

    epochs: Annotated[int | Literal["auto"], WrapValidator(_epochs)]
    lr: Positive
    batch_size: Count = 32
    weight_decay: AtLeastNone = 0.0
    warmup_epochs: AtLeastNone = 0.0
    label_smoothing: Share = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    sampling: Literal["shuffled", "balanced"] = "shuffled"  # balanced: an epoch shows every label as often
    clip_norm: AtLeastNone = 0.0  # largest norm of all gradients together; 0: any
    accumulate: Count = 1  # batches whose gradients make one step
    ema: Share = 0.0
    patience: Annotated[int, Field(ge=0)] = 0  # epochs without a better val loss; 0: never stop early

    @model_validator(mode="after")
    def _balanced_once(self) -> "FitParams":
        if self.sampling == "balanced" and self.class_weights == "balanced":
            raise ValueError("sampling and class_weights both balance the labels; leave one of them balanced")
        return self

    def most_epochs(self) -> int:
        """As many as there are, unless it stops early."""
        return AUTO_EPOCHS if self.epochs == "auto" else self.epochs

    def stops_after(self) -> int:
        """Epochs without a better val loss after which it stops; 0: never."""
        return self.patience or (AUTO_PATIENCE if self.epochs == "auto" else 0)


class TrainHeadParams(FitParams):
    """The head alone, on the embeddings of the frozen trunk."""


class Unfreeze(Section):
    """Once so many epochs are done, `depth` blocks from the input stay frozen."""

    epoch: Annotated[int, Field(ge=0)]
    depth: Annotated[int, Field(ge=-1)]


class FineTuneParams(FitParams):
    """The trunk above freeze_depth, and the head."""

    freeze_depth: Annotated[int, Field(ge=-1)]
    unfreeze: tuple[Unfreeze, ...] = ()  # more blocks frozen at first, and fewer later, down to freeze_depth
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0  # each block's rate is the next one's times this
    batch_norm: Literal["fixed", "update"] = "fixed"  # statistics of the blocks that train
    cache_frozen: bool = False  # run the frozen blocks once on originals and stored copies, not anew every epoch
    mixup: AtLeastNone = 0.0  # two pictures in one, shares drawn from Beta(mixup, mixup); 0: off
    cutmix: AtLeastNone = 0.0  # a piece of another picture in one, its area drawn from Beta(cutmix, cutmix); 0: off

    @model_validator(mode="after")
    def _cache_makes_sense(self) -> "FineTuneParams":
        if self.cache_frozen and not self.freeze_depth:
            raise ValueError(
                "cache_frozen needs frozen blocks: give a freeze_depth other than 0, or cache_frozen: false"
            )
        if self.cache_frozen and (self.mixup or self.cutmix):
            # What a network says of two pictures in one is no mixture of what it says of each.
            raise ValueError(
                "mixup and cutmix need pictures, and cache_frozen keeps none: give 0 and 0, or cache_frozen: false"
            )
        return self

    @model_validator(mode="after")
    def _thaws(self) -> "FineTuneParams":
        if self.unfreeze:
            epochs = [step.epoch for step in self.unfreeze]
            depths = [math.inf if step.depth == -1 else step.depth for step in self.unfreeze]
            if epochs[0] or any(one >= other for one, other in itertools.pairwise(epochs)):
                raise ValueError("unfreeze: the first epoch must be 0, and each one later than the one before")
            if any(one <= other for one, other in itertools.pairwise(depths)):
                raise ValueError("unfreeze: each depth must be less than the one before (-1 is all blocks)")
            if self.unfreeze[-1].depth != self.freeze_depth:
                raise ValueError(
                    f"unfreeze: the last depth must be freeze_depth: give {self.freeze_depth} there, "
                    f"or freeze_depth: {self.unfreeze[-1].depth}"
                )
            if epochs[-1] >= self.most_epochs():
                raise ValueError(f"unfreeze: epoch {epochs[-1]} never comes: there are {self.most_epochs()} epochs")
        return self


class TrainParams(Section):
    """How to compute, for every stage that runs the network."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    cache_gb: AtLeastNone = 8.0  # of pictures kept decoded, or of a detector's maps; more, and they are made anew


def wrong_for_detectors(train_head: FitParams, fine_tune: FineTuneParams) -> tuple[str, str] | None:
    """The first key that only a classifier can have, with the value it must have; None: all is well."""
    off = {"label_smoothing": 0, "class_weights": "none", "sampling": "shuffled"}
    both = [
        (f"{name}.{key}", getattr(section, key), value)
        for key, value in off.items()
        for name, section in (("train_head", train_head), ("fine_tune", fine_tune))
    ]
    own = [
        (f"fine_tune.{key}", getattr(fine_tune, key), value)
        for key, value in {"cache_frozen": False, "mixup": 0, "cutmix": 0}.items()
    ]
    return next(((key, str(off).lower()) for key, value, off in [*both, *own] if value != off), None)
