"""Several processes that train one network: which of them this is, and what they do in common.

torchrun and srun say it in the environment. A process by itself imports and pays nothing here: every function gives
back what it was given.

Why no DistributedDataParallel: its buckets are laid out once for the parameters that train, and ours change on the way
(`fine_tune.unfreeze`), wait for others (`accumulate`) and belong to a network cut in two (`cache_frozen`). One sum of
all gradients at each step is the same for all of these.
"""

import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from headstart.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

T = TypeVar("T")
Number = TypeVar("Number", int, "Tensor")
PATIENCE = timedelta(hours=6)  # as long as the others may wait for one, which decodes a million pictures, say
HOLD = 30.0  # seconds in which a launcher ends the others once one has failed, and that one has recorded it


@dataclass
class _Group:
    count: int = 1


_group = _Group()


def rank() -> int:
    """Which of the processes this is, from 0; the first one prints, records and writes."""
    return int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0)


def launched() -> int:
    """How many processes the launcher has started: of Slurm's variables the step's, for sbatch sets others."""
    return int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_STEP_NUM_TASKS") or 1)


def count() -> int:
    """How many processes work together: 1 until `start`, and again after `finish`."""
    return _group.count


def leads() -> bool:
    """Whether this is the process that writes."""
    return count() == 1 or rank() == 0


def start() -> None:
    """Meet the other processes, if the launcher has started any.

    Raises:
        UserError: what tells where to meet is missing, or there is no GPU for each process.
    """
    if launched() == 1:
        return
    import torch
    from torch import distributed

    _address()
    if torch.cuda.is_available():
        torch.cuda.set_device(_own_gpu(torch.cuda.device_count()))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, rank=rank(), world_size=launched(), timeout=PATIENCE)
    _group.count = launched()


def _own_gpu(there: int) -> int:
    local = int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0)
    if there == 1 and "RANK" not in os.environ:  # srun --gpus-per-task shows each process its own GPU only
        return 0
    if local >= there:
        raise UserError(
            f"params.yaml: launcher: process {local + 1} of this machine has no GPU of its own, for there are {there}; "
            f"start {there} processes on it"
        )
    return local


def _address() -> None:
    """MASTER_ADDR and MASTER_PORT; for srun they follow from the step's nodes and number where they are not given."""
    environment = os.environ
    if "RANK" not in environment:
        first = re.match(r"([^\[,]+)(?:\[([^\],-]+))?", environment.get("SLURM_STEP_NODELIST", ""))
        if first:
            environment.setdefault("MASTER_ADDR", first[1] + (first[2] or ""))
        job, step = (int(environment.get(f"SLURM_{name}_ID") or 0) for name in ("JOB", "STEP"))
        environment.setdefault("MASTER_PORT", str(20000 + (job * 16 + step) % 20000))
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if not environment.get(name):
            raise UserError(
                f"params.yaml: launcher: {launched()} processes are started, and {name} is not set, where they meet; "
                "set it, or give `torchrun --standalone --nproc-per-node N --no-python`"
            )


def span(length: int) -> slice:
    """Which of so many rows are this process's."""
    return slice(length * rank() // count(), length * (rank() + 1) // count()) if count() > 1 else slice(length)


def share(rows: "Tensor", what: str) -> "Tensor":
    """This process's rows of a batch.

    Raises:
        UserError: there are too few for each process to have one.
    """
    if len(rows) < count():
        raise UserError(
            f"params.yaml: {what.replace('-', '_')}.batch_size: a batch has {len(rows)} pictures, and {count()} "
            "processes share it; give a larger one, or a launcher with fewer processes"
        )
    return rows[span(len(rows))]


def whole(number: Number, *, shared: bool = True) -> Number:
    """A number over this process's rows of a batch -> over all of the batch. `shared`: false where these are all."""
    if count() == 1 or not shared:
        return number
    import torch
    from torch import distributed

    total = torch.as_tensor(number).clone()
    distributed.all_reduce(total)
    return total if isinstance(number, torch.Tensor) else type(number)(total.item())


def each(*numbers: float) -> list[tuple[float, ...]]:
    """Every process's numbers, in order of rank."""
    if count() == 1:
        return [numbers]
    import torch
    from torch import distributed

    own = torch.tensor(numbers, dtype=torch.float64)
    found = [torch.empty_like(own) for _ in range(count())]
    distributed.all_gather(found, own)
    return [tuple(some.tolist()) for some in found]


def gather(own: "Sequence[Tensor]") -> "list[Tensor]":
    """Every process's tensors, in order of rank; on the CPU."""
    if count() == 1:
        return list(own)
    from torch import distributed

    found: list[list[Tensor]] = [[] for _ in range(count())]
    distributed.all_gather_object(found, list(own))
    return [tensor for some in found for tensor in some]


def told(value: T) -> T:
    """What the first process has for a value: the others might differ by a bit, or by a file seen late."""
    if count() == 1:
        return value
    from torch import distributed

    box = [value]
    distributed.broadcast_object_list(box)
    return box[0]


def wait() -> None:
    """Until all processes are here."""
    each(0)  # of nothing there would be no message


@contextmanager
def first() -> Iterator[None]:
    """The first process goes through the block before the others: what it stores, they find."""
    if not leads():
        wait()
    yield
    if leads():
        wait()


def sum_gradients(parameters: "Sequence[nn.Parameter]") -> None:
    """Add up all processes' gradients in one message; a parameter that has none anywhere goes on without one."""
    if count() == 1:
        return
    import torch
    from torch import distributed

    moving = [parameter for parameter in parameters if parameter.requires_grad]
    there = torch.tensor([parameter.grad is not None for parameter in moving], device=moving[0].device)
    own = [torch.zeros_like(each) if each.grad is None else each.grad for each in moving]
    flat = torch.cat([there.to(moving[0].dtype), *(gradient.reshape(-1) for gradient in own)])
    distributed.all_reduce(flat)
    anywhere, *parts = torch.split(flat, [len(moving), *(each.numel() for each in moving)])
    for parameter, gradient, some, part in zip(moving, own, anywhere.tolist(), parts, strict=True):
        parameter.grad = gradient.copy_(part.view_as(gradient)) if some else None


def finish() -> None:
    """The work in common is done. Only the first process returns: what is left is to write."""
    if count() == 1:
        return
    from torch import distributed

    wait()
    distributed.destroy_process_group()
    _group.count = 1
    if rank():
        raise SystemExit(0)


@contextmanager
def quiet() -> Iterator[None]:
    """All but the first process print nothing.

    An error has a moment for the launcher to end this process, since most often the first one has said the same.
    """
    if launched() == 1 or not rank():
        yield
        return
    out, err = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as nothing:  # noqa: PTH123 (no path)
        sys.stdout = sys.stderr = nothing
        try:
            yield
        except Exception:
            time.sleep(HOLD)
            raise
        finally:
            sys.stdout, sys.stderr = out, err
