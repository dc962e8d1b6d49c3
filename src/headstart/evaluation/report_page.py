"""report.html: one file that needs no other; frame and sentences that both tasks have."""

import base64
import re
from collections.abc import Mapping, Sequence

import jinja2
from markupsafe import Markup, escape

from headstart.base.arrays import Ints
from headstart.base.reproduce import REPRODUCE_COMMANDS, REPRODUCE_NOTE
from headstart.evaluation.charts import Plot
from headstart.evaluation.report_facts import ReportFacts
from headstart.evaluation.report_tables import (
    MetricRow,
    Table,
    counted,
    counts_table,
    format_cell,
    format_decimal,
    format_percent,
    format_points,
    picture_counts_table,
    top_confusions_table,
)
from headstart.metrics.estimate import Estimate


def render_page(
    template: str,
    facts: ReportFacts,
    *,
    unit: str,
    confusion: Ints,
    labels: Sequence[str],
    summary: Sequence[str],
    metrics: Sequence[MetricRow],
    classes: Table,
    plots: Mapping[str, Plot],
    **task_values: object,
) -> str:
    """Render a task's template. There is no date and no machine in the page: equal arguments give equal bytes.

    Args:
        template: file name below templates/.
        facts: of earlier stages.
        unit: what is counted by label, `picture` or `box`.
        confusion: counts by actual and predicted label, (k, k).
        labels: names of its rows and columns.
        summary: sentences at the top of the page.
        metrics: both models' metrics.
        classes: the fine-tuned model's metrics by label.
        plots: by name.
        task_values: further variables of the task's template.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("headstart.evaluation"),
        autoescape=True,  # a label may hold HTML
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "percent": format_percent,
        "decimal": format_decimal,
        "thousands": format_cell,
        "counted": counted,
        "data_uri": data_uri,
        "inline_code": inline_code,
    }
    units = f"{unit}es" if unit.endswith("x") else f"{unit}s"
    return environment.get_template(template).render(
        facts=facts,
        counts=counts_table(facts.counts, units.capitalize()),
        listings=[
            picture_counts_table("Pictures by source", "source", facts.sources),
            picture_counts_table("Pictures by licence", "licence", facts.licenses),
            picture_counts_table("Duplicates", "kind", facts.duplicates, "number"),
        ],
        summary=summary,
        metric_rows=metrics,
        class_table=classes,
        top_confusions=top_confusions_table(confusion, labels, units),
        plots=plots,
        reproduce_note=REPRODUCE_NOTE,
        reproduce_commands=REPRODUCE_COMMANDS,
        **task_values,
    )


def data_uri(data: bytes, media_type: str) -> str:
    """Bytes as a data URI."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def inline_code(text: str) -> Markup:
    """Markdown's `code` as HTML."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 (escaped)


def improvement_sentence(difference: Estimate, metric: str) -> str:
    """By how much fine-tuning changed a metric, and whether that is more than chance."""
    assert difference.value is not None
    assert difference.low is not None
    assert difference.high is not None
    if difference.low > 0:
        judgement = "fine-tuning helped."
    elif difference.high < 0:
        judgement = "fine-tuning did harm; use the head-only model, or fine-tune more gently."
    else:
        judgement = "the interval contains 0: too few pictures to tell."
    return (
        f"Compared with the head-only model on the same pictures, fine-tuning changed {metric} by "
        f"{format_points(difference)}: {judgement}"
    )
