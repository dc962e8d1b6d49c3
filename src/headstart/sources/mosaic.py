"""Pictures for a detector composed from labelled crops, such as modules from solar cells, on a grid like theirs."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image as Pillow

from headstart import pool
from headstart.door import PictureError, admit, pil_set_up
from headstart.errors import UserError
from headstart.fetch_params import MosaicParams
from headstart.sources import table
from headstart.sources.scene import Cell, Scene
from headstart.sources.wanted import Box, Failed, Local, Wanted, only_label
from headstart.twins import Hash, find_twins, fingerprint, joined


@dataclass(frozen=True)
class Crop:
    """A labelled picture that scenes are made of."""

    wanted: Wanted
    content: Local
    boxed: bool


def wanted(params: MosaicParams, root: Path) -> Iterator[Wanted | Failed]:
    """Every scene: a grid of crops with a box round each of those whose label is boxed; the others are ground.

    The crops are first dealt into `groups`, look-alikes and crops of one `group` of the table together, each label in
    equal shares. A scene has crops of one of these groups alone and bears its name: whoever divides the scenes by
    group, as the split stage does, never has a crop on both sides. A crop that cannot be read is left out.

    Raises:
        UserError: the table is not in order, has none of the labels to box, or too few crops for a scene.
    """
    found = list(table.wanted(params.table, root, any_label=False, group_by=None))
    yield from (item for item in found if isinstance(item, Failed))
    crops = [_crop(item, params) for item in found if isinstance(item, Wanted)]
    known = sorted({crop.wanted.label or "" for crop in crops})
    for label in params.boxes:
        if label not in known:
            raise UserError(f"mosaic.boxes: {label!r}: no such label in {params.table}, only {', '.join(known)}")
    with pil_set_up():
        hashes = pool.each(_looked_at, crops, "fetch: crops")
    readable: list[tuple[Crop, Hash]] = []
    for crop, seen in zip(crops, hashes, strict=True):
        if isinstance(seen, PictureError):
            yield Failed(crop.wanted.source, crop.wanted.location, seen.kind, str(seen))
        else:
            readable.append((crop, seen))
    groups = deal(readable, params)
    for number in range(params.scenes):
        yield _scene(number, groups[number % len(groups)], number % len(groups), params)


def _crop(item: Wanted, params: MosaicParams) -> Crop:
    if not isinstance(item.content, Local):
        raise UserError(
            f"mosaic.table: {params.table}: {item.location}: crops must be files here; download them into data/ first"
        )
    if item.split is not None:
        raise UserError(
            f"mosaic.table: {params.table}: it pins {item.location} to {item.split}, but scenes are divided by "
            "`split:`; leave the column out"
        )
    return Crop(item, item.content, item.label in params.boxes)


def _looked_at(crop: Crop) -> Hash | PictureError:
    try:
        with Pillow.open(BytesIO(admit(crop.content.path.read_bytes()).data)) as picture:
            return fingerprint(picture)
    except PictureError as error:
        return error
    except OSError as error:
        return PictureError("missing", f"cannot be read: {error.strerror or error}")


def deal(crops: Sequence[tuple[Crop, Hash]], params: MosaicParams) -> list[list[Crop]]:
    """The crops in `groups` lists, none in two of them: nor what looks like it, nor what shares its `group`.

    Raises:
        UserError: a list would have too few crops for the largest scene.
    """
    links = find_twins([seen for _, seen in crops], params.near_duplicate_bits)
    first: dict[str, int] = {}
    for number, (crop, _) in enumerate(crops):
        if crop.wanted.group is not None:
            links.append((first.setdefault(crop.wanted.group, number), number))
    by_label: dict[bool, list[list[Crop]]] = defaultdict(list)
    for numbers in joined(len(crops), links):
        unit = [crops[number][0] for number in numbers]
        by_label[Counter(crop.boxed for crop in unit).most_common(1)[0][0]].append(unit)
    dealt: list[list[Crop]] = [[] for _ in range(min(params.groups, params.scenes))]
    rng = random.Random(f"{params.seed} groups")  # noqa: S311 (not a secret)
    for boxed in (True, False):
        units = by_label[boxed]
        rng.shuffle(units)
        sizes = [0] * len(dealt)
        for unit in sorted(units, key=len, reverse=True):  # the largest first, each where least is so far
            smallest = sizes.index(min(sizes))
            dealt[smallest] += unit
            sizes[smallest] += len(unit)
    most, fewest = params.rows[1] * params.columns[1], min(len(some) for some in dealt)
    if fewest < most:
        raise UserError(
            f"mosaic.groups: {params.groups}: a group has only {fewest} crops of {params.table}, and a scene may take "
            f"{params.rows[1]} x {params.columns[1]} = {most}; ask for fewer groups, rows or columns"
        )
    return dealt


def _scene(number: int, crops: Sequence[Crop], group: int, params: MosaicParams) -> Wanted:
    """One scene, the same for the same params and crops."""
    rng = random.Random(f"{params.seed} scene {number}")  # noqa: S311
    rows, columns = rng.randint(*params.rows), rng.randint(*params.columns)
    side, gap = rng.randint(*params.cell), rng.randint(*params.gap)
    left, top, right, bottom = (rng.randint(*params.margin) for _ in range(4))
    light = 1 + rng.uniform(-params.brightness, params.brightness)
    chosen = _chosen(rng, crops, rows * columns, params)
    cells, boxes = [], []
    for place, crop in enumerate(chosen):
        x = left + place % columns * (side + gap)
        y = top + place // columns * (side + gap)
        own = light * (1 + rng.uniform(-params.brightness, params.brightness) / 2)
        cells.append(Cell(crop.content.path, x, y, own))
        if crop.boxed:
            boxes.append(Box(crop.wanted.label or "", x, y, x + side, y + side))
    width = left + columns * (side + gap) - gap + right
    height = top + rows * (side + gap) - gap + bottom
    name = f"mosaic:{params.table}"
    return Wanted(
        location=f"{name}/scene-{number + 1:04d}",
        source=name,
        content=Scene(width, height, side, rng.randint(0, 24), tuple(cells)),
        label=only_label(tuple(boxes)),
        group=f"{name}/{group + 1}",
        boxes=tuple(boxes),
        license=_credits(crop.wanted.license for crop in chosen),
        author=_credits(crop.wanted.author for crop in chosen),
        landing_url=_credits(crop.wanted.landing_url for crop in chosen),
    )


def _chosen(rng: random.Random, crops: Sequence[Crop], count: int, params: MosaicParams) -> list[Crop]:
    """So many different crops; scenes differ in how many of them are boxed, from none to twice the share."""
    kinds = {boxed: [crop for crop in crops if crop.boxed == boxed] for boxed in (True, False)}
    share = len(kinds[True]) / len(crops) if params.share is None else params.share
    chance = min(1.0, share * rng.uniform(0, 2))
    boxed = sum(rng.random() < chance for _ in range(count))
    boxed = min(max(boxed, count - len(kinds[False])), len(kinds[True]))
    chosen = [*rng.sample(kinds[True], boxed), *rng.sample(kinds[False], count - boxed)]
    rng.shuffle(chosen)
    return chosen


def _credits(values: Iterator[str | None]) -> str | None:
    """What all crops of a scene ask to be said of them."""
    return "; ".join(sorted({value for value in values if value})) or None
