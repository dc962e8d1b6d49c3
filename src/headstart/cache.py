"""Where downloads are kept: one folder for all projects of a user, outside the repository."""

import hashlib
import os
import re
import time
from pathlib import Path, PurePosixPath

DAY = 24 * 3600


def folder() -> Path:
    """`$HEADSTART_CACHE`, else `headstart` in the XDG cache (`~/.cache/headstart`)."""
    if own := os.environ.get("HEADSTART_CACHE"):
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "headstart"


def path_of(url: str) -> Path:
    """The file that a download of this URL is, once complete and verified; until then there is none."""
    digest = hashlib.sha256(url.encode()).hexdigest()
    suffix = PurePosixPath(re.split("[?#]", url)[0]).suffix
    # A suffix is for people who look into the folder; what a stranger wrote in a URL must not become a path.
    return folder() / "downloads" / (digest[:32] + (suffix if re.fullmatch(r"\.\w{1,5}", suffix) else ""))


def parts() -> Path:
    """The folder of unfinished small downloads. What a killed process left there is removed after a day."""
    place = folder() / "parts"
    for needed in (place, folder() / "downloads"):
        needed.mkdir(parents=True, exist_ok=True)
    for part in place.iterdir():
        if time.time() - part.stat().st_mtime > DAY:
            part.unlink(missing_ok=True)
    return place
