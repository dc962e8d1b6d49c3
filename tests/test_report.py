"""The page: one file, nothing from outside, nothing unescaped, and the right words."""

import base64
import io
import re
import tempfile
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import PIL.Image
import pytest

from exams import NAMES, make_exam, make_facts
from headstart import report, scores
from headstart.calibration import Answers
from headstart.evaluate import write_evaluation
from headstart.params import EvaluateParams

VOID = {"meta", "img", "source", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """Tags with their attributes, whether they nest, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def make_page(folder: Path, classes: int = 3, pictures: int = 40, names: tuple[str, ...] = ()) -> str:
    exam, head_only, fine_tuned, histories = make_exam(folder, classes, pictures, names)
    write_evaluation(
        folder / "out",
        exam=exam,
        head_only=head_only,
        fine_tuned=fine_tuned,
        params=EvaluateParams(bootstrap=100, gallery=4),
        seed=0,
        histories=histories,
        facts=make_facts(exam.labels),
    )
    return (folder / "out" / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report of 40 pictures and 3 classes."""
    return make_page(tmp_path_factory.mktemp("exam"))


def evaluated(head: list[int], tuned: list[int], labels: list[int]) -> tuple[scores.Evaluation, Answers]:
    """The evaluation of models that give these answers, each 90 % sure."""
    models = []
    for said in (head, tuned):
        probabilities = np.where(np.eye(2)[said] == 1, 0.9, 0.1)
        models.append(Answers(np.array(labels), probabilities, probabilities, 1.0))
    return scores.evaluate(models[0], models[1], NAMES[2], 500, 0), models[1]


def test_the_page_needs_no_other_file_and_no_script(html: str) -> None:
    page = Page(html)
    assert page.open == []
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "a", "form"}
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "srcset", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert not re.search(r"url\(|@import", html)
    assert tempfile.gettempdir() not in html


def test_every_inline_image_decodes_and_has_words_for_it(html: str) -> None:
    page = Page(html)
    images = page.all("img")
    assert len(images) == 6 + 4
    assert len(page.all("source")) == 6
    for attributes in [*images, *page.all("source")]:
        kind, data = (attributes.get("src") or attributes.get("srcset") or "").removeprefix("data:").split(";base64,")
        content = base64.b64decode(data, validate=True)
        if kind == "image/svg+xml":
            ET.fromstring(content)
            assert not re.search(rb'(href|src)="(?!#|data:)', content)
        else:
            assert kind == "image/jpeg"
            PIL.Image.open(io.BytesIO(content)).load()
    assert all(len(attributes["alt"] or "") > 10 for attributes in images)


def test_headings_go_down_in_order_and_tables_have_captions(html: str) -> None:
    page = Page(html)
    assert [tag for tag, _ in page.tags].count("h1") == 1
    assert [tag for tag, _ in page.tags].count("h2") == 11
    assert len(page.all("table")) == len(page.all("caption")) == 8
    assert page.all("html")[0]["lang"] == "en"
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {attributes["aria-labelledby"] for attributes in page.all("section")} <= set(ids)


def test_a_label_with_html_in_it_stays_text(tmp_path: Path) -> None:
    evil = '<img src="http://example.com/x.png" onerror="alert(1)">'
    html = make_page(tmp_path, names=("whole", evil, "</style><script>alert(2)</script>"))
    page = Page(html)
    assert "<script" not in html
    assert evil not in html
    assert evil in page.text
    assert len(page.all("img")) == 10


def test_the_page_says_what_it_was_told(html: str) -> None:
    page = Page(html)
    for words in (
        "made up",
        "some_net",
        "data/made-up.csv",
        "CC0",
        "identical",
        "blocks.0",
        "git clone somewhere\nmake repro\n",
        "The backbone may have seen these.",
        "nobody, CC0",
    ):
        assert words in page.text


def test_the_verdict_is_in_words() -> None:
    labels = [0] * 60 + [1] * 40
    evaluation, answers = evaluated(head=[0] * 100, tuned=[0] * 60 + [1] * 30 + [0] * 10, labels=labels)
    right, interval, common, gain = (s.replace("\xa0", " ") for s in report.verdict(evaluation, answers, NAMES[2]))
    assert right == "The model is right on 90.0 % of 100 test pictures that it never saw while it learned."
    assert re.search(r"between 8\d\.\d % and 9\d\.\d % \(95 % interval", interval)
    assert common == "Always answering “whole” would be right on 60.0 %."
    assert re.search(r"changed accuracy by \+30.0 points \(\+2\d\.\d to \+3\d\.\d\): fine-tuning helped", gain)


@pytest.mark.parametrize(
    ("head", "tuned", "words"),
    [
        ([0] * 50, [1] * 20 + [0] * 30, "−40.0 points .*did harm"),
        ([0] * 50, [1] * 1 + [0] * 49, "−2.0 points .*cannot tell"),
    ],
)
def test_the_verdict_does_not_flatter(head: list[int], tuned: list[int], words: str) -> None:
    evaluation, answers = evaluated(head, tuned, [0] * 50)
    assert re.search(words, report.verdict(evaluation, answers, NAMES[2])[3])


def test_no_mistake_among_few_pictures_proves_little() -> None:
    evaluation, answers = evaluated([0, 1, 0], [0, 1, 0], [0, 1, 0])
    # 1 - 0.05 ** (1 / 3)
    assert "as many as 63.2\xa0% mistakes" in report.verdict(evaluation, answers, NAMES[2])[1]


def test_an_absent_figure_says_why() -> None:
    evaluation, _ = evaluated([0, 0], [0, 1], [0, 0])
    row = report.figure_rows(evaluation)[2]
    assert (row["name"], row["tuned"], row["tuned_interval"]) == ("ROC AUC", "–", "no test picture of cracked")


def test_tables_worked_by_hand() -> None:
    evaluation, answers = evaluated([0] * 5, [0, 0, 1, 0, 0], [0, 0, 0, 1, 1])
    assert report.commonest(answers.confusion, NAMES[2], "pictures").rows == (
        ("cracked", "whole", 2, "100.0\xa0%"),
        ("whole", "cracked", 1, "33.3\xa0%"),
    )
    assert report.class_table(evaluation.fine_tuned).rows[1] == ("cracked", "0.0\xa0%", "0.0\xa0%", "0.0\xa0%", 2)
    counts = report.counts_table({"train": {"b": 2, "a": 1}, "test": {"a": 3}})
    assert counts.header == ("label", "train", "test")
    assert counts.rows == (("a", 1, 3), ("b", 2, 0), ("all", 3, 3))


def test_large_numbers_are_legible() -> None:
    assert [report.cell(value) for value in (3371008, 12, "1000", 0.5)] == ["3,371,008", "12", "1000", "0.5"]


def test_facts_may_be_few(tmp_path: Path) -> None:
    exam, head_only, fine_tuned, _ = make_exam(tmp_path, 2, 20)
    few = replace(make_facts(exam.labels), notes=(), duplicates={}, licenses={})
    write_evaluation(
        tmp_path / "out",
        exam=exam,
        head_only=head_only,
        fine_tuned=fine_tuned,
        params=EvaluateParams(bootstrap=100, gallery=0),
        seed=0,
        histories={},
        facts=few,
    )
    assert Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8")).open == []
