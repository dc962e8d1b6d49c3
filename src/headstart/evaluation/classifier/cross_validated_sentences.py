"""Cross-validation in words: what was examined how, what its interval covers, which model is better."""

from headstart.cross_validation.figures import CrossValidation
from headstart.evaluation.report_facts import ReportFacts
from headstart.evaluation.report_tables import (
    INTERVAL,
    baseline_sentence,
    capital,
    counted,
    format_percent,
    format_with_interval,
)
from headstart.metrics.classification import ClassifierEvaluation, ClassifierMetrics
from headstart.metrics.estimate import Estimate

NAMES = {
    "head": "the head alone",
    "fine_tuned": "the fine-tuned model",
    "mean": "mean of both models’ probabilities",
    "linear_last": "linear head, last features",
    "linear_blocks": "linear head, features of several blocks",
    "kernel_last": "kernel head, last features, without augmented copies",
    "kernel_blocks": "kernel head, features of several blocks, without augmented copies",
}


def cross_validated_sentences(
    found: CrossValidation, evaluation: ClassifierEvaluation, facts: ReportFacts
) -> list[str]:
    """The sentences of the report's first section; arguments as of `cross_validated_section`."""
    kept_head = bool(facts.kept_head)
    return [
        _what_was_examined(found),
        *_kept_heads(found),
        _what_the_interval_covers(found),
        f"{baseline_sentence(found.examined.targets, list(found.metrics.per_class))} of them.",
        *_weakest_label(found.metrics),
        _against_single_split(found, evaluation, kept_head=kept_head),
        _exported_model(found, sum(facts.counts["train"].values()), kept_head=kept_head),
        *_pinned(found),
        *_verdict(found),
        *([found.skipped] if found.skipped else []),
    ]


def width_ratio(found: CrossValidation, evaluation: ClassifierEvaluation) -> float | None:
    """Width of the interval of the accuracy, divided by that of the same model on the test set; None without one."""
    single = _single_split(found, evaluation)
    own = _width(found.metrics.accuracy)
    return own / width if own is not None and (width := _width(single)) else None


def _single_split(found: CrossValidation, evaluation: ClassifierEvaluation) -> Estimate:
    return (evaluation.head_only if found.model == "head" else evaluation.fine_tuned).accuracy


def _width(estimate: Estimate) -> float | None:
    return None if estimate.low is None or estimate.high is None else estimate.high - estimate.low


def _what_was_examined(found: CrossValidation) -> str:
    count = len(found.examined.images)
    assert found.metrics.accuracy.value is not None
    unit = (
        "a near-duplicate of it"
        if found.units == count
        else f"any picture of its unit ({found.units:,} units: a group and its near-duplicates, or a picture alone)"
    )
    return (
        f"{capital(NAMES[found.model])} predicts {format_percent(found.metrics.accuracy.value)} of "
        f"{counted(count, 'picture')} correctly. Each was examined once, by the one of {found.examined.folds} models "
        f"that had seen neither it nor {unit}."
    )


def _what_the_interval_covers(found: CrossValidation) -> str:
    accuracy = found.metrics.accuracy
    assert accuracy.low is not None
    assert accuracy.high is not None
    aside = f", {found.set_aside:,.0f} more to choose the epoch" if found.set_aside else ""
    checked = "" if found.model == "head" else " It was checked by simulation for linear heads, not for fine-tuning."
    return (
        f"On other pictures of the same kind these {found.examined.folds} models ({found.learned:,.0f} pictures to "
        f"learn from each{aside}) are right for probably {format_percent(accuracy.low)} to "
        f"{format_percent(accuracy.high)} on average ({INTERVAL}). That covers the choice of the pictures examined, "
        "but neither another division into folds, nor another seed of training, nor settings that were chosen by "
        f"figures of these same pictures.{checked}"
    )


def _weakest_label(metrics: ClassifierMetrics) -> list[str]:
    """The label of the lowest recall, of several."""
    recalls = {name: of.recall for name, of in metrics.per_class.items() if of.recall.value is not None}
    if len(recalls) < 2:
        return []
    lowest = min(recalls, key=lambda name: recalls[name].value or 0.0)
    return [
        f"Recall is lowest for “{lowest}”: {format_with_interval(recalls[lowest], format_percent)} of its pictures."
    ]


def _against_single_split(found: CrossValidation, evaluation: ClassifierEvaluation, *, kept_head: bool) -> str:
    figure = format_with_interval(_single_split(found, evaluation), format_percent)
    ratio = width_ratio(found, evaluation)
    wider = "" if ratio is None else f", an interval {1 / ratio:.1f} times as wide"
    model = "The head-only model" if found.model == "head" and not kept_head else "The exported model itself"
    return f"{model}, on the {counted(evaluation.fine_tuned.pictures, 'test picture')} alone: {figure}{wider}."


def _exported_model(found: CrossValidation, trained: int, *, kept_head: bool) -> str:
    pictures = counted(trained, "picture")
    if found.model == "head" and not kept_head:
        return (
            f"The exported model is none of these: it learned from {pictures} and was fine-tuned, which "
            "evaluate.folds_fine_tune: true repeats in each fold. Its own figure is that of the test set."
        )
    tried = "" if found.model != "head" else " evaluate.folds_fine_tune: true examines what fine-tuning would give."
    return f"The exported model is a further one, made in the same way from {pictures}.{tried}"


def _pinned(found: CrossValidation) -> list[str]:
    if not found.pinned:
        return []
    return [f"{counted(found.pinned, 'picture')} that a source pins to test stayed apart, for the test set alone."]


def _kept_heads(found: CrossValidation) -> list[str]:
    """In how many folds fine-tuning made nothing better, so that the fold's model is its head."""
    if found.model == "head":
        return []
    same = (found.predictions["head"].raw == found.predictions["fine_tuned"].raw).all(axis=1)
    folds = found.examined.folds
    kept = sum(bool(same[found.examined.fold == fold].all()) for fold in range(folds))
    return [f"In {kept} of the {folds} folds fine-tuning was not kept, but the head-only model."] if kept else []


def _verdict(found: CrossValidation) -> list[str]:
    """Which of the other models, each compared by itself, are better than the measured one."""
    if not found.alternatives:
        return []
    better = [NAMES[name] for name, other in found.alternatives.items() if (other.difference.low or 0) > 0]
    if better:
        return [f"More accurate on the same pictures, beyond chance: {'; '.join(better)}."]
    return ["None of the other models in the last table is more accurate on the same pictures beyond chance."]
