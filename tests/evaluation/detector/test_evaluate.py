"""The line of the terminal."""

from headstart.evaluation.detector.evaluate import summary_figure
from headstart.metrics.estimate import Estimate


def test_a_figure_has_its_interval_or_its_reason() -> None:
    assert summary_figure("AP50", Estimate(0.4, 0.25012, 0.56)) == "AP50 0.4000 (95 % interval 0.2501 to 0.5600)"
    assert summary_figure("AP50", Estimate(0.4, note="no interval: one unit shows no spread")) == "AP50 0.4000"
    assert summary_figure("AP", Estimate(None, absent="no box in the test pictures")) == (
        "AP none (no box in the test pictures)"
    )
