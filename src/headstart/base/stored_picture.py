"""Pictures that the pipeline has stored, opened; one that is gone or damaged since is a mistake with one line."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from headstart.base.errors import UserError, first_line, missing_file


@contextmanager
def open_stored_picture(path: Path) -> Iterator[Image.Image]:
    """Open a picture that fetch or augment has stored under stages/; to be decoded within the block.

    Raises:
        UserError: the file is missing, or is not the picture that was stored.
    """
    try:
        with Image.open(path) as picture:
            yield picture
    except FileNotFoundError as error:
        if error.filename is None or Path(str(error.filename)) != path:
            raise
        raise missing_file(path, "a stage stored it there: `dvc repro` stores it again") from None
    except (OSError, SyntaxError, struct.error) as error:  # what Pillow raises for damaged bytes
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of a disk, not of a picture
        reason = "no picture" if isinstance(error, UnidentifiedImageError) else first_line(error)
        raise UserError(
            f"{path}: cannot be decoded ({reason}): it was changed after a stage stored it; `dvc repro` stores it again"
        ) from None
