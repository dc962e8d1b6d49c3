"""The download cache: one folder for all projects of a user, outside the repository."""

import errno
import hashlib
import os
import re
import sys
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePosixPath

from headstart.base.errors import UserError
from headstart.base.files import crc32_file, remove_stale_files
from headstart.base.parallel import process_cpu_count


def cache_root() -> Path:
    """`$HEADSTART_CACHE`, else `headstart` in the XDG cache (`~/.cache/headstart`).

    Raises:
        UserError: this user has no home folder.
    """
    try:
        if own := os.environ.get("HEADSTART_CACHE"):
            return Path(own).expanduser()
        shared = os.environ.get("XDG_CACHE_HOME")
        return (Path(shared) if shared else Path.home() / ".cache") / "headstart"
    except RuntimeError:
        raise UserError(
            "HOME: this user has no home folder to keep downloads in; give one: HEADSTART_CACHE=/a/folder"
        ) from None


def cached_path(url: str) -> Path:
    """Where the download of a URL is stored; the file exists only once it is complete and verified."""
    digest = hashlib.sha256(url.encode()).hexdigest()
    suffix = PurePosixPath(re.split("[?#]", url)[0]).suffix
    # A suffix is for people who look into the folder; what a stranger wrote in a URL must not become a path.
    return cache_root() / "downloads" / (digest[:32] + (suffix if re.fullmatch(r"\.\w{1,5}", suffix) else ""))


def partial_folder() -> Path:
    """The folder of unfinished small downloads; leftovers older than a day are removed."""
    make_folders()
    folder = cache_root() / "parts"
    remove_stale_files(folder)
    return folder


def make_folders() -> None:
    """Create the cache's folders as needed.

    Raises:
        UserError: they cannot be created or written to.
    """
    for folder in (cache_root() / "parts", cache_root() / "downloads"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        except OSError as error:
            raise UserError(
                f"{error.filename or folder}: the download cache cannot be written to ({error.strerror}); "
                "give it another folder: HEADSTART_CACHE=/a/folder"
            ) from None


def record_checksum(path: Path, checksum: int) -> None:
    """Append the CRC-32 of a complete download to the cache's list; the file's last line counts."""
    with _checksum_list().open("a", encoding="utf-8") as file:
        file.write(f"{path.name} {checksum:08x}\n")


def intact_files(paths: Collection[Path]) -> set[Path]:
    """Those of these files that are in the cache and still as they were downloaded.

    A file that a disk has damaged is removed, with one line for all. One without a checksum, of an earlier version,
    gets it here.
    """
    existing = sorted({path for path in paths if path.exists()})
    if not existing:
        return set()
    recorded: dict[str, str] = {}
    with suppress(FileNotFoundError):
        lines = _checksum_list().read_text(encoding="utf-8", errors="replace").splitlines()
        recorded = {name: checksum for name, _, checksum in (line.partition(" ") for line in lines)}
    with ThreadPoolExecutor(process_cpu_count()) as threads:  # zlib releases the GIL
        checksums = dict(zip(existing, threads.map(crc32_file, existing), strict=True))
    damaged = [
        path for path in existing if recorded.get(path.name, f"{checksums[path]:08x}") != f"{checksums[path]:08x}"
    ]
    for path in damaged:
        path.unlink(missing_ok=True)
    if damaged:
        more = f" and {len(damaged) - 1:,} more" if len(damaged) > 1 else ""
        print(f"warning: {damaged[0]}{more}: damaged in the download cache; downloaded anew", file=sys.stderr)
    with suppress(OSError):  # a cache that is shared and read only is of use too
        for path in existing:
            if path.name not in recorded:
                record_checksum(path, checksums[path])
    return set(existing) - set(damaged)


def _checksum_list() -> Path:
    return cache_root() / "downloads.crc32"
