"""model_card.md: data, training, metrics, speed and usage, for whoever has the ONNX file alone."""

from collections import Counter
from pathlib import Path
from typing import Any

from headstart.base.detections import BACKGROUND
from headstart.base.files import read_csv, read_json, write_text
from headstart.base.kept_head import kept_head_sentence
from headstart.base.manifest import SPLITS, count_licenses, count_sources, read_manifest
from headstart.base.reproduce import REPRODUCE_COMMANDS, REPRODUCE_NOTE
from headstart.models.file import ModelSpec

MAX_MATRIX_LABELS = 12  # a confusion matrix of more labels is too wide to be read as text


def write_model_card(
    path: Path, spec: ModelSpec, metrics: dict[str, Any], parity: dict[str, Any], speed: dict[str, Any], root: Path
) -> None:
    """Write the card of an exported model.

    Args:
        path: the file.
        spec: of the network.
        metrics: metrics.json of stages/evaluate.
        parity: parity.json.
        speed: speed.json.
        root: the repository root, from whose stages the rest is read.
    """
    import jinja2

    environment = jinja2.Environment(  # noqa: S701 (Markdown: nothing to escape)
        loader=jinja2.PackageLoader("headstart.export"), undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    # An undefined metric (the precision of a label that is never predicted) is not in metrics.json.
    environment.filters["fixed"] = lambda value, digits: f"{value:.{digits}f}" if isinstance(value, float) else "none"
    environment.filters["escape_pipe"] = lambda text: str(text).replace("|", "\\|")
    stages = root / "stages"
    images = [image for split in SPLITS for image in read_manifest(stages / f"split/{split}.json").images]
    training = {name: read_json(stages / name / "metrics.json") for name in ("train-head", "fine-tune")}
    kept = metrics.get("kept_head")
    text = environment.get_template("detector_card.md.j2" if spec.detector else "classifier_card.md.j2").render(
        spec=spec,
        test=metrics["test"],
        kept_head=kept_head_sentence(kept["lr"], training["fine-tune"]) if kept else "",
        nms=metrics.get("class_agnostic_nms"),
        head_only=metrics["head_only"],
        cv=metrics.get("cv"),
        unknown=metrics.get("unknown"),
        parity=parity,
        speed=speed,
        weights=read_json(stages / "weights/weights.json"),
        split=read_json(stages / "split/metrics.json"),
        sources=count_sources(images),
        licenses=count_licenses(images),
        blocks=read_json(stages / "fine-tune/blocks.json"),
        training=training,
        confusion=_confusion_rows(stages / "evaluate/plots/confusion.csv", spec),
        reproduce_note=REPRODUCE_NOTE,
        reproduce_commands=REPRODUCE_COMMANDS,
    )
    write_text(path, text.rstrip() + "\n")


def _confusion_rows(path: Path, spec: ModelSpec) -> list[tuple[str, list[int]]]:
    """A row for each actual label: how often each label was predicted; none where it would be too wide."""
    names = [*spec.labels, BACKGROUND] if spec.detector else list(spec.labels)
    if len(names) > MAX_MATRIX_LABELS:
        return []
    counts = Counter((row["actual"], row["predicted"]) for row in read_csv(path))
    return [(actual, [counts[actual, predicted] for predicted in names]) for actual in names]
