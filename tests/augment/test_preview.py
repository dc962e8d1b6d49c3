"""The preview sheet is a picture with a row for each original."""

import numpy as np
from PIL import Image as Pillow

from conftest import Project
from headstart.augment import preview


def test_the_preview_opens(project: Project) -> None:
    with Pillow.open(project.root / "stages/augment/preview.jpg") as sheet:
        sheet.load()
        assert (sheet.format, sheet.height) == ("JPEG", preview.TOP + preview.ROWS * (preview.SIDE + 4))
        assert sheet.width > preview.COLUMNS * preview.SIDE
        assert np.asarray(sheet).std() > 20
