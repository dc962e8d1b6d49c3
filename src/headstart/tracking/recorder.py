"""Records a stage in MLflow from a second process, which runs beside the stage.

MLflow's imports take as long as torch's: side by side, the stage does not wait for them. And whatever fails in the
second process, the stage's own process has its results on disk. It has `tracking.timeout` seconds in all: a server
that answers a byte at a time, or without an end, would hold the stage for ever.
"""

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from headstart.base import distributed
from headstart.base.errors import UserError, first_line
from headstart.params.root import Params
from headstart.tracking.environment import describe_environment
from headstart.tracking.runs import StageFailure, record_stage, recorded_later
from headstart.tracking.store import import_mlflow

IMPORT_SECONDS = 60  # at most, for MLflow's imports, beside tracking.timeout
MAX_MEMORY = 4 << 30  # bytes of the second process: an answer without an end must not take the machine's


@contextmanager
def recorded_stage(name: str, params: Params, root: Path) -> Iterator[None]:
    """Record a stage in the pipeline's MLflow run when its block ends; on an exception mark the run as failed.

    Of several distributed processes only rank 0 records. An error of the recording never reaches the caller.

        with recorded_stage("train-head", params, root):
            train_head(...)

    Args:
        name: the stage.
        params: of this execution.
        root: the repository root.
    """
    if distributed.get_rank():
        yield
        return
    message: dict[str, object] = {"name": name, "root": str(root), "started_ms": int(time.time() * 1000)}
    message["params"] = params.model_dump(mode="json", by_alias=True)
    process = _start_process()
    try:
        yield
    except BaseException as error:
        _send_result(process, message | {"failure": asdict(_describe_failure(error)), "environment": {}}, params)
        raise
    _send_result(process, message | {"failure": None, "environment": _describe_machine(name, params)}, params)


def _describe_failure(error: BaseException) -> StageFailure:
    return StageFailure(
        f"{type(error).__name__}: {error}",
        interrupted=isinstance(error, KeyboardInterrupt),
        user_error=isinstance(error, UserError),
    )


def _describe_machine(name: str, params: Params) -> dict[str, str]:
    try:
        return describe_environment(name, params)
    except Exception as error:  # whatever a driver answers, the stage itself has succeeded
        print(f"warning: MLflow: {name}: the machine is not described: {first_line(error)}", file=sys.stderr)
        return {}


def _start_process() -> "subprocess.Popen[str] | None":
    """The second process, in a session of its own, so that a Ctrl-C in the terminal reaches only the stage."""
    command = [sys.executable, "-m", "headstart.tracking.recorder"]
    try:
        return subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)
    except OSError as error:
        print(f"warning: MLflow cannot be started: {error}", file=sys.stderr)
        return None


def _send_result(process: "subprocess.Popen[str] | None", message: dict[str, object], params: Params) -> None:
    """Send the stage's end to the second process, and wait until it is recorded or its time is over."""
    if not process:
        return
    limit = params.tracking.timeout
    try:
        process.communicate(json.dumps(message), timeout=IMPORT_SECONDS + limit)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGALRM)
        process.wait()
    if process.returncode == -signal.SIGALRM:
        problem = f"it took more than {limit:g} s (tracking.timeout)"
    else:
        problem = "its process ended early"
    if process.returncode:
        name = str(message["name"])
        later = "" if message["failure"] else recorded_later(name)
        print(f"warning: MLflow did not record {name}: {problem}{later}", file=sys.stderr)


def limit_memory(size: int) -> None:
    """Beyond `size` bytes this process gets a MemoryError."""
    if sys.platform != "win32":
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        if most == resource.RLIM_INFINITY or size < most:
            resource.setrlimit(resource.RLIMIT_DATA, (size, most))


def main() -> None:
    """The second process: import MLflow, wait for the stage's end, record it; nothing if the stage was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()  # a quarter of the imports' time, and the process lives for seconds
    import_mlflow()
    if text := sys.stdin.read():
        message = json.loads(text)
        params, root = Params.model_validate(message["params"]), Path(message["root"])
        failure = StageFailure(**message["failure"]) if message["failure"] else None
        # The signal's default action ends the process whatever it waits for; Python's handlers would have to be waited
        # for, and a timeout of the network is one of each part of an answer.
        limit_memory(MAX_MEMORY)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, params.tracking.timeout)
        record_stage(message["name"], params, root, message["started_ms"], failure, message["environment"])


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # Python's teardown of MLflow takes a second
