"""The section `fetch` of params.yaml: one model for each kind of source."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from headstart.section import Count, Fraction, Positive, Section, Split

Text = Annotated[str, Field(min_length=1)]
Base = Annotated[str, Field(pattern=r"^(https?|file)://."), AfterValidator(lambda url: url.rstrip("/"))]


class NegativesParams(Section):
    """Pictures of Open Images without the classes asked for.

    A class that nobody verified on a picture is unknown there, not absent. So negatives are pictures on which people
    verified that the classes are absent, or pictures of other classes that you name.
    """

    from_classes: tuple[Text, ...] = Field(default=(), alias="from")  # other classes, by name or MID
    verified: bool | None = None  # verified absent; default: only where `from` is empty
    label: Text = "other"
    images: Count | None = None  # altogether; default: as many as of the classes


class OpenImagesParams(Section):
    """Open Images V7: the boxable classes, with boxes for `detect` and verified labels for `classify`."""

    classes: Annotated[tuple[Text, ...], Field(min_length=1)]  # names or MIDs; a parent means its descendants too
    images_per_class: Count | None = None  # default: all there are
    # Drawn from in this order, the next one only when those before do not suffice: train's tables are large.
    splits: Annotated[tuple[Literal["validation", "test", "train"], ...], Field(min_length=1)] = (
        "validation",
        "test",
        "train",
    )
    negatives: NegativesParams | None = None
    # A picture is used if all its boxes of the classes asked for pass: true, all have the flag; false, none has it
    # (nor is it unknown). Leaving out single boxes would teach that what they show is background.
    group_of: bool | None = None
    depiction: bool | None = None
    occluded: bool | None = None
    truncated: bool | None = None
    inside: bool | None = None
    metadata_url: Base = "https://storage.googleapis.com/openimages"  # or a mirror, also file://
    images_url: Base = "https://open-images-dataset.s3.amazonaws.com"

    def flags(self) -> dict[str, bool]:
        """Column of the box tables -> what it must be, for the filters that are set."""
        filters = {
            "IsGroupOf": self.group_of,
            "IsDepiction": self.depiction,
            "IsOccluded": self.occluded,
            "IsTruncated": self.truncated,
            "IsInside": self.inside,
        }
        return {column: value for column, value in filters.items() if value is not None}


class StanfordDogsParams(Section):
    """Stanford Dogs: 120 breeds, all of them pictures of ImageNet."""

    breeds: tuple[Text, ...] = ()  # case, spaces and underscores do not matter; empty: all
    official_split: bool = False  # true: pin the authors' train and test
    base_url: Base = "http://vision.stanford.edu/aditya86/ImageNetDogs"  # or a mirror, also file://


class CocoParams(Section):
    """Pictures and one COCO JSON file."""

    images: Text
    annotations: Text


class VocParams(Section):
    """Pictures and one Pascal VOC XML file for each."""

    images: Text
    annotations: Text


class YoloParams(Section):
    """Pictures, one text file of boxes for each, and the names of the classes (data.yaml, or one name a line)."""

    images: Text
    labels: Text
    names: Text


Span = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]  # least and most


class MosaicParams(Section):
    """Pictures composed from the pictures of a table, for a detector: a grid of them, with boxes round some."""

    table: Text  # as of `table`: columns image, label, and optionally group, license, author; files on this machine
    boxes: Annotated[tuple[Text, ...], Field(min_length=1)]  # the labels that get a box; all others are ground
    scenes: Count
    rows: Span = (3, 6)
    columns: Span = (4, 8)
    cell: Span = (40, 72)  # pixels of a crop's side
    gap: Span = (0, 5)  # pixels between crops
    margin: Span = (0, 48)  # pixels round the grid, on each side by itself
    brightness: Annotated[float, Field(ge=0, lt=1)] = 0.25  # of a scene; its crops differ by half as much
    share: Fraction | None = None  # of a scene's crops that are boxed, on average; default: as in the table
    # Scenes of a group share their crops, and no crop is in two groups: so many parts can the scenes be divided into.
    groups: Annotated[int, Field(ge=3)] = 20
    near_duplicate_bits: Annotated[int, Field(ge=-1, le=64)] = 4  # crops that near are in one group
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _spans(self) -> "MosaicParams":
        for name in ("rows", "columns", "cell", "gap", "margin"):
            least, most = getattr(self, name)
            floor = {"rows": 1, "columns": 1, "cell": 8}.get(name, 0)
            if not floor <= least <= most:
                raise ValueError(f"{name}: [{least}, {most}]: write [least, most], the least {floor} or more")
        return self


class SourceParams(Section):
    """One entry of fetch.sources: exactly one kind, and what holds for all its pictures."""

    folder: Text | None = None  # class folders, or split/class folders
    table: Text | None = None  # a CSV file: image (path, URL or package:…), label, and more: see sources/table.py
    open_images: OpenImagesParams | None = None
    stanford_dogs: StanfordDogsParams | None = None
    coco: CocoParams | None = None
    voc: VocParams | None = None
    yolo: YoloParams | None = None
    mosaic: MosaicParams | None = None
    label: Text | None = None  # for all its pictures and boxes, whatever they were called
    split: Split | None = None  # pins all its pictures
    limit: Count | None = None  # so many of its pictures, a fixed draw
    # Pictures that belong together (one dog, one day) and must not be divided between splits: a column of the table,
    # or a regular expression on the file name whose first group names it: '(.+)_\d+' joins lucy_01.jpg and lucy_02.jpg.
    group_by: Text | None = None
    min_side: Count = 8  # pixels; a picture with a shorter side is rejected

    @model_validator(mode="after")
    def _one_kind(self) -> "SourceParams":
        if len(self.kinds()) != 1:
            raise ValueError(
                f"a source names exactly one kind of {', '.join(SOURCE_KINDS)}; found {self.kinds() or 'none'}"
            )
        if self.label is not None and self.open_images is not None and self.open_images.negatives is not None:
            raise ValueError("label: would name the negatives as well; make them a source of their own")
        if self.mosaic is not None and self.group_by is not None:
            raise ValueError("group_by: the scenes of a mosaic have their groups; take it out")
        return self

    def kinds(self) -> list[str]:
        """The kinds this entry names (one, once loaded)."""
        return [kind for kind in SOURCE_KINDS if getattr(self, kind) is not None]


SOURCE_KINDS = ("folder", "table", "open_images", "stanford_dogs", "coco", "voc", "yolo", "mosaic")


class DownloadParams(Section):
    """How hard other people's servers are asked."""

    connections: Annotated[int, Field(ge=1, le=256)] = 64
    per_host: Annotated[int, Field(ge=1, le=256)] = 32
    attempts: Annotated[int, Field(ge=1, le=20)] = 8  # for answers that may change: 429, 5xx, resets, timeouts
    backoff: Positive = 0.5  # seconds before the second attempt at most; doubles from there, up to a minute
    timeout: Positive = 30.0  # seconds without a byte


class FetchParams(Section):
    """Where pictures come from."""

    sources: Annotated[tuple[SourceParams, ...], Field(min_length=1)]
    max_failed: Annotated[int, Field(ge=0)] = 0
    downloads: DownloadParams = DownloadParams()
