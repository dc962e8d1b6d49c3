"""Manifests made up for tests: pictures with labels, or with boxes."""

from typing import Any

from headstart.base.manifest import Annotation, Image, Manifest, make_categories


def record(number: int, label: str = "ant", **more: Any) -> Image:
    name = f"images/{number}.png"
    return Image(id=number, file_name=name, width=9, height=9, sha256=f"{number}", source="s", label=label, **more)


def records(*images: Image) -> Manifest:
    return Manifest(images=images, categories=make_categories(image.label or "" for image in images))


def boxed(*labels: str, crowds: str = "") -> Manifest:
    """A picture for each text, with a box for each of its letters: "ab" shows a and b, "" nothing."""
    some = make_categories(set("".join(labels)) | set(crowds))
    number = {category.name: category.id for category in some}
    images = [Image(id=n, file_name=f"{n}", width=9, height=9, sha256=f"{n}", source="s") for n, _ in enumerate(labels)]
    boxes = [(n, letter, 0) for n, text in enumerate(labels) for letter in text] + [(0, c, 1) for c in crowds]
    annotations = [
        Annotation(id=n, image_id=i, category_id=number[c], bbox=(1, 1, 2, 2), area=4, iscrowd=crowd)
        for n, (i, c, crowd) in enumerate(boxes, start=1)
    ]
    return Manifest(images=tuple(images), annotations=tuple(annotations), categories=some)
