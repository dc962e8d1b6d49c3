"""report.html of a detector: what came out of the exam, in words, on the same page as a classifier's."""

from collections.abc import Callable, Mapping, Sequence

from headstart.box_gallery import KINDS, Case
from headstart.box_scores import BoxEvaluation, BoxScores
from headstart.calibration import Ints
from headstart.outcomes import BACKGROUND
from headstart.plots import Plot
from headstart.report import ReportFacts, Table, commonest, counts_table, gain, page, percent, plain, written
from headstart.threshold import Threshold

# Name, what to call it, what it says, how to write it.
_FIGURES: tuple[tuple[str, str, str, Callable[[float], str]], ...] = (
    (
        "AP50",
        "AP50",
        "average precision; a box counts as found from IoU 0.5 on, where it covers the thing roughly",
        plain,
    ),
    ("AP75", "AP75", "the same from IoU 0.75 on: it fits closely", plain),
    ("AP", "AP", "mean over IoU 0.5, 0.55 … 0.95, COCO’s main figure: 1 is perfect, also in every edge", plain),
    ("AP_small", "AP, small boxes", "AP of boxes below 32 x 32 pixels", plain),
    ("AP_medium", "AP, medium boxes", "AP of boxes up to 96 x 96 pixels", plain),
    ("AP_large", "AP, large boxes", "AP of larger ones", plain),
    ("AR_1", "AR, 1 box", "share of boxes found if one box a label and picture counts, mean over the IoUs", plain),
    ("AR_10", "AR, 10 boxes", "the same for 10 boxes", plain),
    ("AR_100", "AR, 100 boxes", "the same for 100 boxes", plain),
)
_HEADINGS = dict(
    zip(
        KINDS,
        (
            "Missed, the largest first",
            "Found and not there, or called wrong, the surest first",
            "Found, the surest first",
        ),
        strict=True,
    )
)


def render(
    evaluation: BoxEvaluation,
    labels: Sequence[str],
    *,
    confusion: Ints,
    plots: Mapping[str, Plot],
    cases: Sequence[Case],
    facts: ReportFacts,
) -> str:
    """The page as HTML. No date and no machine in it: same input, same bytes."""
    tuned = evaluation.fine_tuned
    return page(
        "detect_report.html.j2",
        facts,
        counts=counts_table(facts.counts, "Boxes"),
        tuned=tuned,
        headline=tuned.figures["AP50"],
        verdict=verdict(evaluation),
        figures=figure_rows(evaluation),
        classes=class_table(tuned),
        confused=commonest(confusion, (*labels, BACKGROUND), "boxes"),
        threshold=threshold_words(tuned),
        plots=plots,
        galleries=[(_HEADINGS[kind], shown) for kind in KINDS if (shown := [c for c in cases if c.kind == kind])],
    )


def figure_rows(evaluation: BoxEvaluation) -> list[dict[str, str]]:
    """The figures of both models, written out: name, meaning, and for each model value and interval."""
    models = {"head_only": evaluation.head_only, "tuned": evaluation.fine_tuned}
    rows = []
    for key, name, meaning, write in _FIGURES:
        row = {"name": name, "meaning": meaning}
        for model, one in models.items():
            row[model], row[f"{model}_interval"] = written(one.figures[key], write)
        rows.append(row)
    counts = (("precision", "Precision", "share of what it found that is right"), ("recall", "Recall", "share found"))
    for key, name, meaning in counts:
        row = {"name": name, "meaning": f"{meaning}, all labels together, at IoU 0.5 and the chosen threshold"}
        for model, one in models.items():
            value = getattr(one.at_threshold, key)
            row[model] = "–" if value is None else percent(value)
            row[f"{model}_interval"] = f"threshold {one.threshold.value:.2f}"
        rows.append(row)
    return rows


def verdict(evaluation: BoxEvaluation) -> list[str]:
    """What a newcomer should take away, in sentences."""
    tuned = evaluation.fine_tuned
    ap50, ap = tuned.figures["AP50"], tuned.figures["AP"]
    exam = (
        f"{_count(tuned.boxes, 'box')} in {_count(tuned.pictures, 'test picture')} that it never saw while it learned"
    )
    if ap50.value is None or ap.value is None:
        return [f"The test tells nothing: {ap50.absent}."]
    at = tuned.at_threshold
    found = percent(at.recall or 0.0)
    right = (
        "It found nothing there." if at.precision is None else f"Of what it shows, {percent(at.precision)} is right."
    )
    sentences = [
        f"From a confidence of {tuned.threshold.value:.2f} on, it finds {found} of the {exam}. {right}",
        f"Its AP50 is {plain(ap50.value)}, on pictures of the same kind probably between "
        f"{written(ap50, plain)[1].replace(' to ', ' and ')} (95\N{NO-BREAK SPACE}% interval: other pictures would "
        f"give a somewhat different figure); AP, which asks for close fits too, is {plain(ap.value)}.",
    ]
    if evaluation.difference.value is not None:
        sentences.append(gain(evaluation.difference, "AP"))
    return sentences


def _count(number: int, what: str) -> str:
    plural = f"{what}es" if what.endswith("x") else f"{what}s"
    return f"{number:,} {what if number == 1 else plural}"


def threshold_words(tuned: BoxScores) -> str:
    """How the threshold was chosen."""
    chosen: Threshold = tuned.threshold
    if chosen.f1 is None:
        return f"The validation pictures have no box, so no threshold could be chosen: {chosen.value:.2f} is a guess."
    if chosen.f1 == 0:
        return f"On the validation pictures it found nothing at any threshold: {chosen.value:.2f} is a guess."
    at = "" if tuned.at_threshold.f1 is None else f", {percent(tuned.at_threshold.f1)} on test"
    return (
        f"The threshold {chosen.value:.2f} is where F1, the balance of precision and recall, is highest on the "
        f"validation pictures: {percent(chosen.f1)} there{at}. All labels count together, box by box "
        "(micro average), at IoU 0.5."
    )


def class_table(scores: BoxScores) -> Table:
    """AP and AP50 of each label."""
    rows = []
    for name, one in scores.per_class.items():
        ap50, ap = ("–" if value is None else plain(value) for value in (one.ap50, one.ap))
        rows.append((name, ap50, ap, one.boxes))
    return Table("The fine-tuned model, label by label", ("label", "AP50", "AP", "boxes"), tuple(rows))
