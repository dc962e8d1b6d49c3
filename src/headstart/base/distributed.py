"""Data-parallel training by several processes: rank and world size, collectives, this rank's part of a batch.

torchrun and srun set the environment variables that are read here. A single process imports no torch and pays nothing:
every function returns what it was given.

Why no DistributedDataParallel: its buckets are laid out once for the parameters that train, and ours change during
training (`fine_tune.unfreeze`), accumulate over batches (`accumulate`) and belong to a network split in two
(`cache_frozen`). One all-reduce of all gradients at each step is right for all of these.
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

from headstart.base.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

T = TypeVar("T")
Number = TypeVar("Number", int, "Tensor")
COLLECTIVE_TIMEOUT = timedelta(hours=6)  # the others may wait that long for one, which decodes a million pictures, say
# After a failure: time for the launcher to end this process, and for rank 0 to record the failure.
SECONDS_BEFORE_ERROR = 30.0


@dataclass
class _ProcessGroup:
    world_size: int = 1


_process_group = _ProcessGroup()


def get_rank() -> int:
    """This process's rank, from 0; rank 0, the main process, prints, records and writes."""
    return int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0)


def launched_world_size() -> int:
    """How many processes the launcher has started. Of Slurm's variables the job step's: sbatch sets others too."""
    return int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_STEP_NUM_TASKS") or 1)


def get_world_size() -> int:
    """How many processes train together: 1 until `init_distributed`, and again after `shutdown_distributed`."""
    return _process_group.world_size


def is_main_process() -> bool:
    """Whether this is rank 0, the process that writes."""
    return get_world_size() == 1 or get_rank() == 0


def init_distributed() -> None:
    """Initialise the process group, if the launcher has started several processes.

    Raises:
        UserError: the address to meet at is not set, or there are fewer GPUs than processes on this machine.
    """
    if launched_world_size() == 1:
        return
    import torch
    import torch.distributed as dist

    _set_master_address()
    if torch.cuda.is_available():
        torch.cuda.set_device(_local_gpu(torch.cuda.device_count()))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, rank=get_rank(), world_size=launched_world_size(), timeout=COLLECTIVE_TIMEOUT)
    _process_group.world_size = launched_world_size()


def _local_gpu(gpu_count: int) -> int:
    local_rank = int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0)
    if gpu_count == 1 and "RANK" not in os.environ:  # srun --gpus-per-task shows each process its own GPU only
        return 0
    if local_rank >= gpu_count:
        raise UserError(
            f"params.yaml: launcher: process {local_rank + 1} of this machine has no GPU of its own, for there are "
            f"{gpu_count}; start {gpu_count} processes on it"
        )
    return local_rank


def _set_master_address() -> None:
    """Set MASTER_ADDR and MASTER_PORT where they are not set: srun's follow from the step's nodes and number."""
    environment = os.environ
    if "RANK" not in environment:
        first_node = re.match(r"([^\[,]+)(?:\[([^\],-]+))?", environment.get("SLURM_STEP_NODELIST", ""))
        if first_node:
            environment.setdefault("MASTER_ADDR", first_node[1] + (first_node[2] or ""))
        job, step = (int(environment.get(f"SLURM_{name}_ID") or 0) for name in ("JOB", "STEP"))
        environment.setdefault("MASTER_PORT", str(20000 + (job * 16 + step) % 20000))
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if not environment.get(name):
            raise UserError(
                f"params.yaml: launcher: {launched_world_size()} processes are started, and {name} is not set; set it, "
                "or give `torchrun --standalone --nproc-per-node N --no-python`"
            )


