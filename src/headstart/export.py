"""The fine-tuned model as ONNX, proven equal to what was examined."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor, nn

from headstart import classify, coco, model_card, modelfile, onnxfile, pixels, sitting, speed
from headstart.batches import BATCH, VAL_BATCH, outputs
from headstart.coco import Manifest
from headstart.compute import prepare
from headstart.errors import UserError
from headstart.files import read_json, write_json
from headstart.fold import fold
from headstart.modelfile import Card
from headstart.params import ExportParams, Params, TrainParams
from headstart.pixels import Pixels
from headstart.predict import Boxes, Look, Model, Odds
from headstart.quantize import CALIBRATION, quantize
from headstart.sitting import Sitting

Answer = TypeVar("Answer", bound=Odds | Boxes)
FIGURES = {"classify": "accuracy", "detect": "AP"}  # what int8 may cost `max_drop` of


class Exported(nn.Module):
    """Pixels (n, size, size, 3) uint8 -> logits and calibrated probabilities, both (n, labels)."""

    def __init__(self, network: nn.Module, card: Card, temperature: float) -> None:
        super().__init__()
        self.whole, self.temperature = onnxfile.Normalised(network, card.input), temperature

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.whole(pixels)
        return logits, (logits / self.temperature).softmax(-1)


def export(params: Params, root: Path) -> None:
    """Write stages/export: model.onnx, labels.json, parity.json, answers.json, speed.json, model_card.md.

    The same params give the same bytes, but for the times in speed.json and the model card.

    Raises:
        UserError: the ONNX model does not say of the test pictures what the torch model says, or int8 costs too much
            of its accuracy or AP.
    """
    out = root / "stages/export"
    tensors, card = modelfile.read(root / "stages/fine-tune/model.safetensors")
    metrics = read_json(root / "stages/evaluate/metrics.json")
    out.mkdir(parents=True, exist_ok=True)
    test = coco.read(root / "stages/split/test.json")
    seen = pixels.load(test.images, root, card.input, "decode")
    slower: dict[str, Any] = {}  # the speed before int8
    found: Odds | Boxes
    if params.task == "detect":
        parity, found = _detector(out, tensors, card, seen, metrics["test"]["threshold"], params.export)
        told = f"{parity['boxes']} boxes, the largest difference {parity['largest_difference_in_pixels']:.2g} pixels"
    else:
        parity, found = _classifier(out, tensors, card, seen, metrics["test"]["temperature"], params)
        told = f"largest difference of a logit {parity['largest_logit_difference']:.2g}, same label for all"
    if params.export.quantize == "int8":
        slower = speed.measure(out, seen)
        parity["int8"], found = _int8(out, found, seen, test, _calibration(root, card, params.seed), params)
    write_json(out / "parity.json", parity)
    sitting.write(_sitting(out, found, seen, test), out)
    quick = speed.measure(out, seen) | ({"fp32": slower} if slower else {})
    write_json(out / "speed.json", quick)
    model_card.write(out / "model_card.md", card, metrics, parity, quick, root)
    print(
        f"export: {parity['pictures']} test pictures, {told}; {quick['milliseconds']:g} ms a picture; "
        "stages/export/model.onnx"
    )
    if small := parity.get("int8"):
        name = FIGURES[params.task]
        print(
            f"export: int8 is {small['bytes'] / small['bytes_fp32']:.3f} of the size, test {name} {small[name]:.4f} "
            f"(fp32 {small[f'{name}_fp32']:.4f}), {quick['milliseconds']:g} ms a picture (fp32 "
            f"{slower['milliseconds']:g})"
        )


def _answer(ask: Callable[[Pixels], Answer], seen: Pixels, batch: int) -> Answer:
    """What the file that was written says of the test pictures, some at a time. All that follows rests on this run."""
    parts = [ask(seen[start : start + batch]) for start in range(0, len(seen), batch)]
    return type(parts[0])(*(np.concatenate(some) for some in zip(*parts, strict=True)))


def _sitting(out: Path, found: Odds | Boxes, seen: Pixels, test: Manifest) -> Sitting:
    model = Model(out)
    looks = [Look(some, image.width, image.height) for some, image in zip(seen, test.images, strict=True)]
    return sitting.sit(test, model.labels, model.said(found, looks))


def _classifier(
    out: Path, tensors: dict[str, Tensor], card: Card, seen: Pixels, temperature: float, params: Params
) -> tuple[dict[str, Any], Odds]:
    """What parity.json says, and what the file says."""
    network = classify.build(tensors, card)
    compute = prepare(TrainParams(precision="fp32"), params.seed)
    expected = outputs(network, seen, card.input, compute).numpy()
    folded, _ = fold(network.trunk, card.input.size)
    _write_onnx(Exported(classify.Classifier(folded, network.head), card, temperature), card, out)
    write_json(out / "labels.json", _labels(card, temperature))
    found = _answer(Model(out).odds, seen, BATCH)
    return _parity(out, found, expected, params.export), found


def _detector(
    out: Path, tensors: dict[str, Tensor], card: Card, seen: Pixels, threshold: float, params: ExportParams
) -> tuple[dict[str, Any], Boxes]:
    from headstart import box_export  # a classifier wants nothing of a detector

    expected, overlap = box_export.write(out, tensors, card, seen)
    write_json(out / "labels.json", box_export.labels(card, threshold))
    found = _answer(Model(out).boxes, seen, VAL_BATCH)
    return box_export.parity(out, found, expected, threshold, overlap, params), found


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


def _parity(out: Path, found: Odds, expected: "np.ndarray[Any, Any]", params: ExportParams) -> dict[str, Any]:
    difference = float(np.abs(found.logits - expected).max())
    same = int((found.logits.argmax(1) == expected.argmax(1)).sum())
    if not difference <= params.tolerance or same < len(expected):  # a difference of nan proves nothing
        (out / "model.onnx").unlink()  # what is not proven does not lie around
        raise UserError(
            f"params.yaml: export.tolerance: {params.tolerance:g}: the ONNX model differs by {difference:.3g} in a "
            f"logit and agrees on {same} of {len(expected)} labels; raise the tolerance only if you can live with that"
        )
    return {
        "pictures": len(expected),
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
    out: Path, full: Odds | Boxes, seen: Pixels, test: Manifest, calibration: Pixels, params: Params
) -> tuple[dict[str, Any], Odds | Boxes]:
    """Replace model.onnx by its 8-bit version; what that costs on test and gains in size, and what it says now."""
    name, most = FIGURES[params.task], params.export.max_drop
    before = _measured(out, full, seen, test, name)
    part = out / "model.part.onnx"
    quantize(out / "model.onnx", part, calibration)
    part.replace(out / "model.onnx")
    found = _answer(Model(out).answer, seen, VAL_BATCH)
    after = _measured(out, found, seen, test, name)
    drop = before[name] - after[name]
    if not drop <= most:
        (out / "model.onnx").unlink()
        raise UserError(
            f"params.yaml: export.max_drop: {most:g}: int8 costs {drop:.4f} of test {name} "
            f"({before[name]:.4f} to {after[name]:.4f}); raise it, or export.quantize: none"
        )
    fp32 = {f"{key}_fp32": value for key, value in before.items()}
    return after | fp32 | {"calibrated_on": len(calibration)}, found


def _measured(out: Path, found: Odds | Boxes, seen: Pixels, test: Manifest, name: str) -> dict[str, Any]:
    from headstart.champion import figure  # who wants no 8 bits need not wait for it

    value = figure(test, _sitting(out, found, seen, test), name)
    return {name: round(value, 6), "bytes": (out / "model.onnx").stat().st_size}
