"""Faster R-CNN head: a region proposal network (RPN), then class and box of each proposal.

Source: Ren et al. 2015, arXiv 1506.01497, and Lin et al. 2017 (feature pyramids), arXiv 1612.03144, as torchvision
implements them; the losses are torchvision's, computed for all pictures at once.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import RPNHead, concat_box_prediction_layers
from torchvision.ops import clip_boxes_to_image

from headstart.base import distributed
from headstart.engine.input_spec import Shape
from headstart.models.heads import nms
from headstart.models.heads.anchors import UNMATCHED, decode_boxes, generate_anchors, match_anchors, with_background
from headstart.models.heads.roi_align import ROI_SIZE, multiscale_roi_align

# Under torchvision's names; its values, where they differ, are behind.
RPN_PRE_NMS_TOP_N = 1000  # 2000 in training
RPN_POST_NMS_TOP_N_TRAIN = 1000  # 2000
RPN_POST_NMS_TOP_N_TEST = 300  # 1000
RPN_BATCH_PER_IMAGE, RPN_POSITIVE_FRACTION = 256, 0.5  # anchors in the loss, at most so many of them positive
BOX_BATCH_PER_IMAGE, BOX_POSITIVE_FRACTION = 128, 0.25  # the same of proposals; 512 there: more than two CPU cores need
_RPN_NMS_IOU = 0.7
_RPN_MIN_SIZE = 1e-3  # of a proposal's sides, in pixels
_RPN_CODER, _BOX_CODER = BoxCoder((1.0, 1.0, 1.0, 1.0)), BoxCoder((10.0, 10.0, 5.0, 5.0))
_RPN_MATCHER = Matcher(0.7, 0.3, allow_low_quality_matches=True)
_BOX_MATCHER = Matcher(0.5, 0.5)


class FasterRcnnDetectionHead(nn.Module):
    """torchvision's RPN and box head with loss and box decoding.

    Outputs are one row a picture: of each anchor its objectness logit and the proposal relative to it; of each
    proposal its corners, logits of background and classes, and for each of these the box relative to the proposal.

    Attributes:
        nms_iou: IoU above which NMS drops the lower-scoring of two boxes of a class.
        anchors: (anchors, 4), xyxy in pixels.
        anchors_per_level: anchors of each level.
        strides: of the first feature maps, from which RoIAlign takes the proposals' features.
        shape: of the pictures.
        labels: how many, without background.
    """

    nms_iou = 0.5
    anchors: Tensor

    def __init__(
        self,
        proposer: RPNHead,
        crops: nn.Module,
        predictor: FastRCNNPredictor,
        *,
        anchors: Tensor,
        anchors_per_level: Sequence[int],
        strides: Sequence[int],
        shape: Shape,
    ) -> None:
        """`proposer` is the RPN head; `crops` the box head, (p, channels, 7, 7) -> what `predictor` takes.

        These two attributes' names are in the model file.
        """
        from timm.models import register_notrace_module

        super().__init__()
        register_notrace_module(FasterRcnnDetectionHead)  # its control flow depends on the pictures
        self.proposer, self.crops, self.predictor = proposer, crops, predictor
        self.anchors_per_level, self.strides, self.shape = anchors_per_level, strides, shape
        self.labels = predictor.cls_score.out_features - 1
        self.register_buffer("anchors", anchors, persistent=False)

    def forward(self, feature_maps: list[Tensor], targets: Tensor | None = None) -> Tensor:
        """Outputs (n, values). With targets (n, m, 5) the proposals are those sampled for the loss."""
        objectness, regression = concat_box_prediction_layers(*self.proposer(feature_maps))
        count = feature_maps[0].shape[0]
        objectness, regression = objectness.float().reshape(count, -1), regression.float().reshape(count, -1, 4)
        with torch.no_grad():
            top_n = RPN_POST_NMS_TOP_N_TEST if targets is None else RPN_POST_NMS_TOP_N_TRAIN
            proposals = self.filter_proposals(objectness.detach(), regression.detach(), top_n)
            if targets is not None:
                proposals = self._select_training_proposals(proposals, targets)
        features = self.crops(multiscale_roi_align(feature_maps, proposals, self.strides))
        predictions = [out.float().reshape(count, proposals.shape[1], -1) for out in self.predictor(features)]
        return torch.cat([part.flatten(1) for part in (objectness, regression, proposals, *predictions)], 1)

    def filter_proposals(self, objectness: Tensor, regression: Tensor, top_n: int) -> Tensor:
        """Proposals (n, p, 4), xyxy, highest-scoring first, after NMS within each level; all 0: no proposal.

        Args:
            objectness: logits (n, anchors).
            regression: (n, anchors, 4).
            top_n: most proposals of a picture.
        """
        starts = [sum(self.anchors_per_level[:level]) for level in range(len(self.anchors_per_level))]
        per_level = torch.split(objectness, list(self.anchors_per_level), 1)
        top = [logits.topk(min(RPN_PRE_NMS_TOP_N, logits.shape[1])).indices for logits in per_level]
        location = torch.cat([index + start for index, start in zip(top, starts, strict=True)], 1)
        level = torch.cat([torch.full((index.shape[1],), n, device=index.device) for n, index in enumerate(top)])
        regression = regression.gather(1, location.unsqueeze(-1).expand(-1, -1, 4))
        boxes = decode_boxes(_RPN_CODER, regression, self.anchors[location]).squeeze(2)
        boxes = clip_boxes_to_image(boxes, self.shape)
        large_enough = ((boxes[..., 2:] - boxes[..., :2]) >= _RPN_MIN_SIZE).all(-1)
        scores = objectness.gather(1, location).sigmoid() * large_enough
        is_level = level == torch.arange(len(top), device=level.device).unsqueeze(-1)  # (levels, locations)
        proposals, top_scores, _ = nms.select_boxes(
            boxes, scores.unsqueeze(1) * is_level, _RPN_NMS_IOU, 0.0, max_boxes=top_n, topk=boxes.shape[1]
        )
        return proposals * (top_scores > 0).unsqueeze(-1)

    def _select_training_proposals(self, proposals: Tensor, targets: Tensor) -> Tensor:
        """Proposals and ground truth boxes sampled for the loss, (n, p, 4)."""
        boxes = torch.cat([proposals, targets[..., 1:]], 1)
        _, sampled = self._match_and_sample(boxes, targets)
        order = sampled.byte().argsort(dim=1, descending=True, stable=True)[:, :BOX_BATCH_PER_IMAGE]
        return (boxes * sampled.unsqueeze(-1)).gather(1, order.unsqueeze(-1).expand(-1, -1, 4))

    def _match_and_sample(self, proposals: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The index of each proposal's ground truth box, and whether the proposal is in the loss; both (n, p)."""
        has_area = (proposals[..., 2:] > proposals[..., :2]).all(-1)
        matched_index = match_anchors(targets, proposals, _BOX_MATCHER)
        return matched_index, sample_balanced(
            (matched_index >= 0) & has_area,
            (matched_index == UNMATCHED) & has_area,
            BOX_BATCH_PER_IMAGE,
            BOX_POSITIVE_FRACTION,
            self.training,
        )

    def _split_outputs(self, outputs: Tensor) -> tuple[Tensor, ...]:
        """Of anchors (n, a) and (n, a, 4); of proposals (n, p, 4), (n, p, labels + 1) and (n, p, 4 (labels + 1))."""
        anchors, labels = len(self.anchors), self.labels + 1
        count = (outputs.shape[1] - 5 * anchors) // (4 + 5 * labels)
        parts = torch.split(outputs, [anchors, 4 * anchors, *(count * width for width in (4, labels, 4 * labels))], 1)
        widths = (4, 4, labels, 4 * labels)
        return parts[0], *(
            part.reshape(outputs.shape[0], -1, width) for part, width in zip(parts[1:], widths, strict=True)
        )

    def loss(self, outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Cross entropy and smooth L1 loss of the sampled anchors, and of the sampled proposals; a scalar.

        Args:
            outputs: as `forward` returns them, in fp32.
            targets: (n, m, 5), label and xyxy; label -1: padding.
            class_weights: factor of each label's true boxes in the classification loss (labels,); None: 1.
        """
        objectness, regression, proposals, logits, box_regression = self._split_outputs(outputs)
        rpn_loss = self._rpn_loss(objectness, regression, targets)
        return rpn_loss + self._box_loss(proposals, logits, box_regression, targets, class_weights)

    def _rpn_loss(self, objectness: Tensor, regression: Tensor, targets: Tensor) -> Tensor:
        matched_index = match_anchors(targets, self.anchors, _RPN_MATCHER)
        sampled = sample_balanced(
            matched_index >= 0,
            matched_index == UNMATCHED,
            RPN_BATCH_PER_IMAGE,
            RPN_POSITIVE_FRACTION,
            self.training,
        )
        is_object = (matched_index[sampled] >= 0).float()
        classification = F.binary_cross_entropy_with_logits(objectness[sampled], is_object, reduction="sum")
        picture, location = torch.where(sampled & (matched_index >= 0))
        true_boxes = targets[picture, matched_index[picture, location], 1:]
        box_targets = _RPN_CODER.encode_single(true_boxes, self.anchors[location])
        count = distributed.all_reduce_sum(sampled.sum(), shared=self.training).clamp(min=1)
        return (classification + _smooth_l1(regression[picture, location], box_targets)) / count

    def _box_loss(
        self, proposals: Tensor, logits: Tensor, regression: Tensor, targets: Tensor, class_weights: Tensor | None
    ) -> Tensor:
        matched_index, sampled = self._match_and_sample(proposals, targets)
        # 0 is background
        labels = torch.where(matched_index >= 0, targets[..., 0].long().gather(1, matched_index.clamp(min=0)) + 1, 0)
        weights = None if class_weights is None else with_background(class_weights)
        classification = F.cross_entropy(logits[sampled], labels[sampled], weight=weights, reduction="sum")
        picture, row = torch.where(sampled & (matched_index >= 0))
        true_boxes = targets[picture, matched_index[picture, row], 1:]
        box_targets = _BOX_CODER.encode_single(true_boxes, proposals[picture, row])
        of_label = regression.reshape(*regression.shape[:2], -1, 4)[picture, row, labels[picture, row]]
        count = distributed.all_reduce_sum(sampled.sum(), shared=self.training).clamp(min=1)
        return (classification + _smooth_l1(of_label, box_targets)) / count

    def decode(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (n, k, 4), xyxy in pixels, and scores (n, labels, k): the k highest scores, each of one label."""
        _, _, proposals, logits, regression = self._split_outputs(outputs)
        boxes = decode_boxes(_BOX_CODER, regression, proposals)[:, :, 1:].flatten(1, 2)
        has_area = (proposals[..., 2:] > proposals[..., :2]).all(-1, keepdim=True)
        scores = (logits.softmax(-1)[..., 1:] * has_area).flatten(1)
        top_scores, index = scores.topk(min(nms.TOPK_CANDIDATES, scores.shape[1]))
        is_label = (index % self.labels).unsqueeze(1) == torch.arange(self.labels, device=index.device).unsqueeze(-1)
        return boxes.gather(1, index.unsqueeze(-1).expand(-1, -1, 4)), top_scores.unsqueeze(1) * is_label


def _smooth_l1(predicted: Tensor, box_targets: Tensor) -> Tensor:
    return F.smooth_l1_loss(predicted, box_targets, beta=1 / 9, reduction="sum")


def sample_balanced(positive: Tensor, negative: Tensor, count: int, positive_fraction: float, training: bool) -> Tensor:
    """A random sample of each row, positives up to a fraction, filled up with negatives; a mask (n, p).

    In training from torch's global generator, whose state is part of a checkpoint; else the same at every call.

    Args:
        positive: mask (n, p).
        negative: mask (n, p), disjoint from `positive`.
        count: most samples of a row.
        positive_fraction: of them, at most.
        training: which generator.
    """
    generator = None if training else torch.Generator().manual_seed(0)
    keys = torch.rand(positive.shape, generator=generator).to(positive.device)

    def lowest_keys(mask: Tensor, limit: Tensor | int) -> Tensor:
        rank = keys.masked_fill(~mask, 2).argsort(dim=1, stable=True).argsort(dim=1)
        return mask & (rank < limit)

    sampled = lowest_keys(positive, int(count * positive_fraction))
    return sampled | lowest_keys(negative, count - sampled.sum(1, keepdim=True))


def create_head(channels: int, labels: int, feature_maps: list[Tensor], shape: Shape) -> FasterRcnnDetectionHead:
    """A randomly initialized head for feature maps of `channels` channels, the first of stride 8.

    Anchors have a side of 4 strides, in the aspect ratios 0.5, 1 and 2; proposals take their features from the first
    three feature maps. `feature_maps` are those of a picture of that shape; only their shapes matter.
    """
    sizes = tuple((32 << level,) for level in range(len(feature_maps)))
    generator = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))
    anchors, anchors_per_level = generate_anchors(generator, feature_maps, shape)
    return FasterRcnnDetectionHead(
        RPNHead(channels, 3),
        TwoMLPHead(channels * ROI_SIZE**2, 1024),
        FastRCNNPredictor(1024, labels + 1),
        anchors=anchors,
        anchors_per_level=anchors_per_level,
        strides=(8, 16, 32),
        shape=shape,
    )
