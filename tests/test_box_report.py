"""A detector's page: the classifier's frame, nothing from outside, nothing unescaped, and the right words."""

from pathlib import Path

import pytest

from box_exams import found, manifest, write, write_random
from headstart import box_report, box_scores, threshold
from headstart.detections import Found
from headstart.matches import match
from test_report import Page

CAT = (10.0, 10.0, 40.0, 40.0)


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    return (write_random(tmp_path_factory.mktemp("exam")) / "report.html").read_text(encoding="utf-8")


def test_the_page_is_whole_and_needs_no_other_file(html: str) -> None:
    page = Page(html)
    assert page.open == []
    for attributes in page.all("img"):
        assert (attributes["src"] or "").startswith("data:image/")
        assert attributes["alt"]
    assert not page.all("script")
    assert not page.all("link")


def test_every_section_is_there(html: str) -> None:
    page = Page(html)
    ids = [attributes["id"] for attributes in page.all("h2")]
    assert ids == [
        "verdict", "figures", "labels", "threshold", "confusions", "training", "cases", "data", "model", "again"
    ]  # fmt: skip
    for words in ("made up", "some_net", "Boxes by label and split", "AP75", "Missed, the largest first", "background"):
        assert words in page.text


def test_a_label_is_no_html(tmp_path: Path) -> None:
    names = ("<b>bold</b>", "cat")
    there = manifest([[("cat", CAT)], [("<b>bold</b>", CAT)]], names)
    some = Found(*[found((1, "cat", CAT, 0.9), (2, "<b>bold</b>", CAT, 0.8), names=names)] * 2)
    html = (write(tmp_path, there, there, some, some) / "report.html").read_text(encoding="utf-8")
    assert "<b>bold</b>" not in html.replace("<b>&lt;b&gt;bold&lt;/b&gt;</b>", "")
    assert "&lt;b&gt;bold" in html


def test_an_exam_without_boxes_and_a_model_that_finds_nothing_have_a_page(tmp_path: Path) -> None:
    nothing = Found([], [])
    for name, there in (("empty", manifest([[], []])), ("blind", manifest([[("cat", CAT)], []]))):
        folder = tmp_path / name
        folder.mkdir()
        page = Page((write(folder, there, there, nothing, nothing) / "report.html").read_text(encoding="utf-8"))
        assert page.open == []
        assert ("The test tells nothing: no box in the test pictures." in page.text) == (name == "empty")
        assert "is a guess" in page.text


def words(*rows: tuple[int, str, tuple[float, float, float, float], float]) -> list[str]:
    there = manifest([[("cat", CAT)], [("cat", CAT)]], ("cat",))
    matches, none = match(there, found(*rows, names=("cat",))), match(there, [])
    models = [(none, threshold.choose(none.classes)), (matches, threshold.choose(matches.classes))]
    evaluation = box_scores.evaluate(models[0], models[1], ("cat",), crowds=0, resamples=100, seed=0)
    return [sentence.replace("\xa0", " ") for sentence in box_report.verdict(evaluation)]


def test_the_verdict_is_in_words() -> None:
    found_one, figures, gain = words((1, "cat", CAT, 0.9), (2, "cat", (120, 90, 40, 40), 0.2))
    assert found_one == (
        "From a confidence of 0.55 on, it finds 50.0 % of the 2 boxes in 2 test pictures that it never saw while "
        "it learned. Of what it shows, 100.0 % is right."
    )
    assert figures.startswith("Its AP50 is 0.505, on pictures of the same kind probably between 0.000 and 1.000")
    assert "fine-tuning changed AP by +50.5 points (+0.0 to +100.0)" in gain


def test_a_model_that_finds_nothing_is_told_so() -> None:
    assert words()[0].endswith("It found nothing there.")
    assert "it finds 0.0 % of the 2 boxes in 2 test pictures that it never saw while it learned. " in words()[0]
