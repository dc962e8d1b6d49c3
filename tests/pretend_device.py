"""A pretend GPU: tensors of the device `pretend` keep their values on the CPU, and refuse to mix with the CPU's own.

    python tests/pretend_device.py JOBS.json

runs stages of projects on it, `[{"root": ..., "params": ..., "stages": [...]}, ...]`, and prints for each a JSON line:
how often each stage would have waited for a real GPU.

Importing this registers torch's PrivateUse1 device in Python, for the whole process. Factories, copies, autograd and
autocast then take it for an accelerator, whose kernels here are the CPU's. What it cannot show: kernels of its own that
round otherwise, memory, streams, and pinned memory.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
aten = torch.ops.aten
COPIES = (aten._to_copy.default, aten.copy_.default)
# Index tensors may lie on the CPU; torch copies them to the device, and waits.
INDEXING = (aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default)
WAITS = (aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.unique_dim.default)
# Without a deterministic implementation on CUDA, as the documentation of torch.use_deterministic_algorithms lists them
# (2.9). Two are left out, whose calls here have one: index_put with accumulate, and cumsum of integers.
NONDETERMINISTIC = {
    f"aten::{name}"
    for name in [
        *(f"{mode}_backward" for mode in ("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_max_pool2d")),
        *(f"{mode}_backward" for mode in ("adaptive_max_pool3d", "avg_pool3d", "fractional_max_pool2d")),
        *(f"{mode}_backward" for mode in ("fractional_max_pool3d", "max_pool3d_with_indices", "_embedding_bag_dense")),
        *(f"upsample_{mode}_backward" for mode in ("linear1d", "bilinear2d", "bicubic2d", "trilinear3d")),
        *(f"reflection_pad{dims}d_backward" for dims in (1, 3)),
        *(f"replication_pad{dims}d_backward" for dims in (1, 2, 3)),
        *(f"grid_sampler_{dims}d_backward" for dims in (2, 3)),
        *("nll_loss2d_forward", "nll_loss2d_backward", "max_unpool2d", "max_unpool3d", "put_", "histc", "kthvalue"),
        *("median.dim", "nanmedian.dim", "scatter_reduce", "scatter_reduce_", "bincount"),
    ]
}
nondeterministic: list[str] = []  # operators that ran although they should not have
counts: Counter[str] = Counter()


class _Backend:
    """The module torch.pretend."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        answers: dict[str, Any] = {"device_count": 1, "current_device": 0, "_is_in_bad_fork": False}
        answers |= {"is_available": True, "is_initialized": True, "is_built": True}
        answers["get_amp_supported_dtype"] = [torch.bfloat16, torch.float16]
        answers["get_rng_state"] = torch.get_rng_state()
        return lambda *_, **__: answers.get(name)


_setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
DEVICE = torch.device(NAME, 0)


class PretendTensor(Tensor):
    """A tensor of the pretend device; `held` is its value."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "PretendTensor":
        made: PretendTensor = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        made.held = held
        return made

    def __init__(self, held: Tensor) -> None:
        """As `__new__`."""

    def tolist(self) -> Any:
        """Torch's own is not for subclasses."""
        counts["waits"] += 1
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return run_operator(func, *args, **(kwargs or {}))


def run_operator(operator: Any, *args: Any, **kwargs: Any) -> Any:
    """Run an operator of which an argument or the result is on the pretend device."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    own = [tensor for tensor in tensors if isinstance(tensor, PretendTensor)]
    foreign = [tensor for tensor in tensors if not isinstance(tensor, PretendTensor)]
    if own and operator not in COPIES:
        if any(tensor.dim() for tensor in foreign) and operator not in INDEXING:
            raise RuntimeError(f"{operator}: a tensor on the CPU among those on the device: {_shapes(foreign)}")
        name = f"{operator._schema.name}.{operator._overloadname}"
        if torch.are_deterministic_algorithms_enabled() and {name, operator._schema.name} & NONDETERMINISTIC:
            nondeterministic.append(name)  # an error here would end autograd's thread, and the process
    held_args, held_kwargs = tree_map_only(PretendTensor, lambda tensor: tensor.held, (args, kwargs))
    device = kwargs.get("device")
    if device is not None:
        held_kwargs["device"] = torch.device("cpu")
    held_kwargs.pop("pin_memory", None)
    result = operator(*held_args, **held_kwargs)
    if operator is aten.copy_.default:
        on_device = isinstance(args[0], PretendTensor)
        leaves = not on_device
    else:
        on_device = bool(own) if device is None else torch.device(device).type == NAME
        leaves = bool(own) and not on_device
    counts["waits"] += leaves or operator in WAITS or (operator in INDEXING and bool(foreign))
    if not on_device:
        return args[0] if operator is aten.copy_.default else result
    known = {id(tensor.held): tensor for tensor in own}  # what an operator changes in place is its result
    return tree_map_only(
        Tensor, lambda tensor: known[id(tensor)] if id(tensor) in known else PretendTensor(tensor), result
    )


def _shapes(tensors: list[Tensor]) -> str:
    return ", ".join(str(tuple(tensor.shape)) for tensor in tensors)


def _in_low_precision(operator: Any) -> Callable[..., Any]:
    """The operator under autocast: fp32 arguments become bf16 or fp16."""
    autocast = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, "AutocastPrivateUse1"))  # noqa: B009

    def run(*args: Any, **kwargs: Any) -> Any:
        dtype = torch.get_autocast_dtype(NAME)
        args, kwargs = tree_map_only(
            Tensor, lambda tensor: tensor.to(dtype) if tensor.dtype == torch.float32 else tensor, (args, kwargs)
        )
        with torch._C._ExcludeDispatchKeyGuard(autocast):
            return operator(*args, **kwargs)

    return run


library: Any = torch.library
_fallbacks = library.Library("_", "IMPL")
_fallbacks.fallback(run_operator, "PrivateUse1")
_fallbacks.fallback(library.fallthrough_kernel, "AutocastPrivateUse1")
_autocast = library.Library("aten", "IMPL", "AutocastPrivateUse1")
for _name in ("conv2d", "linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "scaled_dot_product_attention"):
    _autocast.impl(_name, _in_low_precision(getattr(aten, _name).default))
_autocast.impl("conv2d.padding", _in_low_precision(aten.conv2d.padding))


def _create_above_dispatch(create: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """torch.tensor or torch.as_tensor: they call the operators below `__torch_dispatch__`."""

    def make(*args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        made = create(*args, **kwargs)
        if device is None or made.device == torch.device(device):
            return made
        counts["waits"] += 1  # a list is in memory that is not pinned
        return made.to(device)

    return make


def main() -> None:
    """Run jobs; see the module."""
    from headstart import tasks
    from headstart.engine import device
    from headstart.params.root import Params

    torch.tensor, torch.as_tensor = _create_above_dispatch(torch.tensor), _create_above_dispatch(torch.as_tensor)
    device.chosen_device = lambda: DEVICE
    for job in json.loads(Path(sys.argv[1]).read_text()):
        params, waits = Params.model_validate(job["params"]), {}
        device.computes_bf16 = partial(lambda bf16, _: bf16, params.train.precision == "bf16")
        for stage in job["stages"]:
            counts.clear()
            tasks.run(stage, params, Path(job["root"]))
            waits[stage] = counts["waits"]
            assert not nondeterministic, f"{stage}: {nondeterministic} have no deterministic implementation on CUDA"
        print(json.dumps(waits))


if __name__ == "__main__":
    main()
