"""report.html: what came out of the exam, in words, in one file that needs no other."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jinja2
import numpy as np

from headstart.calibration import Answers, Ints
from headstart.gallery import Mistake
from headstart.plots import Plot
from headstart.scores import Estimate, Evaluation, Scores
from headstart.source_bias import LabelSources

Cell = str | int | float

_PAIRS = 10  # kinds of confusion listed


@dataclass(frozen=True)
class Table:
    """A table of plain values; the first column names the row."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class ReportFacts:
    """What the report says beyond the exam: earlier stages know it, and hand it over as it is."""

    title: str
    settings: Mapping[str, str]  # what it was trained with: backbone, weights, image size, seed …
    counts: Mapping[str, Mapping[str, int]]  # split -> label -> pictures, or boxes of a detector
    sources: Mapping[str, int]  # source -> pictures
    licenses: Mapping[str, int]  # licence -> pictures
    duplicates: Mapping[str, int]  # kind of duplicate -> pictures found
    frozen: Table  # block by block, what trained
    commands: tuple[str, ...]  # typed in this order, they make this report again
    notes: tuple[str, ...] = ()  # what a reader must know, such as test pictures that the backbone may have seen


def render(
    evaluation: Evaluation,
    answers: Answers,
    labels: Sequence[str],
    *,
    plots: Mapping[str, Plot],
    mistakes: Sequence[Mistake],
    facts: ReportFacts,
    sources: Sequence[LabelSources] = (),
) -> str:
    """The page as HTML; `answers` are the fine-tuned model's. No date and no machine in it: same input, same bytes."""
    return page(
        "report.html.j2",
        facts,
        counts=counts_table(facts.counts),
        tuned=evaluation.fine_tuned,
        verdict=verdict(evaluation, answers, labels),
        figures=figure_rows(evaluation),
        classes=class_table(evaluation.fine_tuned),
        confused=commonest(answers.confusion, labels, "pictures"),
        sources=sources,
        calibration=calibration(evaluation.fine_tuned.temperature),
        plots=plots,
        mistakes=mistakes,
        wrong=int(len(answers.labels) - answers.correct.sum()),
    )


def page(template: str, facts: ReportFacts, **values: object) -> str:
    """A page of our templates: the frame and what its sections take."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("headstart"),
        autoescape=True,  # a label may hold HTML
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "cell": cell, "data_uri": data_uri, "plain": plain}
    listed = [
        _listing("Where the pictures come from", "source", facts.sources),
        _listing("Their licences", "licence", facts.licenses),
        _listing("Duplicates found", "kind", facts.duplicates),
    ]
    return environment.get_template(template).render(facts=facts, listed=listed, **values)


def percent(value: float) -> str:
    """A share in words: 0.8651 -> 86.5 %, with a space that does not break."""
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def cell(value: Cell) -> str:
    """What stands in a table: whole numbers with their thousands apart, 3371008 -> 3,371,008."""
    return f"{value:,}" if isinstance(value, int) else str(value)


def plain(value: float) -> str:
    """A figure that is no share: three digits."""
    return f"{value:.3f}"


def data_uri(data: bytes, kind: str) -> str:
    """Bytes as a data URI of the media type `kind`."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


# Name, what to call it, what it says, how to write it.
_FIGURES: tuple[tuple[str, str, str, Callable[[float], str]], ...] = (
    ("accuracy", "Accuracy", "share of the test pictures answered right", percent),
    ("balanced_accuracy", "Balanced accuracy", "the same, where every label counts equally, rare or common", percent),
    ("roc_auc", "ROC AUC", "chance that a picture of a label is ranked above one of another: 0.5 is guessing", plain),
    ("log_loss", "Log loss", "penalty for doubt and for confident mistakes: 0 is perfect", plain),
    ("ece", "Calibration error (ECE)", "gap between stated confidence and share of right answers, as trained", percent),
    (
        "ece_calibrated",
        "… after calibration",
        "the same with the temperature fitted on the validation pictures",
        percent,
    ),
)


def figure_rows(evaluation: Evaluation) -> list[dict[str, str]]:
    """The headline figures of both models, written out: name, meaning, and for each model value and interval."""
    models = {"head_only": evaluation.head_only.headline(), "tuned": evaluation.fine_tuned.headline()}
    rows = []
    for key, name, meaning, write in _FIGURES:
        row = {"name": name, "meaning": meaning}
        for model, figures in models.items():
            row[model], row[f"{model}_interval"] = written(figures[key], write)
        rows.append(row)
    return rows


