"""Errors that a user can mend, as the one line that is printed for them: UserErrors, and what disks and folders refuse.

Any other error is ours, or unknown, and keeps its traceback.
"""

import errno
import os
from pathlib import Path

from headstart.base.errors import UserError

_AGAIN = "and the same command goes on"
# What a write meets. It is named without a path too: each of these is about the disk, whichever file it was.
_DISK = {
    errno.ENOSPC: f"no room left on this disk; make some, {_AGAIN}",
    errno.EDQUOT: f"your quota on this disk is used up; make room, {_AGAIN}",
    errno.EFBIG: f"a file may not become that large here; allow it (`ulimit -f unlimited`), {_AGAIN}",
    errno.EROFS: f"a read-only disk; mount it writable or work in another folder, {_AGAIN}",
}
WRITE_ERRORS = frozenset({*_DISK, errno.EIO})
_WITH_PATH = _DISK | {
    errno.EIO: f"the disk fails here (input/output error); check it, {_AGAIN}",
    errno.ENAMETOOLONG: f"a name too long for this disk; move the repository to a folder with a shorter path, {_AGAIN}",
    errno.EMFILE: f"too many open files; allow more (`ulimit -n 4096`), {_AGAIN}",
}
_NO_PERMISSION = (errno.EACCES, errno.EPERM)
_NO_FOLDER = (errno.ENOTDIR, errno.EEXIST, errno.EISDIR)


def one_line(error: BaseException) -> str | None:
    """The line for an error that a user can mend, with paths from the current folder; None for any other.

    Of an exception group, what parallel downloads raise, the first one's, if all in it can be mended.
    """
    if isinstance(error, UserError):
        return str(error).removeprefix(f"{Path.cwd()}{os.sep}")
    if isinstance(error, BaseExceptionGroup):
        lines = [one_line(one) for one in error.exceptions]
        return lines[0] if all(lines) else None
    if isinstance(error, OSError):
        return _os_error_line(error)
    return None


def _os_error_line(error: OSError) -> str | None:
    number = error.errno or 0
    if not error.filename:
        return f"{Path.cwd()}: {_DISK[number]}" if number in _DISK else None
    path = _from_here(Path(str(error.filename)))
    if number in _WITH_PATH:
        return f"{path}: {_WITH_PATH[number]}"
    if number in _NO_PERMISSION:
        folder = path if os.path.isdir(path) else path.parent  # noqa: PTH112 (Path.is_dir raises the same error)
        return f"{path}: no permission; look at `ls -ld {folder}` and give it (chmod u+rwX, chown), {_AGAIN}"
    if number in _NO_FOLDER:
        in_the_way = next((one for one in (path, *path.parents) if one.is_file()), path)
        kinds = "a folder lies where a file is needed" if path.is_dir() else "a file lies where a folder is needed"
        return f"{in_the_way}: {kinds}; move it away, {_AGAIN}"
    if number == errno.ENOENT and path.parts[:1] == ("stages",):
        return f"{path}: no such file; `dvc repro` runs the stage that writes it"
    return None


def _from_here(path: Path) -> Path:
    """Relative to the current folder where it lies in it: that is the repository's root."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
