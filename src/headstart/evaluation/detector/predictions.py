"""Detections of a training stage's model, with NMS within labels or across them."""

from collections.abc import Sequence
from pathlib import Path

from headstart.base.detections import Detection
from headstart.base.manifest import Manifest
from headstart.engine.inference import DETECTOR_BATCH
from headstart.evaluation.network_outputs import fp32_outputs
from headstart.models import detector
from headstart.models.file import hash_tensors, read_model_file
from headstart.params.root import Params


class StageDetector:
    """The detector of a training stage.

    Attributes:
        spec: of the network.
        nms_iou: limit of its NMS.
        digest: hash of its tensors.
    """

    def __init__(self, stage: str, params: Params, root: Path) -> None:
        """Read the model file and prepare the network.

        Raises:
            UserError: the file is missing or unreadable.
        """
        tensors, self.spec = read_model_file(root / f"stages/{stage}/model.safetensors")
        self.digest = hash_tensors(tensors)
        self._network = detector.build(tensors, self.spec)
        self.nms_iou = self._network.head.nms_iou
        self._outputs = fp32_outputs(self._network, self.spec, params, root, DETECTOR_BATCH)

    def detect(self, manifest: Manifest, settings: Sequence[bool]) -> list[list[Detection]]:
        """The boxes in a manifest's pictures, computed in fp32, for each setting of NMS (True: across labels)."""
        outputs = self._outputs(manifest)
        return [
            detector.to_coco_results(self._network, outputs, manifest, self.spec, class_agnostic_nms=across_labels)
            for across_labels in settings
        ]
