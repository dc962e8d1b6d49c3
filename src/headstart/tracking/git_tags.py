"""A run's tags about its code: the git commit, and whether there are uncommitted changes."""

import subprocess
from pathlib import Path


def git_tags(root: Path) -> dict[str, str]:
    """The commit in MLflow's own tag, and whether the code differs from it; empty outside a git repository.

    What the pipeline writes (stages/, dvc.lock) does not count as a change.
    """
    if not (commit := _git(root, "rev-parse", "HEAD")):
        return {}
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!stages", ":!dvc.lock")
    return {"mlflow.source.git.commit": commit, "headstart.dirty": str(bool(changed)).lower()}


def _git(root: Path, *arguments: str) -> str:
    """The command's output; empty if it fails."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
