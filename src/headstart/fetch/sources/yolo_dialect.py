"""Which dialect a YOLO set is written in, by what all its rows show."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from headstart.base.errors import UserError
from headstart.fetch.sources.yolo_rows import Dialect, Row, is_confidence, is_track_id

_ROUNDING = 0.02
_MOST = 0.9  # of the rows of one kind; the rest may be damaged


@dataclass
class Evidence:
    """What the rows of a whole set show of their dialect; `where` is file and line."""

    rows: Counter[int] = field(default_factory=Counter)  # by count of numbers, the class included
    examples: dict[int, str] = field(default_factory=dict)
    like_pose: Counter[int] = field(default_factory=Counter)  # the first four are a box round most of the others
    like_turned_box: int = 0  # of nine numbers: four corners of a parallelogram
    beyond: int = 0  # of four: fractions that as centre and size would leave the picture
    like_corners: int = 0  # of four: least and greatest x and y, which as centre and size would leave the picture
    impossible_corners: int = 0
    classes: set[int] = field(default_factory=set)
    track_id: str = ""  # where a seventh number is 2, 3, …
    third_point: str = ""  # where it is a fraction, or the box before it would leave the picture
    angle: bool = False

    def add(self, row: Row, where: str) -> None:
        """Count one row."""
        values = row.values
        count = len(values) + 1
        self.rows[count] += 1
        self.examples.setdefault(count, where)
        self.classes.add(row.label)
        if count in (5, 6):
            self.beyond += not _in_frame(values) and min(values[2:4]) > 0 and max(values[:4]) <= 1
            self.like_corners += not _in_frame(values) and values[2] > values[0] and values[3] > values[1]
            self.impossible_corners += values[2] <= values[0] or values[3] <= values[1]
        if count == 6:
            self.angle |= not is_confidence(values[4]) and not is_track_id(values[4])
        if count == 7:
            is_box = _in_frame(values) and is_confidence(values[4]) and is_track_id(values[5])
            if is_box and values[5] > 1:
                self.track_id = self.track_id or where
            elif not is_box:
                self.third_point = self.third_point or where
        if count >= 7:
            self.like_pose[count] += _is_like_pose(values)
        if count == 9:
            self.like_turned_box += _is_parallelogram(values)

    def decide(self, task: str | None, keypoints: tuple[int, int] | None) -> Dialect:
        """The dialect of the set.

        Args:
            task: the one that the user or data.yaml names.
            keypoints: `kpt_shape` of data.yaml.

        Raises:
            UserError: the rows can be read in two ways; the line begins with a file.
        """
        self._check_frame()
        if keypoints is not None and task in (None, "detect", "pose"):
            return Dialect("pose", keypoints[0] * keypoints[1], turned=self.angle)
        if task == "pose":
            longest = [count for count in self.rows if count >= 7]
            count = max(longest, key=lambda count: (self.rows[count], -count), default=5)
            return Dialect("pose", count - 5, turned=self.angle)
        if task is not None:
            return Dialect(task, tracker=task == "detect", turned=self.angle)
        tracker = self._has_tracks()
        self._check_outlines(tracker)
        return Dialect(None, tracker=tracker, turned=self.angle)

    def _check_frame(self) -> None:
        """Boxes of another order of numbers leave the picture: two corners, or a confidence before the box."""
        boxes = self.rows[5] + self.rows[6]
        rare = self.impossible_corners <= (1 - _MOST) * boxes
        if rare and self.like_corners * 2 > boxes and self.like_corners >= 3:
            order = "they look like two corners (xmin ymin xmax ymax), and YOLO has centre x, y, width, height"
        elif self.beyond * 2 > boxes and self.beyond >= 3:
            order = "behind the class YOLO has centre x, y, width, height, and a confidence after them"
        else:
            return
        where = self.examples.get(5) or self.examples[6]
        raise UserError(f"{where}: most boxes leave the picture: {order}; write them so")

    def counts_from_one(self, names: Mapping[int, str]) -> bool:
        """Whether the class numbers look like 1 to n for names that are numbered 0 to n - 1."""
        return bool(self.classes) and min(self.classes) == 1 and max(self.classes) == max(names) + 1

    def _has_tracks(self) -> bool:
        """Whether rows of seven numbers are boxes with confidence and track id."""
        if self.track_id and self.third_point:
            raise UserError(
                f"{self.track_id}: seven numbers as of a box with confidence and track id, but as of an outline in "
                f"{self.third_point}; say which with `task: detect` or `task: segment`"
            )
        outlines = any(count > 7 and count % 2 for count in self.rows)
        if self.rows[7] and not self.track_id and not self.third_point and not outlines:
            raise UserError(
                f"{self.examples[7]}: seven numbers are a box with confidence and track id, or an outline of three "
                "points; say which with `task: detect` or `task: segment`"
            )
        return bool(self.track_id)

    def _check_outlines(self, tracker: bool) -> None:
        """Outlines differ in their number of points; rows of one length may be boxes with keypoints."""
        lengths = {count: rows for count, rows in self.rows.items() if count >= (8 if tracker else 7)}
        if not lengths:
            return
        count = max(lengths, key=lambda count: (lengths[count], -count))
        rows = lengths[count]
        if rows < _MOST * sum(lengths.values()) or count % 2 == 0 or self.like_pose[count] * 2 < rows:
            return
        if count == 9 and self.like_turned_box >= _MOST * rows:
            return
        raise UserError(
            f"{self.examples[count]}: {count} numbers are an outline, or a box and keypoints; say which with "
            "`task: segment` or `task: pose`, or by kpt_shape in data.yaml"
        )


def _in_frame(values: Sequence[float]) -> bool:
    x, y, width, height = values[:4]
    sides = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return width > 0 and height > 0 and all(-_ROUNDING <= side <= 1 + _ROUNDING for side in sides)


def _is_like_pose(values: Sequence[float]) -> bool:
    """Whether the first four numbers are a box in the picture, round three quarters of the visible points or more."""
    x, y, width, height = values[:4]
    rest = values[4:]
    if not _in_frame(values):
        return False
    for step in (2, 3):
        if len(rest) % step or (step == 3 and not all(0 <= visibility <= 2 for visibility in rest[2::3])):
            continue
        points = [(px, py) for px, py in zip(rest[::step], rest[1::step], strict=True) if (px, py) != (0, 0)]
        inside = [p for p in points if abs(p[0] - x) <= 0.55 * width and abs(p[1] - y) <= 0.55 * height]
        if len(inside) >= 0.75 * len(points):
            return True
    return False


def _is_parallelogram(values: Sequence[float]) -> bool:
    x, y = values[::2], values[1::2]
    return abs(x[0] - x[1] + x[2] - x[3]) < _ROUNDING and abs(y[0] - y[1] + y[2] - y[3]) < _ROUNDING
