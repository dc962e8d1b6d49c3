"""The fine-tuned model as ONNX, proven equal to what was examined."""

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from headstart import box_export, classify, coco, modelfile, onnxfile, pixels
from headstart.batches import outputs
from headstart.compute import prepare
from headstart.errors import UserError
from headstart.files import read_json, write_json, write_text
from headstart.fold import fold
from headstart.modelfile import Card
from headstart.params import ExportParams, Params, TrainParams
from headstart.pixels import Pixels
from headstart.predict import Model
from headstart.quantize import CALIBRATION, quantize


class Exported(nn.Module):
    """Pixels (n, size, size, 3) uint8 -> logits and calibrated probabilities, both (n, labels)."""

    def __init__(self, network: nn.Module, card: Card, temperature: float) -> None:
        super().__init__()
        self.whole, self.temperature = onnxfile.Normalised(network, card.input), temperature

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.whole(pixels)
        return logits, (logits / self.temperature).softmax(-1)


def export(params: Params, root: Path) -> None:
    """Write stages/export: model.onnx, labels.json, parity.json, model_card.md.

    Raises:
        UserError: the ONNX model does not say of the test pictures what the torch model says, or int8 costs too much.
    """
    out = root / "stages/export"
    tensors, card = modelfile.read(root / "stages/fine-tune/model.safetensors")
    metrics = read_json(root / "stages/evaluate/metrics.json")
    out.mkdir(parents=True, exist_ok=True)
    test = coco.read(root / "stages/split/test.json")
    seen = pixels.load(test.images, root, card.input, "decode")
    if params.task == "detect":
        parity = _detector(out, tensors, card, seen, metrics["test"]["threshold"], params.export)
        told = f"{parity['boxes']} boxes, the largest difference {parity['largest_difference_in_pixels']:.2g} pixels"
    else:
        parity = _classifier(out, tensors, card, seen, metrics["test"]["temperature"], params)
        told = f"largest difference of a logit {parity['largest_logit_difference']:.2g}, same label for all"
    write_json(out / "parity.json", parity)
    _write_card(out / "model_card.md", card, metrics, parity, root)
    print(f"export: {parity['pictures']} test pictures, {told}; stages/export/model.onnx")
    if small := parity.get("int8"):
        print(
            f"export: int8 is {small['bytes'] / small['bytes_fp32']:.3f} of the size, test accuracy "
            f"{small['accuracy']:.4f} (fp32 {small['accuracy_fp32']:.4f}), {small['milliseconds']:g} ms a picture "
            f"(fp32 {small['milliseconds_fp32']:g})"
        )


def _classifier(
    out: Path, tensors: dict[str, Tensor], card: Card, seen: Pixels, temperature: float, params: Params
) -> dict[str, Any]:
    root = out.parents[1]
    test = coco.read(root / "stages/split/test.json")
    network = classify.build(tensors, card)
    compute = prepare(TrainParams(precision="fp32"), params.seed)
    expected = outputs(network, seen, card.input, compute).numpy()
    folded, _ = fold(network.trunk, card.input.size)
    _write_onnx(Exported(classify.Classifier(folded, network.head), card, temperature), card, out)
    write_json(out / "labels.json", _labels(card, temperature))
    parity = _parity(out, seen, expected, params.export)
    if params.export.quantize == "int8":
        truth = classify.targets(test.images, card.labels).numpy()
        parity["int8"] = _int8(out, seen, truth, _calibration(root, card, params.seed), params.export)
    return parity


def _detector(
    out: Path, tensors: dict[str, Tensor], card: Card, seen: Pixels, threshold: float, params: ExportParams
) -> dict[str, Any]:
    expected = box_export.write(out, tensors, card, seen)
    write_json(out / "labels.json", box_export.labels(card, threshold))
    return box_export.parity(out, seen, expected, threshold, params)


def _write_onnx(network: nn.Module, card: Card, out: Path) -> None:
    onnxfile.write(network, out / "model.onnx", size=card.input.size, outputs=("logits", "probabilities"))


def _labels(card: Card, temperature: float) -> dict[str, Any]:
    return {
        "task": card.task,
        "labels": list(card.labels),
        "input": card.input.model_dump(mode="json"),
        "temperature": temperature,
        "how": "upright RGB picture, resized as `input` says (Pillow), uint8 (batch, size, size, 3) as `pixels`; "
        "normalisation is in the graph. `logits` are raw, `probabilities` calibrated by the temperature.",
    }