def written(estimate: Estimate, write: Callable[[float], str]) -> tuple[str, str]:
    """A figure and its interval, or a dash and why there is none. A figure without interval has nothing there."""
    if estimate.value is None:
        return "–", estimate.absent
    if estimate.low is None or estimate.high is None:
        return write(estimate.value), ""
    return write(estimate.value), f"{write(estimate.low)} to {write(estimate.high)}"


def verdict(evaluation: Evaluation, answers: Answers, labels: Sequence[str]) -> list[str]:
    """What a newcomer should take away, in sentences."""
    tuned = evaluation.fine_tuned
    value, interval = written(tuned.accuracy, percent)
    common = np.bincount(answers.labels, minlength=len(labels))
    pictures = "1 test picture" if tuned.pictures == 1 else f"{tuned.pictures} test pictures"
    sentences = [
        f"The model is right on {value} of {pictures} that it never saw while it learned.",
        f"On pictures of the same kind its true share probably lies between {interval.replace(' to ', ' and ')} "
        "(95\N{NO-BREAK SPACE}% interval: another sample of pictures would give a somewhat different figure).",
        f"Always answering “{labels[int(common.argmax())]}” would be right on {percent(common.max() / common.sum())}.",
        gain(evaluation.difference, "accuracy"),
    ]
    if answers.correct.all():
        most = 1 - 0.05 ** (1 / tuned.pictures)
        sentences[1] = (
            f"No mistake among {pictures} does not mean none ever: with so few, as many as {percent(most)} "
            "mistakes cannot be ruled out (95\N{NO-BREAK SPACE}% bound)."
        )
    return sentences


def gain(difference: Estimate, figure: str) -> str:
    """What fine-tuning did to a figure, and whether the test can tell."""
    assert difference.value is not None
    assert difference.low is not None
    assert difference.high is not None
    points = [
        f"{100 * x:+.1f}".replace("-", "\N{MINUS SIGN}") for x in (difference.value, difference.low, difference.high)
    ]
    if difference.low > 0:
        judgement = "fine-tuning helped."
    elif difference.high < 0:
        judgement = "fine-tuning did harm; keep the head-only model or fine-tune more gently."
    else:
        judgement = "the interval holds 0, so this test cannot tell whether fine-tuning helped."
    return (
        f"Against the head alone, on the same pictures, fine-tuning changed {figure} by {points[0]} points "
        f"({points[1]} to {points[2]}): {judgement}"
    )


def calibration(temperature: float) -> str:
    """What the fitted temperature means."""
    if temperature == 1:
        return "Its confidence is left as it is: without a mistake on the validation pictures there is nothing to fit."
    was = "too sure of itself" if temperature > 1 else "less sure than it could be"
    return (
        "Calibration divides its logits by one number, the temperature, fitted on the validation pictures: "
        f"{temperature:.2f}. As trained it was {was} there. No answer changes by it, only how sure it sounds."
    )


def class_table(scores: Scores) -> Table:
    """Precision, recall and F1 of each label."""
    rows: list[tuple[Cell, ...]] = []
    for name, one in scores.per_class.items():
        shares = ["–" if value is None else percent(value) for value in (one.recall, one.precision, one.f1)]
        rows.append((name, *shares, one.support))
    return Table(
        "The fine-tuned model, label by label",
        ("label", "recall", "precision", "F1", "pictures"),
        tuple(rows),
    )


def commonest(confusion: Ints, labels: Sequence[str], what: str) -> Table:
    """The commonest kinds of mistake, most frequent first; `what` is counted, pictures or boxes."""
    counts = confusion.copy()
    total = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    worst = [divmod(int(i), len(labels)) for i in np.argsort(-counts, axis=None, kind="stable")[:_PAIRS]]
    return Table(
        "The commonest mistakes",
        ("it really is", "the model said", what, "of that label"),
        tuple(
            (labels[a], labels[b], int(counts[a, b]), percent(counts[a, b] / total[a]))
            for a, b in worst
            if counts[a, b]
        ),
    )


def counts_table(counts: Mapping[str, Mapping[str, int]], what: str = "Pictures") -> Table:
    """Pictures (or boxes) by label and split, with totals."""
    labels = sorted({label for split in counts.values() for label in split})
    rows: list[tuple[Cell, ...]] = [(label, *(split.get(label, 0) for split in counts.values())) for label in labels]
    rows.append(("all", *(sum(split.values()) for split in counts.values())))
    return Table(f"{what} by label and split", ("label", *counts), tuple(rows))


def _listing(caption: str, kind: str, counts: Mapping[str, int]) -> Table:
    return Table(caption, (kind, "pictures"), tuple(counts.items()))
