"""Detections of both models on val and test."""

from collections.abc import Mapping
from pathlib import Path

from headstart.base.detections import Detection, SplitDetections
from headstart.base.manifest import Manifest, Split
from headstart.engine.inference import DETECTOR_BATCH
from headstart.evaluation.network_outputs import fp32_outputs
from headstart.models import detector
from headstart.models.file import read_model_file
from headstart.params.root import Params


def predict_detections(stage: str, splits: Mapping[Split, Manifest], params: Params, root: Path) -> SplitDetections:
    """The boxes that the model of a training stage detects in val and test, computed in fp32."""
    tensors, spec = read_model_file(root / f"stages/{stage}/model.safetensors")
    network = detector.build(tensors, spec)
    outputs = fp32_outputs(network, spec, params, root, DETECTOR_BATCH)

    def detections(manifest: Manifest) -> list[Detection]:
        return detector.to_coco_results(network, outputs(manifest), manifest, spec)

    return SplitDetections(val=detections(splits["val"]), test=detections(splits["test"]))
