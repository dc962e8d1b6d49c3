"""The download cache: one folder for all projects of a user, outside the repository."""

import hashlib
import os
import re
from pathlib import Path, PurePosixPath

from headstart.base.files import remove_stale_files


def cache_root() -> Path:
    """`$HEADSTART_CACHE`, else `headstart` in the XDG cache (`~/.cache/headstart`)."""
    if own := os.environ.get("HEADSTART_CACHE"):
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "headstart"


def cached_path(url: str) -> Path:
    """Where the download of a URL is stored; the file exists only once it is complete and verified."""
    digest = hashlib.sha256(url.encode()).hexdigest()
    suffix = PurePosixPath(re.split("[?#]", url)[0]).suffix
    # A suffix is for people who look into the folder; what a stranger wrote in a URL must not become a path.
    return cache_root() / "downloads" / (digest[:32] + (suffix if re.fullmatch(r"\.\w{1,5}", suffix) else ""))


def partial_folder() -> Path:
    """The folder of unfinished small downloads, created as needed; leftovers older than a day are removed."""
    folder = cache_root() / "parts"
    for path in (folder, cache_root() / "downloads"):
        path.mkdir(parents=True, exist_ok=True)
    remove_stale_files(folder)
    return folder
