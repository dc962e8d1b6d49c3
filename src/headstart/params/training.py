"""The sections `train`, `train_head` and `fine_tune` of params.yaml."""

import itertools
import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from headstart.params.section import Count, FractionBelowOne, NonNegative, Positive, Section

# What `epochs: auto` means: at most so many, the last ones with a falling rate, which begin once patience is out.
AUTO_EPOCHS, AUTO_EARLY_STOPPING_PATIENCE, AUTO_ANNEAL_EPOCHS = 50, 5, 5
_COUNT_ADAPTER: TypeAdapter[int] = TypeAdapter(Count)
_WEIGHT_DECAY_ADAPTER: TypeAdapter[float] = TypeAdapter(NonNegative)


def _validate_epochs(value: Any, _: ValidatorFunctionWrapHandler) -> int | str:
    return "auto" if value == "auto" else _COUNT_ADAPTER.validate_python(value)


class TrainingStageParams(Section):
    """Options that both training stages have."""

    epochs: Annotated[int | Literal["auto"], WrapValidator(_validate_epochs)]
    lr: Positive
    batch_size: Count = 32  # the most pictures of a batch
    weight_decay: NonNegative = 0.0  # of weights; biases and the parameters of norms have none
    min_steps: Annotated[int, Field(ge=0)] = 0  # more epochs where they have fewer batches; a small set needs them
    warmup_epochs: NonNegative = 0.0
    warmup_steps: Annotated[int, Field(ge=0)] = 0  # the same, in batches
    label_smoothing: FractionBelowOne = 0.0
    class_weights: Literal["none", "balanced"] = "none"  # balanced: of val_loss too, by which the best epoch is chosen
    sampling: Literal["shuffled", "balanced"] = "shuffled"  # balanced: an epoch has as many pictures of each label
    clip_norm: NonNegative = 0.0  # largest norm of all gradients together; 0: no clipping
    accumulate: Count = 1  # batches whose gradients are summed for one step
    ema: FractionBelowOne = 0.0  # decay of the moving average of the weights; 0: no average
    patience: Annotated[int, Field(ge=0)] = 0  # epochs without a better val loss; 0: never stop early

    @model_validator(mode="after")
    def _check_balancing(self) -> "TrainingStageParams":
        if self.sampling == "balanced" and self.class_weights == "balanced":
            raise ValueError("sampling and class_weights both balance the labels; leave one of them balanced")
        return self

    @model_validator(mode="after")
    def _check_steps(self) -> "TrainingStageParams":
        if self.warmup_steps and self.warmup_epochs:
            raise ValueError("warmup_steps and warmup_epochs are both set; give 0 for one of them")
        if self.min_steps and self.epochs == "auto":
            raise ValueError("min_steps: epochs: auto finds its own end; give min_steps: 0, or a number of epochs")
        return self

    def for_batches(self, batches: int) -> Self:
        """The same for a training set of so many batches, `epochs` being no fewer than min_steps asks for."""
        if self.epochs == "auto" or self.epochs * batches >= self.min_steps:
            return self
        return self.model_copy(update={"epochs": math.ceil(self.min_steps / batches)})

    def max_epochs(self) -> int:
        """The number of epochs, unless training stops early."""
        return AUTO_EPOCHS if self.epochs == "auto" else self.epochs

    def length(self) -> str:
        """`at most 9 epochs`, for the report."""
        more = f", or as many as have {self.min_steps} batches" if self.min_steps else ""
        return f"at most {self.max_epochs()} epochs{more}"

    def early_stopping_patience(self) -> int:
        """Epochs without a better val loss after which training stops, or `epochs: auto` anneals; 0: it never does."""
        return self.patience or (AUTO_EARLY_STOPPING_PATIENCE if self.epochs == "auto" else 0)

    def anneals(self) -> bool:
        """Whether the rate falls to 0 once patience is out, in AUTO_ANNEAL_EPOCHS more epochs; else training stops."""
        return self.epochs == "auto"

    def last_unfreeze(self) -> int:
        """Epochs done when the last blocks unfreeze; patience counts from there on."""
        return 0


# Options of training in epochs: a head that is solved has no use for them.
LOOP_OPTIONS = (
    "epochs",
    "lr",
    "batch_size",
    "min_steps",
    "warmup_epochs",
    "warmup_steps",
    "clip_norm",
    "accumulate",
    "ema",
    "patience",
)


def _validate_weight_decay(value: Any, _: ValidatorFunctionWrapHandler) -> float | str:
    return "auto" if value == "auto" else _WEIGHT_DECAY_ADAPTER.validate_python(value)


