"""Parts of the page that both tasks have."""

import re

import pytest

from headstart.evaluation.report_page import improvement_sentence, inline_code
from headstart.metrics.estimate import Estimate


@pytest.mark.parametrize(
    ("estimate", "pattern"),
    [
        (Estimate(0.3, 0.2, 0.4), r"accuracy by \+30.0 points \(\+20.0 to \+40.0\): fine-tuning helped\."),
        (
            Estimate(-0.4, -0.5, -0.3),
            r"accuracy by −40.0 points \(−50.0 to −30.0\): fine-tuning did harm;",
        ),
        (
            Estimate(-0.02, -0.06, 0.0),
            r"accuracy by −2.0 points \(−6.0 to \+0.0\): the interval contains 0: too few pictures to tell\.$",
        ),
    ],
)
def test_the_judgement_is_the_intervals(estimate: Estimate, pattern: str) -> None:
    assert re.search(pattern, improvement_sentence(estimate, "accuracy"))


def test_code_in_a_note_is_marked_and_all_else_escaped() -> None:
    assert inline_code("see `a < b`, <b>") == "see <code>a &lt; b</code>, &lt;b&gt;"
