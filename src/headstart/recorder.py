"""MLflow in a process of its own beside the stage.

Its imports take as long as torch's: side by side, the stage does not wait for them. And whatever happens in there, the
stage's own process has its result on disk.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from headstart import ranks, tracking
from headstart.errors import UserError
from headstart.params import Params
from headstart.tracking import Failure


@contextmanager
def stage(name: str, params: Params, root: Path) -> Iterator[None]:
    """Record a stage in the pipeline's MLflow run once its work is done; on an exception mark the run as failed.

    Only the first of several processes records. Nothing that goes wrong in here reaches the caller.

        with recorder.stage("train-head", params, root):
            train_head(...)
    """
    if ranks.rank():
        yield
        return
    order: dict[str, object] = {"name": name, "root": str(root), "began": int(time.time() * 1000)}
    order["params"] = params.model_dump(mode="json", by_alias=True)
    beside = _start()
    try:
        yield
    except BaseException as error:
        _tell(beside, order | {"failure": asdict(_failure(error))})
        raise
    _tell(beside, order | {"failure": None})


def _failure(error: BaseException) -> Failure:
    return Failure(
        f"{type(error).__name__}: {error}",
        interrupted=isinstance(error, KeyboardInterrupt),
        mistake=isinstance(error, UserError),
    )


def _start() -> "subprocess.Popen[str] | None":
    """The other process; it has a session of its own, so that a Ctrl-C in the terminal is for the stage alone."""
    command = [sys.executable, "-m", "headstart.recorder"]
    try:
        return subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)
    except OSError as error:
        print(f"warning: MLflow cannot be started: {error}", file=sys.stderr)
        return None


def _tell(beside: "subprocess.Popen[str] | None", order: dict[str, object]) -> None:
    if beside:
        beside.communicate(json.dumps(order))
        if beside.returncode:
            print(f"warning: MLflow did not record {order['name']}: its process ended early", file=sys.stderr)


def main() -> None:
    """Import MLflow, wait for the stage's end, record it. Without a word from the stage (it was killed): nothing."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tracking.warm_up()
    if order := sys.stdin.read():
        said = json.loads(order)
        failure = Failure(**said["failure"]) if said["failure"] else None
        tracking.record(said["name"], Params.model_validate(said["params"]), Path(said["root"]), said["began"], failure)


if __name__ == "__main__":
    main()
