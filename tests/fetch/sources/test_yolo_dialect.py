"""What the rows of a whole set are taken for, and the boxes that they then mean."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetch.boxes_in_out import LABELS, SIZES, Drawn, assert_all, assert_all_or_rejected, drawn, put_pictures
from fetch.kinds import Box, boxes_of, error_of, rejected
from pictures import encoded, picture, put

SIZE = (100, 80)
SOURCE = {"images": "set/images", "labels": "set/labels", "names": "set/data.yaml"}
PICTURE = encoded(picture(size=SIZE))
TURNED = "0 0.3 0.2 0.7 0.4 0.6 0.6 0.2 0.4"  # four corners of a parallelogram


def put_set(root: Path, labels: list[str], names: str = "names: [cat, dog]\n") -> None:
    put(root / "set/data.yaml", names.encode())
    for number, text in enumerate(labels):
        put(root / f"set/images/{number}.png", PICTURE)
        put(root / f"set/labels/{number}.txt", text.encode())


def found(root: Path, task: str | None = None) -> list[list[tuple[float, ...]]]:
    """Boxes x, y, width, height of the pictures, in their order."""
    return [[box[1:] for box in boxes] for boxes in boxes_of(root, source(task)).values()]


def source(task: str | None = None) -> dict[str, object]:
    return {"yolo": {**SOURCE, **({"task": task} if task else {})}}


BOX = (30.0, 16.0, 40.0, 48.0)  # of the row `0 0.5 0.5 0.4 0.6`
POSE_3 = "0 0.5 0.5 0.4 0.6 0.45 0.5 2 0.5 0.45 1 0 0 0 0.6 0.4 2"
POSE_2 = "0 0.5 0.5 0.4 0.6 0.45 0.5 0.5 0.45 0.6 0.4 0.6 0.6"


@pytest.mark.parametrize(
    ("rows", "yaml", "task", "expected"),
    [
        (["0 0.5 0.5 0.4 0.6 0.93"], "", None, [[BOX]]),
        (["0 0.5 0.5 0.4 0.6 17", "0 0.5 0.5 0.4 0.6 1"], "", None, [[BOX], [BOX]]),  # track ids
        (["0 0.5 0.5 0.4 0.6 0.93 17", "0 0.5 0.5 0.4 0.6 0.5 1"], "", None, [[BOX], [BOX]]),
        (["0 0.5 0.5 0.4 0.6 0.93 1"], "", "detect", [[BOX]]),
        (["0.0 0.5 0.5 0.4 0.6"], "", "detect", [[BOX]]),
        (["0 0.1 0.2 0.7 0.2 0.4 0.6"], "", None, [[(10, 16, 60, 32)]]),
        (["0 0.1 0.2 0.7 0.2 0.4 1"], "", "segment", [[(10, 16, 60, 64)]]),
        (["0 0.1 0.2 0.7 0.2 0.4 0.6", "0 0.1 0.2 0.7 0.2 0.4 1"], "", None, [[(10, 16, 60, 32)], [(10, 16, 60, 64)]]),
        ([TURNED], "", None, [[(20, 16, 50, 32)]]),
        ([TURNED, TURNED + " 0.9", TURNED + " 0.9 4"], "", "obb", [[(20, 16, 50, 32)]] * 3),
        ([POSE_3, "0 0.5 0.5 0.4 0.6"], "kpt_shape: [4, 3]", None, [[BOX], [BOX]]),
        ([POSE_2], "kpt_shape: [4, 2]", None, [[BOX]]),
        ([POSE_2 + " 0.93 4", POSE_2 + " 0.93"], "kpt_shape: [4, 2]", "pose", [[BOX], [BOX]]),
        ([POSE_3], "kpt_shape: [4, 3]", "detect", [[BOX]]),
        ([POSE_3], "task: pose", None, [[BOX]]),
        ([POSE_2], "", "pose", [[BOX]]),
        ([POSE_2], "", "segment", [[(40, 32, 20, 16)]]),
    ],
)
def test_dialects(tmp_path: Path, rows: list[str], yaml: str, task: str | None, expected: object) -> None:
    put_set(tmp_path, rows, f"names: [cat, dog]\n{yaml}\n")
    assert found(tmp_path, task) == expected


@pytest.mark.parametrize(
    ("rows", "yaml", "task", "reason"),
    [
        ([POSE_3], "kpt_shape: [5, 3]", None, "line 1: 17 numbers are neither a box (5) nor a box with keypoints (20)"),
        ([POSE_2 + " 1.5"], "kpt_shape: [4, 2]", None, "line 1: 1.5 is neither a confidence, 0 to 1, nor a track id"),
        ([TURNED], "", "detect", "line 1: 9 numbers are not a box: 5, 6 with a confidence, 7 with a track id"),
        (["0 0.5 0.5 0.4 0.6 0.9 1.5"], "", "detect", "line 1: 1.5 is not a track id"),
        (["0 0.5 0.5 0.4 0.6 1.9 1"], "", "detect", "line 1: 1.9 is not a confidence"),
        (["0 0.5 0.5 0.4 0.6"], "", "obb", "line 1: 5 numbers are not an oriented box"),
        (["0 0.5 0.5 0.4 0.6 0.9"], "", "segment", "line 1: 6 numbers are not an outline"),
        ([TURNED + " 0.9"], "", None, "line 1: 10 numbers are neither a box nor a polygon; for a box with keypoints, "),
        ([TURNED + " 0.9"], "", None, "for an oriented box with a confidence, say `task: obb`"),
        (
            ["0 0.5 0.5 0.4 0.6 0.9", "0 0.5 0.5 0.4 0.6 1.57"],
            "",
            None,
            "6 numbers, the last 0.9: in this set it is an",
        ),
        (["0 0.1 0.2 0.3 0.2 0.9 0.2"], "", None, "line 1: an outline whose points are on one line"),
        (["0 0.5 0.5 0.4 0.6 0.9 7", "0 0.5 0.4 0.6 0.9 7"], "", None, "line 1: 7 is not a confidence"),
    ],
)
def test_rows_that_are_not_of_the_dialect(
    tmp_path: Path, rows: list[str], yaml: str, task: str | None, reason: str
) -> None:
    put_set(tmp_path, rows, f"names: [cat, dog]\n{yaml}\n")
    lost = rejected(tmp_path, source(task))
    assert any(reason in text for text in lost.values()), lost


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [POSE_2],
            "set/labels/0.txt: line 1: 13 numbers are an outline, or a box and keypoints; say which with `task: ",
        ),
        # One row of twenty that was cut short must not make outlines of the others.
        ([POSE_2] * 19 + [POSE_2[:-8]], "13 numbers are an outline, or a box and keypoints"),
        (["0 0.5 0.5 0.4 0.6 0.5 0"], "seven numbers are a box with confidence and track id, or an outline of three "),
        (
            ["0 0.5 0.5 0.4 0.6 0.5 7", "0 0.1 0.2 0.7 0.2 0.4 0.6"],
            "set/labels/0.txt: line 1: seven numbers as of a box with confidence and track id, but as of an outline in "
            "set/labels/1.txt: line 1",
        ),
        (["0 0.6 0.6 0.9 0.9\n0 0.5 0.7 0.8 0.9", "0 0.7 0.6 0.8 0.9"], "they look like two corners"),
        # A confidence before the box, as some trackers write it.
        (
            ["0 0.93 0.5 0.5 0.4 0.5", "0 0.97 0.3 0.4 0.2 0.2\n0 0.88 0.6 0.5 0.3 0.4"],
            "set/labels/0.txt: line 1: most boxes leave the picture: behind the class YOLO has centre x, y, width, ",
        ),
    ],
)
def test_rows_of_two_meanings_are_one_error(tmp_path: Path, rows: list[str], message: str) -> None:
    put_set(tmp_path, rows)
    assert re.search(f"yolo.labels: .*{re.escape(message)}", error_of(tmp_path, source()))


def test_a_few_boxes_that_leave_the_picture_are_cut(tmp_path: Path) -> None:
    put_set(tmp_path, ["0 0.9 0.5 0.4 0.6\n0 0.5 0.9 0.4 0.6\n0 0.5 0.5 0.4 0.6\n0 0.4 0.5 0.4 0.6"])
    assert found(tmp_path) == [[(70, 16, 30, 48), (30, 48, 40, 32), BOX, (20, 16, 40, 48)]]


def test_outlines_of_many_lengths_are_outlines(tmp_path: Path) -> None:
    put_set(tmp_path, ["0 .5 .4 .6 .5 .5 .6 .4 .5 .4 .45\n", "0 .5 .45 .55 .47 .5 .5"])  # each alone: like a pose
    assert found(tmp_path) == [[(40, 32, 20, 16)], [(50, 36, 5, 4)]]


def write(box: Box, name: str, kind: str) -> str:
    label, left, top, right, bottom = box[0], box[1], box[2], box[1] + box[3], box[2] + box[4]
    left, right = left / SIZES[name][0], right / SIZES[name][0]
    top, bottom = top / SIZES[name][1], bottom / SIZES[name][1]
    centre = f"{(left + right) / 2} {(top + bottom) / 2} {right - left} {bottom - top}"
    numbers = {
        "box": centre,
        "confidence": f"{centre} 0.5",
        "tracker": f"{centre} 0.5 7",
        "outline": f"{left} {top} {right} {top} {right} {bottom} {left} {bottom}",
        "pose": f"{centre} {left} {top} {right} {bottom} 0 0",
    }[kind]
    return f"{LABELS.index(label)} {numbers}"


def put_drawn(root: Path, files: Drawn, kind: str) -> list[Path]:
    put_pictures(root / "set/images")
    keypoints = "kpt_shape: [3, 2]\n" if kind == "pose" else ""
    put(root / "set/data.yaml", f"names: [{', '.join(LABELS)}]\n{keypoints}".encode())
    paths = []
    for name, boxes in files.items():
        text = "\n".join(write(box, name, kind) for box in boxes)
        paths.append(put(root / "set/labels" / Path(name).with_suffix(".txt").name, text.encode()))
    return paths


KINDS = st.sampled_from(["box", "confidence", "tracker", "outline", "pose"])


@settings(max_examples=30, deadline=None)
@given(files=drawn(), kind=KINDS)
def test_all_boxes_in_are_boxes_out(tmp_path_factory: pytest.TempPathFactory, files: Drawn, kind: str) -> None:
    root = tmp_path_factory.mktemp("yolo")
    put_drawn(root, files, kind)
    assert_all(root, source(), "set/images", files)


@settings(max_examples=60, deadline=None)
@given(
    files=drawn(),
    kind=KINDS,
    place=st.integers(0, 100),
    damage=st.sampled_from(["", "nan", "-3", "1e9", "x", "\x00", "\udcff", "1 1"]),
)
def test_of_damaged_files_no_box_is_lost_without_its_picture(
    tmp_path_factory: pytest.TempPathFactory, files: Drawn, kind: str, place: int, damage: str
) -> None:
    root = tmp_path_factory.mktemp("yolo")
    for path in put_drawn(root, files, kind):
        cells = re.split(r"(\s)", path.read_text())
        # Without a number, a row of this set may be a right row of another.
        if damage not in ("", "1 1") or kind in ("box", "outline", "pose"):
            cells[place * 2 % (len(cells) + 1)] = damage
        path.write_text("".join(cells), errors="surrogateescape")
    assert_all_or_rejected(root, source(), "set/images", files)
