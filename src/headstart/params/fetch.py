"""The section `fetch` of params.yaml: one model for each kind of source."""

import unicodedata
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from headstart.base.manifest import Split
from headstart.params.section import Count, Fraction, FractionBelowOne, Positive, Section

NonEmptyStr = Annotated[str, Field(min_length=1)]
Label = Annotated[NonEmptyStr, AfterValidator(lambda label: unicodedata.normalize("NFC", label))]
BaseUrl = Annotated[str, Field(pattern=r"^(https?|file)://."), AfterValidator(lambda url: url.rstrip("/"))]


class NegativesParams(Section):
    """Pictures of Open Images that show none of the requested classes.

    A class without a verified label on a picture is unknown there, not absent. So negatives are pictures for which
    people verified that the classes are absent, or pictures of other classes that you name.
    """

    from_classes: tuple[NonEmptyStr, ...] = Field(default=(), alias="from")  # other classes, by name or MID
    verified: bool | None = None  # whether verified as absent; default: only where `from` is empty
    label: NonEmptyStr = "other"
    images: Count | None = None  # in total; default: as many as of the classes


class OpenImagesParams(Section):
    """Open Images V7: the boxable classes, with boxes for `detect` and verified labels for `classify`."""

    # Names or MIDs; a class of the hierarchy includes its descendants.
    classes: Annotated[tuple[NonEmptyStr, ...], Field(min_length=1)]
    images_per_class: Count | None = None  # default: all
    # Used in this order, the next one only when those before do not suffice: train's tables are large.
    splits: Annotated[tuple[Literal["validation", "test", "train"], ...], Field(min_length=1)] = (
        "validation",
        "test",
        "train",
    )
    negatives: NegativesParams | None = None
    # A picture is used if all its boxes of the requested classes pass: true, all have the flag; false, none has it
    # (nor is it unknown). If single boxes were left out, what they show would be trained as background.
    group_of: bool | None = None
    depiction: bool | None = None
    occluded: bool | None = None
    truncated: bool | None = None
    inside: bool | None = None
    metadata_url: BaseUrl = "https://storage.googleapis.com/openimages"  # or a mirror, also file://
    images_url: BaseUrl = "https://open-images-dataset.s3.amazonaws.com"

    def box_filters(self) -> dict[str, bool]:
        """Column of the box tables -> the value it must have, for the filters that are set."""
        filters = {
            "IsGroupOf": self.group_of,
            "IsDepiction": self.depiction,
            "IsOccluded": self.occluded,
            "IsTruncated": self.truncated,
            "IsInside": self.inside,
        }
        return {column: value for column, value in filters.items() if value is not None}


class StanfordDogsParams(Section):
    """Stanford Dogs (Khosla et al. 2011): 120 breeds; all pictures are from ImageNet."""

    breeds: tuple[NonEmptyStr, ...] = ()  # case, spaces and underscores are ignored; empty: all
    official_split: bool = False  # true: pin the authors' train and test
    base_url: BaseUrl = "http://vision.stanford.edu/aditya86/ImageNetDogs"  # or a mirror, also file://


class CocoParams(Section):
    """Pictures and one COCO JSON file."""

    images: NonEmptyStr
    annotations: NonEmptyStr


class VocParams(Section):
    """Pictures and one Pascal VOC XML file for each."""

    images: NonEmptyStr
    annotations: NonEmptyStr


class YoloParams(Section):
    """A YOLO set: an export with its data.yaml (`data`, or this section as one string), or its parts by name."""

    data: NonEmptyStr | None = None  # the folder of an export of Ultralytics or Roboflow, or its data.yaml
    images: NonEmptyStr | None = None
    labels: NonEmptyStr | None = None
    names: NonEmptyStr | None = None  # data.yaml, or a text file with one name a line
    task: Literal["detect", "segment", "pose", "obb"] | None = None  # what the rows are; default: as data.yaml has it

    @model_validator(mode="before")
    @classmethod
    def _read_string(cls, value: Any) -> Any:
        return {"data": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_parts(self) -> "YoloParams":
        missing = [name for name in ("images", "labels", "names") if getattr(self, name) is None]
        if self.data is not None and len(missing) < 3:
            raise ValueError("data: is the whole set; take out images, labels and names, or give these three alone")
        if self.data is None and missing:
            raise ValueError(
                f"{missing[0]}: missing; give images, labels and names, or the export's folder as one path"
            )
        return self


class CvatParams(Section):
    """Pictures and the annotations.xml of an export as "CVAT for images 1.1"."""

    images: NonEmptyStr
    annotations: NonEmptyStr


class LabelStudioParams(Section):
    """Pictures and an export of Label Studio as JSON or JSON-MIN."""

    images: NonEmptyStr
    annotations: NonEmptyStr


class LabelMeParams(Section):
    """Pictures and one JSON file of LabelMe for each."""

    images: NonEmptyStr
    annotations: NonEmptyStr | None = None  # the folder of the JSON files; default: beside the pictures


class ViaParams(Section):
    """Pictures and the JSON of the VGG Image Annotator, 1 or 2: an export of annotations, or a project."""

    images: NonEmptyStr
    annotations: NonEmptyStr
    attribute: NonEmptyStr | None = None  # of the regions: the label; default: the only one that all have


IntRange = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]  # least and greatest


