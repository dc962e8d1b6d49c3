"""model_card.md: what someone must know who gets the ONNX file alone."""

from collections import Counter
from pathlib import Path
from typing import Any

from headstart import coco
from headstart.files import read_csv, read_json, write_text
from headstart.modelfile import Card

MOST = 12  # labels of a confusion matrix that can still be read as text


def write(
    path: Path, card: Card, metrics: dict[str, Any], parity: dict[str, Any], quick: dict[str, Any], root: Path
) -> None:
    """Write the card of an exported model: its data, training, figures, speed and use.

    Args:
        path: the file.
        card: of the network.
        metrics: of stages/evaluate.
        parity: how equal the ONNX file is.
        quick: how fast, as in speed.json.
        root: the repository root, whose stages it tells about.
    """
    import jinja2

    environment = jinja2.Environment(  # noqa: S701 (Markdown: nothing to escape)
        loader=jinja2.PackageLoader("headstart"), undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    # A figure that the exam could not give (precision of a label never predicted) is not among the metrics.
    environment.filters["digits"] = lambda value, digits: f"{value:.{digits}f}" if isinstance(value, float) else "none"
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|")
    stages = root / "stages"
    images = [image for part in ("train", "val", "test") for image in coco.read(stages / f"split/{part}.json").images]
    text = environment.get_template("detector_card.md.j2" if card.detector else "model_card.md.j2").render(
        card=card,
        test=metrics["test"],
        head_only=metrics["head_only"],
        parity=parity,
        speed=quick,
        weights=read_json(stages / "weights/weights.json"),
        split=read_json(stages / "split/metrics.json"),
        sources=Counter(image.source for image in images).most_common(),
        licences=Counter(image.license or "not stated" for image in images).most_common(),
        blocks=read_json(stages / "fine-tune/blocks.json"),
        phases={name: read_json(stages / name / "metrics.json") for name in ("train-head", "fine-tune")},
        confusion=_confusion(stages / "evaluate/plots/confusion.csv", card),
    )
    write_text(path, text.rstrip() + "\n")


def _confusion(path: Path, card: Card) -> list[tuple[str, list[int]]]:
    """A row for each thing that was there: how often each thing was said; none where it would be too wide."""
    names = [*card.labels, "background"] if card.detector else list(card.labels)
    if len(names) > MOST:
        return []
    counts = Counter((row["actual"], row["predicted"]) for row in read_csv(path))
    return [(actual, [counts[actual, said] for said in names]) for actual in names]
