"""unknown.safetensors: by which rules an exported classifier says "none of these", or two labels instead of one."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from headstart.base.errors import UserError, first_line, missing_file
from headstart.metrics.conformal import PredictionSets
from headstart.metrics.strangeness import FeatureBank
from headstart.models.strangeness_features import FeaturePlan

FILE_NAME = "unknown.safetensors"
NO_RULES = save({})  # of a detector


@dataclass(frozen=True)
class AnswerRules:
    """The rules that evaluation fits and the exported model carries.

    Attributes:
        bank: features of training pictures, from which strangeness is measured.
        plan: which features these are.
        threshold: a stranger picture is none of the labels; infinite: there is no such picture.
        sets: the labels that a picture may have.
    """

    bank: FeatureBank
    plan: FeaturePlan
    threshold: float
    sets: PredictionSets

    def to_bytes(self) -> bytes:
        """The content of unknown.safetensors; equal rules are equal bytes."""
        arrays = {
            "mean": self.bank.mean,
            "components": self.bank.components,
            "rows": self.bank.rows,
            "thresholds": self.sets.thresholds,
            "threshold": np.array([self.threshold]),
        }
        facts = {
            "neighbours": self.bank.neighbours,
            "levels": self.plan.levels,
            "parts": self.plan.parts,
            "confidence": self.sets.confidence,
            "note": self.sets.note,
        }
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        return save(tensors, metadata={"headstart": json.dumps(facts, sort_keys=True)})


def read_answer_rules(path: Path) -> AnswerRules:
    """Read unknown.safetensors.

    Raises:
        UserError: it is missing or damaged.
    """
    if not path.is_file():
        raise missing_file(path, "run the stage that writes it: dvc repro evaluate")
    try:
        with safe_open(path, framework="np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
            facts = json.loads((file.metadata() or {})["headstart"])
        plan = FeaturePlan(tuple(facts["levels"]), tuple((start, stop) for start, stop in facts["parts"]))
        return AnswerRules(
            FeatureBank(arrays["mean"], arrays["components"], arrays["rows"], facts["neighbours"], plan.widths),
            plan,
            float(arrays["threshold"][0]),
            PredictionSets(facts["confidence"], arrays["thresholds"], facts["note"]),
        )
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{path}: damaged ({first_line(error)}); run `dvc repro` to make it anew") from None


class StrangenessScore(nn.Module):
    """`FeatureBank.strangeness` in a network: features (n, f) -> scores (n,).

    Sums of products instead of matrix products, which are few enough: int8 would quantize those and all that they come
    from, and differences of squares need their last bits.
    """

    mean: Tensor
    components: Tensor
    rows: Tensor

    def __init__(self, bank: FeatureBank) -> None:
        super().__init__()
        for name in ("mean", "components", "rows"):
            self.register_buffer(name, torch.from_numpy(np.array(getattr(bank, name), dtype=np.float32)))
        self.neighbours, self.widths = bank.neighbours, bank.widths

    def forward(self, features: Tensor) -> Tensor:
        parts = [
            part / part.square().sum(1, keepdim=True).sqrt().clamp(min=1e-12)
            for part in torch.split(features, list(self.widths), dim=1)
        ]
        centred = torch.cat(parts, 1) - self.mean
        inside = (centred[:, :, None] * self.components).sum(1)
        outside = (centred.square().sum(1) - inside.square().sum(1)).clamp(min=0)
        squares = (inside[:, None, :] - self.rows).square().sum(-1)
        nearest = squares.topk(self.neighbours, dim=1, largest=False).values[:, -1]
        return (nearest + outside).sqrt()
