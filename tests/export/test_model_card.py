"""model_card.md of both tasks."""

import json
import shutil
from pathlib import Path

import pytest

import tiny
from conftest import Project
from headstart.base.kept_head import kept_head_sentence
from headstart.base.manifest import read_manifest, write_manifest
from tiny import export


def read_card(root: Path) -> str:
    return (root / "stages/export/model_card.md").read_text(encoding="utf-8")


def test_a_classifiers_card_has_its_metrics(project: Project) -> None:
    card = read_card(project.root)
    metrics = tiny.read_json(project.root / "stages/evaluate/metrics.json")
    test, of_blue = metrics["test"], metrics["test"]["per_class"]["blue"]

    def figure(values: dict[str, float], key: str) -> str:
        """With its interval, and with the note where one says that it may not hold."""
        note = f"; {values[f'{key}_note']}" if f"{key}_note" in values else ""
        return f"{values[key]:.3f} ({values[f'{key}_low']:.3f} to {values[f'{key}_high']:.3f}{note})"

    for text in (
        "blue, red",
        tiny.TRUNK,
        f"| test accuracy | {figure(test, 'accuracy')}, 6 pictures |\n",
        f"| head only, backbone frozen | test accuracy {figure(metrics['head_only'], 'accuracy')} |\n",
        f"log loss {figure(test, 'log_loss')}, Brier score {figure(test, 'brier_score')}, after temperature ",
        f"| {test['ece_calibrated']:.3f}; so many pictures of a perfectly calibrated model would show ",
        f" | {figure(of_blue, 'recall')} | ",
        "Brackets hold 95 % intervals: what this one model would show on other test pictures of the same kind.\n",
        "folder:data (24)",
    ):
        assert text in card, text
    unknown = metrics["unknown"]
    assert (
        f"| none of these | keeps {figure(unknown, 'kept')} of the test pictures, takes {figure(unknown, 'fpr95')} of "
        f"192 generated pictures, which show nothing, for a label (AUROC {figure(unknown, 'auroc')})"
    ) in card
    assert "int8 file" not in card
    assert "only 6 units" in card
    assert ("cross-validated" in card) == ("cv" in metrics)


def test_the_cards_first_figure_is_the_cross_validated_one_where_there_is_one(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(project.root, root)
    path = root / "stages/evaluate/metrics.json"
    metrics = tiny.read_json(path)
    metrics["test"] |= {"units": 3, "accuracy": 1.0, "accuracy_low": 0.6, "accuracy_high": 1.0}
    red = {key: value for key, value in metrics["test"]["per_class"]["red"].items() if "precision" not in key}
    metrics["test"]["per_class"]["red"] = red | {"precision_absent": "never predicted"}
    cv = {"accuracy": 0.75, "accuracy_low": 0.5, "accuracy_high": 0.875, "pictures": 24, "folds": 5, "model": "head"}
    path.write_text(json.dumps(metrics | {"cv": cv}))
    split = root / "stages/split/metrics.json"
    leaks = [{"what": "file order", "sentence": "may leak: the order."}, {"what": "group", "sentence": ""}]
    split.write_text(json.dumps(tiny.read_json(split) | {"leaks": leaks}))
    monkeypatch.setattr("headstart.export.onnx_classifier.write_onnx", lambda *_, **__: None)
    export(tiny.make_params(), root)
    card = read_card(root)
    first, second = (
        card.index(text) for text in ("| cross-validated accuracy | 0.750 (0.500 to 0.875), 24 ", "| test acc")
    )
    assert first < second
    assert (
        "each predicted once by the one of 5 models (the head alone) that did not see it: mean of these 5 models, "
        "which are not this one |\n"
    ) in card
    assert (
        "Brackets hold 95 % intervals: in the row of cross-validation what its 5 models would show on average on other "
        "pictures\nof the same kind, in all others what this one model would show on other test pictures of the same "
        "kind"
    ) in card
    start = "**Note.** may leak: the order.\n\n| | |\n|---|---|\n| network | "
    assert start in card
    assert "drawn in units (groups and near-duplicates), of which there are 3.\n" in card
    assert "| red | none (never predicted) | " in card


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


def test_the_revision_of_weights_from_a_hub(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "copy"
    shutil.copytree(project.root, root)
    path = root / "stages/weights/weights.json"
    path.write_text(json.dumps(tiny.read_json(path) | {"source": "timm/lite", "license": "mit", "revision": "01ab"}))
    monkeypatch.setattr("headstart.export.onnx_classifier.write_onnx", lambda *_, **__: None)
    export(tiny.make_params(), root)
    assert "| pretrained weights | timm/lite, revision 01ab, licence mit, " in read_card(root)
    assert "revision" not in read_card(project.root)


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
            f"Duplicates: {split['identical_pictures']} pictures identical to another one, "
            f"{split['near_duplicate_pairs']} pairs of near-duplicates",
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
        lr, fine_tuned = (
            metrics.get("kept_head", {}).get("lr", 0.0),
            tiny.read_json(root / "stages/fine-tune/metrics.json"),
        )
        assert (third_line == f"**{kept_head_sentence(lr, fine_tuned)}**") == (lr > 0) == (best == 0)
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
