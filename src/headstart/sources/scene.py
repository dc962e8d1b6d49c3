"""A picture that is yet to be made of others."""

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image as Pillow

from headstart.door import admit


@dataclass(frozen=True)
class Cell:
    """A picture file in a scene: where its upper left corner lies, and what its brightness is multiplied by."""

    path: Path
    x: int
    y: int
    light: float


@dataclass(frozen=True)
class Scene:
    """Cells of one side on a ground of one grey, 0 to 255; sizes in pixels."""

    width: int
    height: int
    side: int
    ground: int
    cells: tuple[Cell, ...]


def compose(scene: Scene) -> bytes:
    """The scene as a PNG, grey if all its cells are.

    Raises:
        PictureError: a cell is no usable picture.
        OSError: a cell cannot be read.
    """
    made = Pillow.new("RGB", (scene.width, scene.height), (scene.ground,) * 3)
    grey = True
    for cell in scene.cells:
        with Pillow.open(io.BytesIO(admit(cell.path.read_bytes()).data)) as picture:
            grey &= picture.mode == "L"
            fitted = picture.convert("RGB").resize((scene.side, scene.side), Pillow.Resampling.BILINEAR, reducing_gap=2)
        made.paste(fitted.point(lambda value, light=cell.light: value * light), (cell.x, cell.y))
    buffer = io.BytesIO()
    (made.convert("L") if grey else made).save(buffer, "PNG")
    return buffer.getvalue()