class TrainHeadParams(TrainingStageParams):
    """The new head alone, on features of the frozen backbone.

    A `linear` or `kernel` head is solved: weight_decay is then half the factor of the sum of all squared weights, of
    features of unit variance, beside the mean loss; auto: chosen by cross-validation on the training features.
    """

    epochs: Annotated[int | Literal["auto"], WrapValidator(_validate_epochs)] = 30
    lr: Positive = 1e-3
    weight_decay: Annotated[float | Literal["auto"], WrapValidator(_validate_weight_decay)] = "auto"  # type: ignore[assignment]

    def anneals(self) -> bool:
        """Always: a head that stops at a high rate has a higher loss than it need have, and its epochs are cheap."""
        return True

    def for_loop(self) -> "TrainHeadParams":
        """The same for training in epochs, where weight_decay: auto is 0."""
        return self.model_copy(update={"weight_decay": 0.0}) if self.weight_decay == "auto" else self

    def unused_in_fit(self) -> list[str]:
        """Options that are set and that a head which is solved has no use for."""
        return [name for name in LOOP_OPTIONS if name in self.model_fields_set]


class UnfreezeStep(Section):
    """After `epoch` epochs, `depth` blocks from the input stay frozen (-1: all)."""

    epoch: Annotated[int, Field(ge=0)]
    depth: Annotated[int, Field(ge=-1)]


class FineTuneParams(TrainingStageParams):
    """The backbone above freeze_depth, and the head."""

    freeze_depth: Annotated[int, Field(ge=-1)]
    unfreeze: tuple[UnfreezeStep, ...] = ()  # more blocks frozen at first, and fewer later, down to freeze_depth
    backbone_lr_scale: Annotated[float, Field(gt=0, le=1)] = 1.0  # the backbone's learning rates are times this
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0  # a block's learning rate is the next one's times this
    batch_norm: Literal["fixed", "update"] = "fixed"  # running statistics of the blocks that train
    # What is written: the epoch of the lowest val loss; one_se: the head-only model, unless that epoch's loss is lower
    # by more than one standard error of the paired difference (a classifier's).
    keep: Literal["lowest", "one_se"] = "lowest"
    cache_frozen: bool = False  # frozen blocks run once on originals and stored copies, not every epoch
    mixup: NonNegative = 0.0  # Zhang et al. 2018, arXiv 1710.09412: shares from Beta(mixup, mixup); 0: off
    cutmix: NonNegative = 0.0  # Yun et al. 2019, arXiv 1905.04899: area from Beta(cutmix, cutmix); 0: off

    def last_unfreeze(self) -> int:
        """Epochs done when the last blocks unfreeze; patience counts from there on."""
        return self.unfreeze[-1].epoch if self.unfreeze else 0

    @model_validator(mode="after")
    def _check_cache_frozen(self) -> "FineTuneParams":
        if self.cache_frozen and not self.freeze_depth:
            raise ValueError(
                "cache_frozen needs frozen blocks: give a freeze_depth other than 0, or cache_frozen: false"
            )
        if self.cache_frozen and (self.mixup or self.cutmix):
            # The features of a mixed picture are not the mixture of both pictures' features.
            raise ValueError(
                "mixup and cutmix need pictures, and cache_frozen trains on features: give 0 and 0, "
                "or cache_frozen: false"
            )
        return self

    @model_validator(mode="after")
    def _check_unfreeze(self) -> "FineTuneParams":
        if self.unfreeze:
            epochs = [step.epoch for step in self.unfreeze]
            depths = [math.inf if step.depth == -1 else step.depth for step in self.unfreeze]
            if epochs[0] or any(epoch >= later for epoch, later in itertools.pairwise(epochs)):
                raise ValueError("unfreeze: the first epoch must be 0, and each one later than the one before")
            if any(depth <= later for depth, later in itertools.pairwise(depths)):
                raise ValueError("unfreeze: each depth must be less than the one before (-1 is all blocks)")
            if self.unfreeze[-1].depth != self.freeze_depth:
                raise ValueError(
                    f"unfreeze: the last depth must be freeze_depth: give {self.freeze_depth} there, "
                    f"or freeze_depth: {self.unfreeze[-1].depth}"
                )
            if epochs[-1] >= self.max_epochs():
                raise ValueError(f"unfreeze: epoch {epochs[-1]} never comes: there are {self.max_epochs()} epochs")
        return self


class TrainParams(Section):
    """How networks are computed, in every stage that runs one."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    # Of .cache in all, 10^9 bytes: what was used least recently makes room. Pixels or a detector's feature maps that
    # take more are computed anew every epoch.
    cache_gb: NonNegative = 8.0
    # torch.compile for the backbone where some of its blocks train, which is in fine-tune alone: train-head (a
    # classifier's on cached features, a detector's on cached feature maps) has nothing to compile.
    compile: bool = False
    # This package's CPU kernels (engine.cpu): fused convolutions for inference, gradients of depthwise convolutions for
    # training. False: torch's own, slower, and other in the last bits.
    cpu_kernels: bool = True
    # Operators without a deterministic implementation are an error. False: they run, and two runs on a GPU may differ
    # in their last bits.
    deterministic: bool = True

    def in_fp32(self) -> "TrainParams":
        """The same kernels in fp32, whatever the precision of the training."""
        return TrainParams(precision="fp32", cpu_kernels=self.cpu_kernels, deterministic=self.deterministic)