def _parity(out: Path, seen: Pixels, expected: "np.ndarray[Any, Any]", params: ExportParams) -> dict[str, Any]:
    model = Model(out)
    found = np.concatenate([model.logits(seen[start : start + 32]) for start in range(0, len(seen), 32)])
    difference = float(np.abs(found - expected).max())
    same = int((found.argmax(1) == expected.argmax(1)).sum())
    if not difference <= params.tolerance or same < len(seen):  # a difference of nan proves nothing
        (out / "model.onnx").unlink()  # what is not proven does not lie around
        raise UserError(
            f"params.yaml: export.tolerance: {params.tolerance:g}: the ONNX model differs by {difference:.3g} in a "
            f"logit and agrees on {same} of {len(seen)} labels; raise the tolerance only if you can live with that"
        )
    return {
        "pictures": len(seen),
        "largest_logit_difference": float(f"{difference:.3g}"),
        "same_label": same,
        "tolerance": params.tolerance,
    }


def _calibration(root: Path, card: Card, seed: int) -> Pixels:
    """Training pictures drawn by the seed."""
    images = coco.read(root / "stages/split/train.json").images
    drawn = np.random.default_rng(seed).permutation(len(images))[:CALIBRATION]
    return pixels.load([images[number] for number in sorted(drawn)], root, card.input, "calibrate")


def _int8(
    out: Path, seen: Pixels, truth: "np.ndarray[Any, Any]", calibration: Pixels, params: ExportParams
) -> dict[str, Any]:
    """Replace model.onnx by its 8-bit version, and say what that costs and gains on the test pictures."""
    full = _measured(out, seen, truth)
    part = out / "model.part.onnx"
    quantize(out / "model.onnx", part, calibration)
    part.replace(out / "model.onnx")
    small = _measured(out, seen, truth)
    drop = full["accuracy"] - small["accuracy"]
    if not drop <= params.max_drop:
        (out / "model.onnx").unlink()
        raise UserError(
            f"params.yaml: export.max_drop: {params.max_drop:g}: int8 costs {drop:.4f} of test accuracy "
            f"({full['accuracy']:.4f} to {small['accuracy']:.4f}); raise it, or export.quantize: none"
        )
    return small | {f"{key}_fp32": value for key, value in full.items()} | {"calibrated_on": len(calibration)}


def _measured(out: Path, seen: Pixels, truth: "np.ndarray[Any, Any]") -> dict[str, Any]:
    model = Model(out)
    found = np.concatenate([model.logits(seen[start : start + 32]) for start in range(0, len(seen), 32)])
    seconds = []
    for number in range(30):
        begin = time.perf_counter()
        model.logits(seen[number % len(seen)][None])
        seconds.append(time.perf_counter() - begin)
    return {
        "accuracy": round(float((found.argmax(1) == truth).mean()), 6),
        "bytes": (out / "model.onnx").stat().st_size,
        "milliseconds": round(1000 * statistics.median(seconds), 1),
    }


def _write_card(path: Path, card: Card, metrics: dict[str, Any], parity: dict[str, Any], root: Path) -> None:
    """model_card.md: what someone must know who gets the ONNX file alone."""
    import jinja2

    train = coco.read(root / "stages/split/train.json")
    environment = jinja2.Environment(  # noqa: S701 (Markdown: nothing to escape)
        loader=jinja2.PackageLoader("headstart"), undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    # A figure that the exam could not give (precision of a label never predicted) is not among the metrics.
    environment.filters["digits"] = lambda value, digits: f"{value:.{digits}f}" if isinstance(value, float) else "none"
    text = environment.get_template("detector_card.md.j2" if card.detector else "model_card.md.j2").render(
        card=card,
        test=metrics["test"],
        head_only=metrics["head_only"],
        parity=parity,
        weights=read_json(root / "stages/weights/weights.json"),
        pictures=len(train.images),
        sources=sorted({image.source for image in train.images}),
        licences=sorted({image.license or "not stated" for image in train.images}),
    )
    write_text(path, text + "\n")
