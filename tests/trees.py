"""Small copies of the servers of Open Images and Stanford Dogs: real file names and headers, generated pictures."""

import csv
import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from scipy.io import savemat

from pictures import encoded, picture, put

CLASSES = {
    "/m/0pcr": "Alpaca",
    "/m/03fwl": "Goat",
    "/m/07bgp": "Sheep",
    "/m/0138tl": "Toy",
    "/m/0jbk": "Animal",
    "/m/04rky": "Mammal",
    "/m/0bt9lr": "Dog",
    "/m/011q46kg": "Container",
    "/m/05zsy": "Airplane, jet",  # quoted, for its comma
}
HIERARCHY = {
    "LabelName": "/m/0bl9f",
    "Subcategory": [
        {
            "LabelName": "/m/0jbk",
            "Subcategory": [
                {
                    "LabelName": "/m/04rky",
                    "Subcategory": [{"LabelName": mid} for mid in ("/m/0pcr", "/m/03fwl", "/m/07bgp", "/m/0bt9lr")],
                    "Part": [{"LabelName": "/m/0138tl"}],
                }
            ],
        },
        {"LabelName": "/m/011q46kg"},
    ],
}
BOX_COLUMNS = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
)
CLICKS = ",".join(f"XClick{number}{axis}" for axis in "XY" for number in range(1, 5))
INFO_COLUMNS = (
    "ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,OriginalSize,OriginalMD5,"
    "Thumbnail300KURL,Rotation"
)
BOXES = {
    "train": "v6/oidv6-train-annotations-bbox.csv",
    "validation": "v5/validation-annotations-bbox.csv",
    "test": "v5/test-annotations-bbox.csv",
}
INFO = {
    "train": "2018_04/train/train-images-boxable-with-rotation.csv",
    "validation": "2018_04/validation/validation-images-with-rotation.csv",
    "test": "2018_04/test/test-images-with-rotation.csv",
}
Row = Sequence[object]


def mid(name: str) -> str:
    return next(mid for mid, known in CLASSES.items() if known == name)


def _csv(path: Path, header: str, rows: Iterable[Row]) -> None:
    text = io.StringIO()
    if header:
        text.write(header + "\n")
    csv.writer(text, lineterminator="\n").writerows(rows)
    put(path, text.getvalue().encode())


class OpenImages:
    """A mirror under a folder: `metadata/` and `images/`. Add pictures, then `write()`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.boxes: dict[str, list[Row]] = {split: [] for split in BOXES}
        self.labels: dict[str, list[Row]] = {split: [] for split in BOXES}
        self.info: dict[str, list[Row]] = {split: [] for split in BOXES}
        self.count = 0

    def add(
        self,
        split: str,
        boxes: Sequence[tuple[str, float, float, float, float]] = (),
        absent: Sequence[str] = (),
        present: Sequence[str] = (),
        flags: str = "00000",
        rotation: str = "0.0",
        data: bytes | None = None,
    ) -> str:
        """One picture; returns its id. `flags`: occluded, truncated, group, depiction, inside, `?` for unknown."""
        self.count += 1
        image = f"{self.count * 0x9E3779B97F4A7C15 % 2**64:016x}"
        clicks = [0.5] * 8 if split == "train" else []
        for name, xmin, ymin, xmax, ymax in boxes:
            values = ["-1" if flag == "?" else flag for flag in flags]
            self.boxes[split].append([image, "xclick", mid(name), 1, xmin, xmax, ymin, ymax, *values, *clicks])
        names = dict.fromkeys([*present, *(box[0] for box in boxes)])
        self.labels[split] += [[image, "verification", mid(name), 1] for name in names]
        self.labels[split] += [[image, "verification", mid(name), 0] for name in absent]
        page, license = f"https://www.flickr.com/{image}", "https://creativecommons.org/licenses/by/2.0/"
        title = 'A "title", of\ntwo lines'
        self.info[split].append(
            [image, split, f"{page}_o.jpg", page, license, f"{page}/a", "Ann, O.", title, 99, "md5==", "", rotation]
        )
        if data != b"":
            jpeg = encoded(picture(self.count, (64, 48)), "JPEG") if data is None else data
            put(self.folder / f"images/{split}/{image}.jpg", jpeg)
        return image

    def write(self, *, header: bool = True) -> None:
        """Write the tables; `header`: whether the table of classes has a header line, as in some releases."""
        tables = self.folder / "metadata"
        _csv(
            tables / "v7/oidv7-class-descriptions-boxable.csv",
            "LabelName,DisplayName" if header else "",
            CLASSES.items(),
        )
        put(tables / "2018_04/bbox_labels_600_hierarchy.json", json.dumps(HIERARCHY).encode())
        for split, table in BOXES.items():
            columns = f"{BOX_COLUMNS},{CLICKS}" if split == "train" else BOX_COLUMNS
            _csv(tables / table, columns, self.boxes[split])
            labels = f"v5/{split}-annotations-human-imagelabels-boxable.csv"
            _csv(tables / labels, "ImageID,Source,LabelName,Confidence", self.labels[split])
            _csv(tables / INFO[split], INFO_COLUMNS, self.info[split])


BREEDS = {
    "n02085620-Chihuahua": 3,
    "n02108915-French_bulldog": 4,
    "n02097130-giant_schnauzer": 2,
    "n02088466-bloodhound": 2,
    "n02089078-black-and-tan_coonhound": 2,
}


def stanford_dogs(folder: Path, missing: str = "") -> None:
    """lists.tar, annotation.tar and images.tar, of five breeds. One .jpg is a PNG, one picture has two dogs."""
    files = [f"{breed}/{breed[:9]}_{number}.jpg" for breed, count in BREEDS.items() for number in range(count)]
    images = {f"Images/{file}": _dog(number) for number, file in enumerate(files) if file != missing}
    annotations = {f"Annotation/{file.removesuffix('.jpg')}": _annotation(file) for file in files}
    lists = {}
    for name, chosen in (("train_list", files[::2]), ("test_list", files[1::2]), ("file_list", files)):
        cells = np.empty((len(chosen), 1), object)
        cells[:, 0] = chosen
        buffer = io.BytesIO()
        savemat(buffer, {"file_list": cells, "annotation_list": cells, "labels": np.ones((len(chosen), 1))})
        lists[f"{name}.mat"] = buffer.getvalue()
    folder.mkdir(parents=True, exist_ok=True)
    for name, members in (("lists", lists), ("annotation", annotations), ("images", images)):
        with tarfile.open(folder / f"{name}.tar", "w") as tar:
            for member, data in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def _dog(number: int) -> bytes:
    return encoded(picture(500 + number, (50, 40)), "PNG" if number == 3 else "JPEG")


def _annotation(file: str) -> bytes:
    name = file.partition("/")[0].partition("-")[2]
    has_two = name == "French_bulldog" and file.endswith("_0.jpg")
    corners = "<xmin>5</xmin><ymin>0</ymin><xmax>49</xmax><ymax>39</ymax>"
    element = f"<object><name>{name}</name><pose>NULL</pose><bndbox>{corners}</bndbox></object>"
    second = element.replace("<xmin>5", "<xmin>20") if has_two else ""
    size = "<size><width>50</width><height>40</height><depth>3</depth></size>"
    return f"<annotation><folder>x</folder><filename>%s</filename>{size}{element}{second}</annotation>".encode()
