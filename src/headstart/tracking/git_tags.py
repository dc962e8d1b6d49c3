"""A run's tags about its code: the git commit, and whether what the run depends on differs from it; the difference."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

COMMIT_TAG, DIRTY_TAG = "mlflow.source.git.commit", "headstart.dirty"
MAX_PATCH = 1_000_000  # bytes

# No part of the code: what the pipeline itself writes while it runs (DVC rewrites data.dvc and .gitignore too), and
# what no stage reads. dvc.lock and data.dvc are artifacts of each run.
NOT_CODE = (
    *(":!stages", ":!dvc.lock", ":!*.dvc", ":!*.md", ":!docs", ":!tests", ":!benchmarks", ":!recipes", ":!samples"),
    *(":!.dvc", ":!.gitignore", ":!Makefile"),
)


def git_tags(root: Path) -> dict[str, str]:
    """The commit in MLflow's own tag, and whether tracked files differ from it.

    Args:
        root: the repository root.

    Returns:
        `headstart.dirty` is `true` or `false`; `unknown` outside a git repository, and where git fails.
    """
    commit = _git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    if not commit:
        return {DIRTY_TAG: "unknown"}
    patch = _diff(root)
    dirty = "unknown" if patch is None else "true" if patch else "false"
    return {COMMIT_TAG: commit.decode().strip(), DIRTY_TAG: dirty}


def git_patch(root: Path) -> str:
    """What differs from the commit, params.yaml included, as a patch of at most MAX_PATCH bytes; empty: nothing."""
    patch = _diff(root) or b""
    text = patch[:MAX_PATCH].decode("utf-8", "replace")
    return text if len(patch) <= MAX_PATCH else f"{text}\n# cut here: {MAX_PATCH:,} of {len(patch):,} bytes\n"


def _diff(root: Path) -> bytes | None:
    """What differs from the commit; with new files under src/, which DVC runs too. None if git fails."""
    with tempfile.TemporaryDirectory() as folder:
        environment = _with_new_files(root, Path(folder) / "index")
        options = ("--no-ext-diff", "--no-textconv", "--no-color")
        return _git(root, "diff", *options, "HEAD", "--", ".", *NOT_CODE, environment=environment)


def _with_new_files(root: Path, index: Path) -> dict[str, str]:
    """The environment for a copy of git's index that has the new files under src/ too."""
    own = _git(root, "rev-parse", "--path-format=absolute", "--git-path", "index")
    if own is None:
        return {}
    environment = {"GIT_INDEX_FILE": str(index)}
    try:
        shutil.copy(own.decode("utf-8", "surrogateescape").rstrip("\n"), index)
    except OSError:  # there is none before the first `git add`
        return {}
    added = _git(root, "add", "--intent-to-add", "--", "src", environment=environment)
    return {} if added is None else environment


def _git(root: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> bytes | None:
    """The command's output; None if it fails."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=root,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
