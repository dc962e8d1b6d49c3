"""Faster R-CNN's two stages on a pyramid's maps: where something is, then what it is and where exactly.

Source: Ren et al. 2015, arXiv 1506.01497, and Lin et al. 2017 (feature pyramids), as torchvision has them; the losses
are torchvision's, all pictures at once.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import RPNHead, concat_box_prediction_layers

from headstart import nms, ranks
from headstart.anchors import NONE, decode, lay, match
from headstart.crops import SIDE, crop

BEFORE = 1000  # proposals of a level that are looked at
TAUGHT, GIVEN = 1000, 300  # proposals of a picture, none overlapping a surer one: while it learns, and else
ANCHORS, ANCHOR_SHARE = 256, 0.5  # of a picture that are learned from, and how many of them may answer for a box
BOXES, BOX_SHARE = 128, 0.25  # the same of proposals; as many as two cores can do with
_SMALLEST = 1e-3  # pixels of a proposal's side
_PROPOSAL_CODER, _BOX_CODER = BoxCoder((1.0, 1.0, 1.0, 1.0)), BoxCoder((10.0, 10.0, 5.0, 5.0))
_PROPOSAL_MATCHER = Matcher(0.7, 0.3, allow_low_quality_matches=True)
_BOX_MATCHER = Matcher(0.5, 0.5)


class FasterRcnn(nn.Module):
    """torchvision's layers, and the loss and the boxes of what they say.

    What is said of a picture is one row: of each anchor a logit and how the proposal differs from it, of each proposal
    its corners, logits (the first one's label is: nothing), and how the box of each label differs from it.

    Attributes:
        overlap: IoU from which two boxes of a label are one.
        anchors: corners (anchors, 4).
        counts: anchors of each level.
        strides: of the maps that proposals are cropped from, the first ones.
        labels: how many, without `nothing`.
    """

    overlap = 0.5
    anchors: Tensor

    def __init__(
        self,
        proposer: RPNHead,
        crops: nn.Module,
        predictor: FastRCNNPredictor,
        *,
        anchors: Tensor,
        counts: Sequence[int],
        strides: Sequence[int],
        size: int,
    ) -> None:
        """`crops`: (p, channels, 7, 7) -> what `predictor` takes; `size`: the pictures' side."""
        from timm.models import register_notrace_module

        super().__init__()
        register_notrace_module(FasterRcnn)  # its way depends on what is in the pictures
        self.proposer, self.crops, self.predictor = proposer, crops, predictor
        self.counts, self.strides, self.size = counts, strides, size
        self.labels = predictor.cls_score.out_features - 1
        self.register_buffer("anchors", anchors, persistent=False)

    def forward(self, maps: list[Tensor], targets: Tensor | None = None) -> Tensor:
        """Rows (n, values). With targets (n, m, 5) the proposals are those that are learned from."""
        flat, changes = concat_box_prediction_layers(*self.proposer(maps))
        count = maps[0].shape[0]
        logits, changes = flat.float().reshape(count, -1), changes.float().reshape(count, -1, 4)
        with torch.no_grad():
            boxes = self.proposals(logits.detach(), changes.detach(), GIVEN if targets is None else TAUGHT)
            if targets is not None:
                boxes = self._lesson(boxes, targets)
        found = self.predictor(self.crops(crop(maps, boxes, self.strides)))
        parts = [logits, changes, boxes, *(each.float().reshape(count, boxes.shape[1], -1) for each in found)]
        return torch.cat([part.flatten(1) for part in parts], 1)

    def proposals(self, logits: Tensor, changes: Tensor, most: int) -> Tensor:
        """Corners (n, p, 4), the surest first, none overlapping a surer one of its level; no area: no proposal."""
        starts = [sum(self.counts[:level]) for level in range(len(self.counts))]
        parts = torch.split(logits, list(self.counts), 1)
        some = [part.topk(min(BEFORE, part.shape[1])).indices for part in parts]
        place = torch.cat([each + start for each, start in zip(some, starts, strict=True)], 1)
        level = torch.cat([torch.full((each.shape[1],), n, device=each.device) for n, each in enumerate(some)])
        changes = changes.gather(1, place.unsqueeze(-1).expand(-1, -1, 4))
        boxes = decode(_PROPOSAL_CODER, changes, self.anchors[place]).squeeze(2).clamp(0, self.size)
        large = ((boxes[..., 2:] - boxes[..., :2]) >= _SMALLEST).all(-1)
        scores = logits.gather(1, place).sigmoid() * large
        own = level == torch.arange(len(some), device=level.device).unsqueeze(-1)  # (levels, places)
        chosen, found, _ = nms.select(boxes, scores.unsqueeze(1) * own, 0.7, 0.0, most=most, candidates=boxes.shape[1])
        return chosen * (found > 0).unsqueeze(-1)

    def _lesson(self, boxes: Tensor, targets: Tensor) -> Tensor:
        """Of proposals and true boxes those that are learned from, (n, p, 4)."""
        boxes = torch.cat([boxes, targets[..., 1:]], 1)
        _, chosen = self._chosen(boxes, targets)
        order = chosen.byte().argsort(dim=1, descending=True, stable=True)[:, :BOXES]
        return (boxes * chosen.unsqueeze(-1)).gather(1, order.unsqueeze(-1).expand(-1, -1, 4))

    def _chosen(self, boxes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Which box each proposal answers for, and whether it is learned from; both (n, p)."""
        there = (boxes[..., 2:] > boxes[..., :2]).all(-1)
        matched = torch.stack([match(t, b, _BOX_MATCHER) for t, b in zip(targets, boxes, strict=True)])
        return matched, sample((matched >= 0) & there, (matched == NONE) & there, BOXES, BOX_SHARE, self.training)

    def _parts(self, said: Tensor) -> tuple[Tensor, ...]:
        """Of anchors (n, a) and (n, a, 4); of proposals (n, p, 4), (n, p, labels + 1) and (n, p, 4 (labels + 1))."""
        anchors, labels = len(self.anchors), self.labels + 1
        count = (said.shape[1] - 5 * anchors) // (4 + 5 * labels)
        parts = torch.split(said, [anchors, 4 * anchors, *(count * width for width in (4, labels, 4 * labels))], 1)
        widths = (4, 4, labels, 4 * labels)
        return parts[0], *(
            part.reshape(said.shape[0], -1, width) for part, width in zip(parts[1:], widths, strict=True)
        )

    def loss(self, said: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy and smooth L1 loss of the anchors, and of the proposals, that are drawn; a scalar.

        Args:
            said: what `forward` gives, in fp32.
            targets: (n, m, 5), label and corners; label -1: no box.
        """
        logits, changes, proposals, label_logits, box_changes = self._parts(said)
        matched = torch.stack([match(each, self.anchors, _PROPOSAL_MATCHER) for each in targets])
        chosen = sample(matched >= 0, matched == NONE, ANCHORS, ANCHOR_SHARE, self.training)
        wanted = (matched[chosen] >= 0).float()
        total = F.binary_cross_entropy_with_logits(logits[chosen], wanted, reduction="sum")
        picture, place = torch.where(chosen & (matched >= 0))
        true = _PROPOSAL_CODER.encode_single(targets[picture, matched[picture, place], 1:], self.anchors[place])
        number = ranks.whole(chosen.sum(), shared=self.training).clamp(min=1)
        first = (total + _smooth(changes[picture, place], true)) / number

        matched, chosen = self._chosen(proposals, targets)
        labels = torch.where(matched >= 0, targets[..., 0].long().gather(1, matched.clamp(min=0)) + 1, 0)
        total = F.cross_entropy(label_logits[chosen], labels[chosen], reduction="sum")
        picture, place = torch.where(chosen & (matched >= 0))
        true = _BOX_CODER.encode_single(targets[picture, matched[picture, place], 1:], proposals[picture, place])
        own = box_changes.reshape(*box_changes.shape[:2], -1, 4)[picture, place, labels[picture, place]]
        number = ranks.whole(chosen.sum(), shared=self.training).clamp(min=1)
        return first + (total + _smooth(own, true)) / number

    def decode(self, said: Tensor) -> tuple[Tensor, Tensor]:
        """Corners (n, k, 4) in pixels and scores (n, labels, k): each of the surest k boxes is of one label."""
        _, _, proposals, logits, changes = self._parts(said)
        boxes = decode(_BOX_CODER, changes, proposals)[:, :, 1:].flatten(1, 2)
        there = (proposals[..., 2:] > proposals[..., :2]).all(-1, keepdim=True)
        scores = (logits.softmax(-1)[..., 1:] * there).flatten(1)
        surest, pair = scores.topk(min(nms.CANDIDATES, scores.shape[1]))
        own = (pair % self.labels).unsqueeze(1) == torch.arange(self.labels, device=pair.device).unsqueeze(-1)
        return boxes.gather(1, pair.unsqueeze(-1).expand(-1, -1, 4)), surest.unsqueeze(1) * own


def _smooth(said: Tensor, true: Tensor) -> Tensor:
    return F.smooth_l1_loss(said, true, beta=1 / 9, reduction="sum")


def sample(positive: Tensor, negative: Tensor, most: int, share: float, training: bool) -> Tensor:
    """Draw at most `most` a row, at most `share` of them positive; all three are (n, p) and true or false.

    In training by torch's own generator, whose state is part of a checkpoint; else always the same.
    """
    generator = None if training else torch.Generator().manual_seed(0)
    keys = torch.rand(positive.shape, generator=generator).to(positive.device)

    def first(of: Tensor, count: Tensor | int) -> Tensor:
        rank = keys.masked_fill(~of, 2).argsort(dim=1, stable=True).argsort(dim=1)
        return of & (rank < count)

    some = first(positive, int(most * share))
    return some | first(negative, most - some.sum(1, keepdim=True))


def make(channels: int, labels: int, maps: list[Tensor], size: int) -> FasterRcnn:
    """A new head for maps of `channels` channels, the first of stride 8; proposals are cropped from the first three.

    Anchors are four strides large, each flat, square and upright.
    """
    sizes = tuple((32 << level,) for level in range(len(maps)))
    anchors, counts = lay(AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes)), maps, size)
    return FasterRcnn(
        RPNHead(channels, 3),
        TwoMLPHead(channels * SIDE**2, 1024),
        FastRCNNPredictor(1024, labels + 1),
        anchors=anchors,
        counts=counts,
        strides=(8, 16, 32),
        size=size,
    )
