"""model_card.md of both tasks."""

import shutil
from pathlib import Path

import pytest

import tiny
from conftest import Project
from headstart.base.manifest import read_manifest, write_manifest
from tiny import export


def read_card(root: Path) -> str:
    return (root / "stages/export/model_card.md").read_text(encoding="utf-8")


def test_a_classifiers_card_has_its_metrics(project: Project) -> None:
    card = read_card(project.root)
    accuracy = tiny.read_json(project.root / "stages/evaluate/metrics.json")["test"]["accuracy"]
    for text in ("blue, red", tiny.TRUNK, f"| {accuracy:.3f} (95 % interval", "folder:data (24)", "6 pictures)"):
        assert text in card, text


def test_a_detectors_card_names_network_and_labels(detect_project: Project) -> None:
    card = read_card(detect_project.root)
    assert "| network | fcos on a feature pyramid of 64 channels, backbone test_efficientnet |\n" in card
    assert "Detects in a picture, with a bounding box each: blue, red." in card


def test_pictures_of_all_splits_are_counted(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "copy"
    shutil.copytree(project.root, root)
    path = root / "stages/split/test.json"
    test = read_manifest(path)
    other = test.images[0].model_copy(update={"source": "table:exam.csv", "license": "CC BY-NC 4.0"})
    write_manifest(test.model_copy(update={"images": (other, *test.images[1:])}), path)
    monkeypatch.setattr("headstart.export.onnx_classifier.write_onnx", lambda *_, **__: None)
    export(tiny.make_params(), root)
    card = read_card(root)
    assert "Sources: folder:data (23), table:exam.csv (1).\n" in card
    assert "Licences: not stated (23), CC BY-NC 4.0 (1).\n" in card


def test_the_cards_of_both_tasks_have_data_training_confusion_matrix_and_speed(
    project: Project, detect_project: Project
) -> None:
    for root, last in ((project.root, "red"), (detect_project.root, "background")):
        card = read_card(root)
        speed = tiny.read_json(root / "stages/export/speed.json")
        blocks = tiny.read_json(root / "stages/fine-tune/blocks.json")
        frozen = [block for block in blocks if block["state"] == "frozen" and block["block"]]
        split = tiny.read_json(root / "stages/split/metrics.json")
        counts = " | ".join(str(split[name]["label.blue"]) for name in ("train", "val", "test"))
        for text in (
            f"| speed | {speed['milliseconds']} ms a picture, {speed['pictures_per_second']} pictures a second",
            f"{len(frozen)} of its 6 blocks (conv_stem to {frozen[-1]['name']}, ",
            f"| blue | {counts} |",
            "Duplicates: 0 pictures identical to another one, 0 pairs of near-duplicates",
            "| fine-tune | 2 | ",
            "\n    git checkout <its commit>\n    git apply <its diff.patch, if it has one>\n    cp <its params.yaml> ",
            "\n    cp <its params.yaml> <its data.dvc> .\n    make repro\n",
        ):
            assert text in card, text
        with (root / "stages/evaluate/plots/confusion.csv").open() as file:
            pairs = file.read().split()[1:]
        row = [pairs.count(f"blue,{predicted}") for predicted in dict.fromkeys(["blue", "red", last])]
        assert f"| blue | {' | '.join(map(str, row))} |" in card


def test_a_kept_head_is_said_at_the_top_and_nowhere_else(project: Project, detect_project: Project) -> None:
    """Of one of the two projects fine-tuning made nothing better."""
    kept = {}
    for root in (project.root, detect_project.root):
        metrics, card = tiny.read_json(root / "stages/evaluate/metrics.json"), read_card(root)
        best = tiny.read_json(root / "stages/fine-tune/metrics.json")["best_epoch"]
        kept[best == 0] = card
        third_line = card.split("\n")[4]
        assert (third_line == f"**{metrics.get('kept_head', {}).get('note')}**") == (best == 0)
    assert kept[True].count("No epoch of fine-tuning beat the head alone; the head-only model was kept") == 1
    assert "No epoch of fine-tuning" not in kept[False]


def test_a_detectors_card_counts_outcomes_and_names_its_nms(detect_project: Project) -> None:
    card, metrics = read_card(detect_project.root), tiny.read_json(detect_project.root / "stages/evaluate/metrics.json")
    outcomes = metrics["test"]["outcomes"]
    assert sum(outcomes.values()) > 0
    assert (
        f"; {outcomes['correct']} boxes correct, {outcomes['wrong_label']} with a wrong label, "
        f"{outcomes['second_box']} second boxes on an object that has one already, "
        f"{outcomes['nothing_there']} where nothing is, {outcomes['missed']} objects missed |\n"
    ) in card
    assert metrics["class_agnostic_nms"]["used"]
    assert "| non-maximum suppression | across labels: of two boxes that overlap the lower-scoring one " in card
    assert "(model.class_agnostic_nms: auto) |\n" in card


def test_a_table_is_not_interrupted(project: Project, detect_project: Project) -> None:
    """Markdown ends a table at an empty line: the first one holds all rows from network to speed."""
    for root in (project.root, detect_project.root):
        table = next(part for part in read_card(root).split("\n\n") if part.startswith("| | |\n"))
        assert [line.split(" | ")[0] for line in table.splitlines()][2:4] == ["| network", "| pretrained weights"]
        assert table.splitlines()[-1].startswith("| speed | ")
