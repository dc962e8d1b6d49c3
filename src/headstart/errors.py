"""The two ways a command ends badly: the user's mistake, and ours (which keeps its traceback)."""


class UserError(Exception):
    """A mistake the user can mend: one line that names file, key, value and fix. Exit code 2."""


def missing_file(path: object, fix: str) -> UserError:
    """The error for a file that should be there and is not."""
    return UserError(f"{path}: no such file; {fix}")
