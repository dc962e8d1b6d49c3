"""Detections of a training stage's model, with NMS within labels or across them."""

from collections.abc import Sequence
from pathlib import Path

from headstart.base.detections import Detection
from headstart.base.manifest import Manifest
from headstart.base.progress import track
from headstart.engine.inference import DETECTOR_BATCH
from headstart.engine.input_spec import TileSpec
from headstart.engine.tile_manifest import cut_manifest, merge_detections
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
        if tiles := self.spec.input.tiles:
            return self._detect_in_tiles(manifest, tiles, settings)
        outputs = self._outputs(manifest)
        return [
            detector.to_coco_results(self._network, outputs, manifest, self.spec, class_agnostic_nms=across_labels)
            for across_labels in settings
        ]

    def _detect_in_tiles(self, manifest: Manifest, tiles: TileSpec, settings: Sequence[bool]) -> list[list[Detection]]:
        """The same by tiles, one picture after another: the outputs of all tiles together may be gigabytes."""
        found: list[list[Detection]] = [[] for _ in settings]
        for image in track(manifest.images, "detect", len(manifest.images)):
            picture = manifest.subset([image])
            tiled = cut_manifest(picture, tiles)
            outputs = self._outputs(tiled)
            for number, across in enumerate(settings):
                in_tiles = detector.to_coco_results(self._network, outputs, tiled, self.spec, class_agnostic_nms=across)
                found[number] += merge_detections(in_tiles, tiled, picture, tiles, across_labels=across)
        return found