def rank_slice(length: int) -> slice:
    """This rank's part of `length` rows; the parts of all ranks are disjoint, in order, and cover all rows."""
    if get_world_size() == 1:
        return slice(length)
    return slice(length * get_rank() // get_world_size(), length * (get_rank() + 1) // get_world_size())


def rank_rows(rows: "Tensor", stage: str) -> "Tensor":
    """This rank's part of a batch's rows; `stage` (`train-head`, `fine-tune`) is for the error.

    Raises:
        UserError: there are fewer rows than processes.
    """
    if len(rows) < get_world_size():
        raise UserError(
            f"params.yaml: {stage.replace('-', '_')}.batch_size: a batch has {len(rows)} pictures, and "
            f"{get_world_size()} processes share it; give a larger one, or a launcher with fewer processes"
        )
    return rows[rank_slice(len(rows))]


def all_reduce_sum(number: Number, *, shared: bool = True) -> Number:
    """The sum over all ranks, on every rank; the number itself where it already is over all rows (`shared` false)."""
    if get_world_size() == 1 or not shared:
        return number
    import torch
    import torch.distributed as dist

    total = torch.as_tensor(number).clone()
    dist.all_reduce(total)
    return total if isinstance(number, torch.Tensor) else type(number)(total.item())


def all_gather_numbers(*numbers: float) -> list[tuple[float, ...]]:
    """Every rank's numbers, in order of rank."""
    if get_world_size() == 1:
        return [numbers]
    import torch
    import torch.distributed as dist

    own = torch.tensor(numbers, dtype=torch.float64)
    gathered = [torch.empty_like(own) for _ in range(get_world_size())]
    dist.all_gather(gathered, own)
    return [tuple(row.tolist()) for row in gathered]


def all_gather_tensors(own: "Sequence[Tensor]") -> "list[Tensor]":
    """Every rank's tensors, in order of rank; on the CPU."""
    if get_world_size() == 1:
        return list(own)
    import torch.distributed as dist

    gathered: list[list[Tensor]] = [[] for _ in range(get_world_size())]
    dist.all_gather_object(gathered, list(own))
    return [tensor for tensors in gathered for tensor in tensors]


def broadcast_object(value: T) -> T:
    """Rank 0's value, on every rank: the others' might differ by a bit, or by a file that a network disk shows late."""
    if get_world_size() == 1:
        return value
    import torch.distributed as dist

    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def wait_for_all() -> None:
    """A barrier: returns once every rank has called it."""
    all_gather_numbers(0)  # without a number there would be no message


@contextmanager
def main_process_first() -> Iterator[None]:
    """Rank 0 runs the block before the others, which then find in the cache what it has written."""
    if not is_main_process():
        wait_for_all()
    yield
    if is_main_process():
        wait_for_all()


def all_reduce_gradients(parameters: "Sequence[nn.Parameter]") -> None:
    """Replace each gradient by its sum over all ranks, in one message.

    A rank without a gradient counts as zero; a parameter without a gradient on every rank keeps none.
    """
    if get_world_size() == 1:
        return
    import torch
    import torch.distributed as dist

    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    has_grad = torch.tensor([parameter.grad is not None for parameter in trainable], device=trainable[0].device)
    own = [torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in trainable]
    flat = torch.cat([has_grad.to(trainable[0].dtype), *(gradient.reshape(-1) for gradient in own)])
    dist.all_reduce(flat)
    has_grad_somewhere, *sums = torch.split(flat, [len(trainable), *(parameter.numel() for parameter in trainable)])
    for parameter, gradient, somewhere, total in zip(trainable, own, has_grad_somewhere.tolist(), sums, strict=True):
        parameter.grad = gradient.copy_(total.view_as(gradient)) if somewhere else None


def shutdown_distributed() -> None:
    """End distributed work once every rank is here; ranks other than 0 exit, for what is left is to write."""
    if get_world_size() == 1:
        return
    import torch.distributed as dist

    wait_for_all()
    dist.destroy_process_group()
    _process_group.world_size = 1
    if get_rank():
        raise SystemExit(0)


@contextmanager
def silence_other_ranks() -> Iterator[None]:
    """Ranks other than 0 print nothing.

    After an exception they wait before they raise it: most often rank 0 has had the same, and the launcher ends them.
    """
    if launched_world_size() == 1 or not get_rank():
        yield
        return
    out, err = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as null:  # noqa: PTH123 (no path)
        sys.stdout = sys.stderr = null
        try:
            yield
        except Exception:
            time.sleep(SECONDS_BEFORE_ERROR)
            raise
        finally:
            sys.stdout, sys.stderr = out, err
