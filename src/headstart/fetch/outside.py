"""What the sources read and DVC cannot hash (behind links, outside data/), noticed by a pipeline stage of its own.

DVC hashes a link to a folder as an empty folder, and knows nothing of files outside data/. So fetch depends on
outside/files.json, which git holds as an empty list. Where sources read such files, fetch writes their
fingerprints there and a pipeline file beside it: a stage that renews the fingerprints at every `dvc repro`.
"""

import hashlib
import os
from pathlib import Path

from headstart.base.errors import UserError, list_some
from headstart.base.files import read_json, write_json, write_text
from headstart.fetch.unseen import unseen_by_dvc
from headstart.params.fetch import FetchParams

FOLDER = Path("outside")
PIPELINE = """\
# Written by `headstart fetch`: sources in params.yaml read files that DVC does not see (files.json has them).
# This stage looks at them before every fetch. It goes by itself once all pictures lie in data/.
stages:
  outside:
    desc: Files that sources read behind links or outside data/; a change runs fetch again
    cmd: headstart outside
    wdir: ..
    always_changed: true
    params:
      - fetch
    outs:
      - outside/files.json:
          cache: false
          persist: true
"""


def write_outside(params: FetchParams, root: Path) -> None:
    """Write outside/: the fingerprints of what DVC does not see, and the stage that renews them.

    Args:
        params: the section `fetch`.
        root: the repository root.
    """
    unseen = unseen_by_dvc(params, root)
    watched = {item: item.target for item in unseen if item.target is not None and item.kind != "package"}
    rows = [
        {"path": item.path, "kind": item.kind, "fingerprint": fingerprint(target)} for item, target in watched.items()
    ]
    folder = root / FOLDER
    known = _known_paths(folder / "files.json")
    write_json(folder / "files.json", rows)
    pipeline = folder / "dvc.yaml"
    if not watched:
        for path in (pipeline, folder / "dvc.lock"):
            path.unlink(missing_ok=True)
    elif not pipeline.exists():
        write_text(pipeline, PIPELINE)
        places = list_some([item.path for item in watched], 1)
        print(
            f"fetch: DVC does not see {places}: {FOLDER}/dvc.yaml now looks there before every fetch; commit it (and "
            "`dvc push` cannot store what DVC does not see: better move it into data/)"
        )
    for item in unseen:
        if item.kind == "package":
            print(f"fetch: {item.path}: DVC does not see a package's files; after another version: dvc repro -f fetch")
        elif item.target is not None and item.path not in known and _git_would_take(item.target, root):
            print(f"fetch: {item.path}: `git add -A` would publish it; move it into data/, which git never sees")


def _known_paths(path: Path) -> set[str]:
    """The places in files.json as it was; none where it is missing or damaged (such as by a merge of git's)."""
    try:
        return {str(row["path"]) for row in read_json(path)}
    except (FileNotFoundError, UserError, TypeError, KeyError):
        return set()


def _git_would_take(target: Path, root: Path) -> bool:
    """Whether it lies in the repository, but not in data/, which git ignores."""
    inside = any(target.is_relative_to(place) for place in (root.absolute(), root.resolve()))
    return inside and not any(target.is_relative_to(place / "data") for place in (root.absolute(), root.resolve()))


def fingerprint(target: Path) -> str:
    """SHA-256 of the names, sizes and times of a file, or of all files in a folder; links are followed.

    Not of the contents: DVC too goes by sizes and times before it reads a file again.
    """
    digest = hashlib.sha256()
    for path in sorted(_files(target)):
        try:
            status = path.stat()
            line = f"{os.fspath(path.relative_to(target))}\0{status.st_size}\0{status.st_mtime_ns}\n"
        except OSError:  # a link to nothing, or to itself; fetch names it
            line = f"{os.fspath(path.relative_to(target))}\0missing\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _files(target: Path) -> list[Path]:
    if not target.is_dir():
        return [target]
    files, visited = [], set()
    for folder, subfolders, names in os.walk(target, followlinks=True):
        real_path = Path(folder).resolve()
        if real_path in visited:  # a loop of links
            subfolders.clear()
            continue
        visited.add(real_path)
        files += [Path(folder, name) for name in names]
    return files