class MosaicParams(Section):
    """For a detector: pictures composed of a table's pictures, as a grid, with boxes around those of some labels."""

    # A CSV file as of the kind `table`: image (a local file), label; optionally group, license, author.
    table: NonEmptyStr
    boxes: Annotated[tuple[Label, ...], Field(min_length=1)]  # labels that get a box; all others are background
    scenes: Count
    rows: IntRange = (3, 6)
    columns: IntRange = (4, 8)
    cell: IntRange = (40, 72)  # pixels of a crop's side
    gap: IntRange = (0, 5)  # pixels between crops
    margin: IntRange = (0, 48)  # pixels around the grid, sampled for each side
    brightness: FractionBelowOne = 0.25  # of a scene; its crops vary by half as much
    share: Fraction | None = None  # mean fraction of a scene's crops that get a box; default: as in the table
    # Scenes of a group share their crops, and no crop is in two groups; a group is never divided between splits.
    groups: Annotated[int, Field(ge=3)] = 20
    near_duplicate_bits: Annotated[int, Field(ge=-1, le=64)] = 4  # crops within that many bits are in one group
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _check_ranges(self) -> "MosaicParams":
        for name in ("rows", "columns", "cell", "gap", "margin"):
            least, greatest = getattr(self, name)
            minimum = {"rows": 1, "columns": 1, "cell": 8}.get(name, 0)
            if not minimum <= least <= greatest:
                raise ValueError(f"{name}: [{least}, {greatest}]: give [least, greatest], the least {minimum} or more")
        return self


class SourceParams(Section):
    """One entry of fetch.sources: exactly one kind, and options for all its pictures."""

    folder: NonEmptyStr | None = None  # class folders, or split/class folders
    table: NonEmptyStr | None = None  # a CSV file: image (path, URL or package:…), label, …: fetch/sources/table.py
    open_images: OpenImagesParams | None = None
    stanford_dogs: StanfordDogsParams | None = None
    coco: CocoParams | None = None
    voc: VocParams | None = None
    yolo: YoloParams | None = None
    cvat: CvatParams | None = None
    label_studio: LabelStudioParams | None = None
    labelme: LabelMeParams | None = None
    via: ViaParams | None = None
    mosaic: MosaicParams | None = None
    label: Label | None = None  # for all its pictures and boxes, in place of their own
    split: Split | None = None  # of all its pictures
    limit: Count | None = None  # use so many of its pictures, selected deterministically
    # Groups of pictures (of one dog, of one day) that must not be divided between splits, by one name over all sources:
    # a column of the table (an empty cell: no group), or where there is no such column, a regular expression for the
    # file name whose first group is the key: '(.+)_\d+' groups lucy_01.jpg and lucy_02.jpg. Default: a table's column
    # `group`; `none`: no groups, though the table has that column.
    group_by: NonEmptyStr | None = None
    # Of a table: the column with the annotator's confidence that the label is right, above 0 and at most 1.
    confidence: NonEmptyStr | None = None
    min_side: Count = 8  # pixels; a picture with a shorter side is rejected

    @model_validator(mode="after")
    def _check_kind(self) -> "SourceParams":
        if len(self.kinds()) != 1:
            raise ValueError(
                f"a source names exactly one kind of {', '.join(SOURCE_KINDS)}; found {self.kinds() or 'none'}"
            )
        if self.label is not None and self.open_images is not None and self.open_images.negatives is not None:
            raise ValueError("label: would name the negatives as well; make them a source of their own")
        if self.mosaic is not None and self.group_by not in (None, "none"):
            raise ValueError("group_by: the scenes of a mosaic have groups already; take it out")
        if self.confidence is not None and self.table is None:
            raise ValueError("confidence: names a column of a table, and this source is none; take it out")
        return self

    def kinds(self) -> list[str]:
        """The kinds that this entry has: one, once it is validated."""
        return [kind for kind in SOURCE_KINDS if getattr(self, kind) is not None]


SOURCE_KINDS = (
    "folder", "table", "open_images", "stanford_dogs",
    "coco", "voc", "yolo", "cvat", "label_studio", "labelme", "via",
    "mosaic",
)  # fmt: skip


class DownloadParams(Section):
    """Concurrency, retries and timeouts of downloads."""

    connections: Annotated[int, Field(ge=1, le=256)] = 64
    per_host: Annotated[int, Field(ge=1, le=256)] = 32
    attempts: Annotated[int, Field(ge=1, le=20)] = 8  # at transient errors: 429, 5xx, resets, timeouts
    backoff: Positive = 0.5  # seconds before the second attempt, at most; doubled for each further one, up to a minute
    timeout: Positive = 30.0  # seconds without receiving a byte


class FetchParams(Section):
    """The sources of pictures, how many may be rejected, and how to download."""

    sources: Annotated[tuple[SourceParams, ...], Field(min_length=1)]
    max_failed: Annotated[int, Field(ge=0)] = 0  # rejected pictures; more stop the stage
    # Identical pictures under two labels, or with other boxes, stop the stage; true: they stay, as they are listed.
    allow_conflicting_labels: bool = False
    downloads: DownloadParams = DownloadParams()
