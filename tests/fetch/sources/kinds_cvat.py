"""What `cvat` makes of its files."""

from pathlib import Path

from fetch.kinds import Kinds, boxes_of, error_of, rejected
from headstart.fetch.sources.collect import collect_images
from headstart.fetch.sources.records import SourceImage
from pictures import encoded, params, picture, put

KINDS = Kinds("cvat")
SOURCE = {"cvat": {"images": "p", "annotations": "annotations.xml"}}
BOX = '<box label="cat" xtl="5" ytl="6" xbr="15" ybr="14"/>'


def export(root: Path, *shapes: str, subset: str = "default") -> None:
    """Two pictures of 40 x 24, a.png with these shapes; b.png is background."""
    image = f'<image id="0" name="a.png" subset="{subset}" width="40" height="24">\n'
    other = '<image id="1" name="b.png" width="40" height="24"/>'
    put(root / "annotations.xml", f"<annotations>{image}{''.join(shapes)}</image>{other}</annotations>".encode())
    for seed, name in enumerate(("a.png", "b.png")):
        put(root / "p" / name, encoded(picture(seed, (40, 24))))


@KINDS.row("boxes, also turned; outlines, ellipses, masks, cuboids", "the upright box round each")
def _shapes(root: Path) -> None:
    turned = '<box label="cat" xtl="5" ytl="6" xbr="15" ybr="14" rotation="90"/>'
    outline = '<polygon label="cat" points="5,6;15,8;9,14"/>'
    ellipse = '<ellipse label="cat" cx="10" cy="10" rx="5" ry="4"/>'
    mask = '<mask label="cat" rle="0, 9" left="5" top="6" width="3" height="3"/>'
    export(root, BOX, turned, outline, ellipse, mask)
    whole = ("cat", 5, 6, 10, 8)
    assert boxes_of(root, SOURCE)["p/a.png"] == [whole, ("cat", 6, 5, 8, 10), whole, whole, ("cat", 5, 6, 3, 3)]


@KINDS.row("points, lines, skeletons, a shape without a label", "its picture rejected")
def _no_box(root: Path) -> None:
    for shape in ('<points label="cat" points="1,2"/>', '<skeleton label="cat"/>', BOX.replace("cat", "")):
        export(root, BOX, shape)
        assert rejected(root, SOURCE)["p/a.png"].startswith("annotations.xml: line 2: ")
        assert boxes_of(root, SOURCE) == {"p/b.png": []}


@KINDS.row("a tag; a subset named train, val or test", "the picture's label; its split")
def _tag(root: Path) -> None:
    export(root, '<tag label="dog"/>', subset="Validation")
    first = collect_images(params(SOURCE).fetch, root)[0]
    assert isinstance(first, SourceImage)
    assert (first.label, first.split) == ("dog", "val")


@KINDS.row("tracks (`CVAT for video`)", "an error: export it as `CVAT for images 1.1`")
def _tracks(root: Path) -> None:
    put(root / "p/a.png")
    put(root / "annotations.xml", b"<annotations><track id='0'/></annotations>")
    assert 'export it as "CVAT for images 1.1"' in error_of(root, SOURCE)
