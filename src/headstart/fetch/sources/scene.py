"""Rendering of composed pictures (scenes of a mosaic source)."""

import io

from PIL import Image as Pillow

from headstart.fetch.sources.records import Scene
from headstart.images.decode import validate_picture


def render_scene(scene: Scene) -> bytes:
    """The scene as a PNG, grey if all its cells are.

    Raises:
        PictureError: a cell is not a usable picture.
        OSError: a cell cannot be read.
    """
    canvas = Pillow.new("RGB", (scene.width, scene.height), (scene.background,) * 3)
    is_gray = True
    size = (scene.cell_size, scene.cell_size)
    for cell in scene.cells:
        with Pillow.open(io.BytesIO(validate_picture(cell.path.read_bytes()).data)) as picture:
            is_gray &= picture.mode == "L"
            resized = picture.convert("RGB").resize(size, Pillow.Resampling.BILINEAR, reducing_gap=2)
        canvas.paste(resized.point(lambda value, factor=cell.brightness: value * factor), (cell.x, cell.y))
    buffer = io.BytesIO()
    (canvas.convert("L") if is_gray else canvas).save(buffer, "PNG")
    return buffer.getvalue()
