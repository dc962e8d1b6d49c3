"""Source `mosaic`: pictures for a detector composed from labelled crops (such as a module from its solar cells)."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image as Pillow

from headstart.base.arrays import Floats
from headstart.base.errors import UserError
from headstart.base.parallel import parallel_map
from headstart.fetch.sources import table
from headstart.fetch.sources.records import (
    LocalFile,
    Rejection,
    Scene,
    SceneCell,
    SourceBox,
    SourceImage,
    unique_label,
)
from headstart.images.decode import PictureError, configured_pil, validate_picture
from headstart.images.links import group_linked, link_equal
from headstart.images.oriented_hash import find_pairs, hash_coefficients
from headstart.params.fetch import MosaicParams


@dataclass(frozen=True)
class Crop:
    """A labelled picture that scenes are composed of."""

    source_image: SourceImage
    content: LocalFile
    boxed: bool


def list_images(params: MosaicParams, root: Path, *, group_by: str | None = None) -> Iterator[SourceImage | Rejection]:
    """Every scene: a grid of crops, with a box around each whose label is in `boxes`; the others are background.

    The crops are first divided into `groups`, near-duplicates and crops of one `group` of the table together, each
    label in equal shares. A scene has crops of one of these groups alone and bears its name: if scenes are split by
    group, as the split stage does, no crop is in two splits. A crop that cannot be read is rejected. `group_by` is that
    of `table`: NO_GROUPS leaves the table's groups aside.

    Raises:
        UserError: the table is invalid, has none of the labels in `boxes`, or too few crops for a scene.
    """
    items = list(table.list_images(params.table, root, label_given=False, group_by=group_by))
    yield from (item for item in items if isinstance(item, Rejection))
    crops = [_to_crop(item, params) for item in items if isinstance(item, SourceImage)]
    known = sorted({crop.source_image.label or "" for crop in crops})
    for label in params.boxes:
        if label not in known:
            raise UserError(f"mosaic.boxes: {label!r}: no such label in {params.table}, only {', '.join(known)}")
    with configured_pil():
        hashes = parallel_map(_hash_crop, crops, "fetch: crops")
    readable: list[tuple[Crop, Floats]] = []
    for crop, result in zip(crops, hashes, strict=True):
        if isinstance(result, PictureError):
            yield Rejection(crop.source_image.source, crop.source_image.location, result.kind, str(result))
        else:
            readable.append((crop, result))
    groups = group_crops(readable, params)
    for number in range(params.scenes):
        yield _sample_scene(number, groups[number % len(groups)], number % len(groups), params)


def _to_crop(item: SourceImage, params: MosaicParams) -> Crop:
    if not isinstance(item.content, LocalFile):
        raise UserError(
            f"mosaic.table: {params.table}: {item.location}: crops must be files here; download them into data/ first"
        )
    if item.split is not None:
        raise UserError(
            f"mosaic.table: {params.table}: it pins {item.location} to {item.split}, but scenes are divided by "
            "`split:`; leave the column out"
        )
    return Crop(item, item.content, item.label in params.boxes)


def _hash_crop(crop: Crop) -> Floats | PictureError:
    try:
        with Pillow.open(BytesIO(validate_picture(crop.content.path.read_bytes()).data)) as picture:
            return hash_coefficients(picture)
    except PictureError as error:
        return error
    except OSError as error:
        return PictureError("missing", f"cannot be read: {error.strerror or error}")


def group_crops(crops: Sequence[tuple[Crop, Floats]], params: MosaicParams) -> list[list[Crop]]:
    """The crops in `groups` lists; near-duplicates, and crops of one `group` of the table, are in the same list.

    Raises:
        UserError: a list has too few crops for the largest scene.
    """
    links = find_pairs([coefficients for _, coefficients in crops], params.near_duplicate_bits)
    links += link_equal([crop.source_image.group for crop, _ in crops])
    units: dict[bool, list[list[Crop]]] = defaultdict(list)  # of crops that stay together, by most of them being boxed
    for numbers in group_linked(len(crops), links):
        unit = [crops[number][0] for number in numbers]
        units[Counter(crop.boxed for crop in unit).most_common(1)[0][0]].append(unit)
    groups: list[list[Crop]] = [[] for _ in range(min(params.groups, params.scenes))]
    rng = random.Random(f"{params.seed} groups")  # noqa: S311 (not a secret)
    for boxed in (True, False):
        rng.shuffle(units[boxed])
        sizes = [0] * len(groups)
        for unit in sorted(units[boxed], key=len, reverse=True):  # the largest first, each to the smallest group so far
            smallest = sizes.index(min(sizes))
            groups[smallest] += unit
            sizes[smallest] += len(unit)
    largest_scene, smallest_group = params.rows[1] * params.columns[1], min(len(group) for group in groups)
    if smallest_group < largest_scene:
        raise UserError(
            f"mosaic.groups: {params.groups}: a group has only {smallest_group} crops of {params.table}, and a scene "
            f"may take {params.rows[1]} x {params.columns[1]} = {largest_scene}; ask for fewer groups, rows or columns"
        )
    return groups


def _sample_scene(number: int, crops: Sequence[Crop], group: int, params: MosaicParams) -> SourceImage:
    """One scene, the same for the same params and crops."""
    rng = random.Random(f"{params.seed} scene {number}")  # noqa: S311
    rows, columns = rng.randint(*params.rows), rng.randint(*params.columns)
    side, gap = rng.randint(*params.cell), rng.randint(*params.gap)
    left, top, right, bottom = (rng.randint(*params.margin) for _ in range(4))
    brightness = 1 + rng.uniform(-params.brightness, params.brightness)
    sampled = _sample_crops(rng, crops, rows * columns, params)
    cells, boxes = [], []
    for index, crop in enumerate(sampled):
        x = left + index % columns * (side + gap)
        y = top + index // columns * (side + gap)
        factor = 1 + rng.uniform(-params.brightness, params.brightness) / 2
        cells.append(SceneCell(crop.content.path, x, y, brightness * factor))
        if crop.boxed:
            boxes.append(SourceBox(crop.source_image.label or "", x, y, x + side, y + side))
    width = left + columns * (side + gap) - gap + right
    height = top + rows * (side + gap) - gap + bottom
    name = f"mosaic:{params.table}"
    return SourceImage(
        location=f"{name}/scene-{number + 1:04d}",
        source=name,
        content=Scene(width, height, side, rng.randint(0, 24), tuple(cells)),
        label=unique_label(tuple(boxes)),
        group=f"{name}/{group + 1}",
        boxes=tuple(boxes),
        license=_join_credits(crop.source_image.license for crop in sampled),
        author=_join_credits(crop.source_image.author for crop in sampled),
        landing_url=_join_credits(crop.source_image.landing_url for crop in sampled),
    )


def _sample_crops(rng: random.Random, crops: Sequence[Crop], count: int, params: MosaicParams) -> list[Crop]:
    """Different crops in random order; scenes differ in how many of them are boxed, from none to twice the share."""
    by_boxed = {boxed: [crop for crop in crops if crop.boxed == boxed] for boxed in (True, False)}
    share = len(by_boxed[True]) / len(crops) if params.share is None else params.share
    probability = min(1.0, share * rng.uniform(0, 2))
    boxed = sum(rng.random() < probability for _ in range(count))
    boxed = min(max(boxed, count - len(by_boxed[False])), len(by_boxed[True]))
    sampled = [*rng.sample(by_boxed[True], boxed), *rng.sample(by_boxed[False], count - boxed)]
    rng.shuffle(sampled)
    return sampled


def _join_credits(values: Iterator[str | None]) -> str | None:
    """The different licences, authors or pages of a scene's crops, sorted."""
    return "; ".join(sorted({value for value in values if value})) or None
