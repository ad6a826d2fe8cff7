"""A pretended accelerator: tensors that name another device, compute on the CPU, and do not mix.

`pretend:0` and `pretend:1` are two devices of PyTorch's `PrivateUse1` kind. A tensor there holds
one of the CPU, on which every operation runs, so numbers are the CPU's to the bit. As on GPUs,
tensors of two devices do not meet, but for what CUDA lets meet: numbers of the CPU (no axis) in
arithmetic, indices of the CPU, and copies. As there, no numpy is made of such a tensor, and none by
a generator of the CPU. What fails here fails on a GPU; kernels that differ there, and memory, are
not pretended.

`waits` counts what the host waits for: values that Python reads, shapes that depend on values, and
copies to and from the device that are not queued.

Importing this names the process's PrivateUse1 device. It says that it is not available, so that no
library takes it for one by itself.
"""

from __future__ import annotations

import collections
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from palscope._queued import QUEUING

FIRST, SECOND = "pretend:0", "pretend:1"


class DeviceFault(RuntimeError):
    """Tensors meet that a GPU would not let meet."""


class _Module:
    """What torch asks of `torch.pretend`."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return False

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 2

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        pass

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


class _Hook(torch._C._acc.PrivateUse1Hooks):  # pyright: ignore[reportUntypedBaseClass]
    def is_available(self) -> bool:
        return False

    def has_primary_context(self, device: int) -> bool:
        return True

    def is_built(self) -> bool:
        return True


_setup_privateuseone_for_python_backend("pretend", backend_module=_Module(), hook=_Hook())


class Pretended(Tensor):
    """A tensor of a pretended device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, device: torch.device) -> Pretended:
        made: Any = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=device,
        )
        made.held = held
        return made

    def __repr__(self, **_: Any) -> str:
        return f"Pretended({self.held!r}, device='{self.device}')"

    # Nothing of Python's stands between a call and its operations, but for what tensors of other
    # devices do otherwise without one.
    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore[reportAssignmentType]

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError(
            f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() to copy "
            "the tensor to host memory first."
        )

    __array__ = numpy

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def untyped_storage(self) -> Any:
        return self.held.untyped_storage()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            made: Any = self.detach().clone().requires_grad_(self.requires_grad)
            made._is_param = getattr(self, "_is_param", False)
            memo[id(self)] = made
        return memo[id(self)]

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(_index(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_index(index), value)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _index(index: Any) -> Any:
    """Lists as tensors of the CPU, which is what they are to a GPU."""
    if isinstance(index, tuple):
        return tuple(map(_index, index))
    return torch.tensor(index) if isinstance(index, list) else index


# -- operations -----------------------------------------------------------------------------------

_TAKE_NUMBERS = {
    *("add", "add_", "sub", "sub_", "rsub", "mul", "mul_", "div", "div_", "pow", "pow_"),
    *("remainder", "fmod", "floor_divide", "atan2", "maximum", "minimum", "where"),
    *("eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_xor"),
    *("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_and_", "bitwise_or_", "bitwise_xor_"),
    *("masked_fill", "masked_fill_", "fill_", "index_put", "index_put_", "_index_put_impl_"),
}
"""Operations of CUDA whose operands may be numbers of the CPU."""
_TAKE_INDICES = {"index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_"}
_COPIES = {"copy_", "_to_copy"}
_CPU = torch.device("cpu")


def _run(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """One operation, on what the tensors hold."""
    name: str = func._overloadpacket.__name__
    given: list[Tensor] = []
    _collect(args, given)
    _collect(kwargs.values(), given)
    here = _device(name, given, kwargs)
    if _counting:
        _count(name, given, here, args, kwargs)
    bare = {key: _bare(value) for key, value in kwargs.items() if key != "pin_memory"}
    if "device" in bare:
        bare["device"] = _CPU
    if name == "_to_copy":  # of a device to another: never the same memory
        out = func(_bare(args[0]), **bare).clone()
    elif name == "histc" and not given[0].is_floating_point():  # the CPU has no such kernel
        out = func(_bare(args[0]).float(), *args[1:], **bare).to(given[0].dtype)
    else:
        out = func(*map(_bare, args), **bare)
    if here is None or name == "_fused_sdp_choice":
        return out
    written = _written(func, args, kwargs)
    if written:
        return written[0] if len(written) == 1 else tuple(written)
    return _dressed(out, here)


def _collect(values: Iterable[Any], into: list[Tensor]) -> None:
    for each in values:
        if isinstance(each, Tensor):
            into.append(each)
        elif isinstance(each, list | tuple):
            _collect(each, into)


def _bare(value: Any) -> Any:
    if isinstance(value, Pretended):
        return value.held
    if isinstance(value, list | tuple):
        return type(value)(map(_bare, value))
    return value


def _dressed(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return Pretended(value, device)
    if isinstance(value, list | tuple):
        return type(value)(_dressed(each, device) for each in value)
    return value


_writes: dict[Any, list[tuple[int, str]]] = {}


def _written(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
    """The tensors that the operation writes into, which are what it returns."""
    if func not in _writes:
        _writes[func] = [
            (number, argument.name)
            for number, argument in enumerate(func._schema.arguments)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
    found: list[Any] = []
    for number, name in _writes[func]:
        each = args[number] if number < len(args) else kwargs[name]
        if isinstance(each, Pretended) and each.shape != each.held.shape:
            raise NotImplementedError(f"{func} changes a shape in place")
        found.append(each)
    return found


def _device(name: str, given: Sequence[Tensor], kwargs: dict[str, Any]) -> torch.device | None:
    """Where the result is, None for the CPU. Raises `DeviceFault` where tensors must not meet."""
    wanted = kwargs.get("device")
    if wanted is not None:
        wanted = torch.device(wanted)
        wanted = None if wanted.type == "cpu" else torch.device(wanted.type, wanted.index or 0)
    generator = kwargs.get("generator")
    if generator is not None and generator.device.type != "pretend":
        raise DeviceFault(f"{name}: a generator of {generator.device} makes nothing elsewhere")
    if name in _COPIES:
        if "device" in kwargs and kwargs["device"] is not None:
            return wanted
        return given[0].device if isinstance(given[0], Pretended) else None
    devices = {each.device for each in given if isinstance(each, Pretended)}
    strange = any(not isinstance(each, Pretended) for each in given)
    if len(devices) > 1 or (devices and strange and not _may_meet(name, given)):
        met = ", ".join(f"{tuple(each.shape)} on {each.device}" for each in given)
        raise DeviceFault(f"{name} of {met}")
    if "device" in kwargs and kwargs["device"] is not None:
        return wanted
    return next(iter(devices), None)


def _may_meet(name: str, given: Sequence[Tensor]) -> bool:
    """Whether CUDA lets these, some of which are on the CPU, meet."""
    of_cpu = [each for each in given if not isinstance(each, Pretended)]
    if isinstance(given[0], Pretended) and name in _TAKE_INDICES:
        return all(each.ndim == 0 or not each.is_floating_point() for each in of_cpu)
    if name.endswith("_") and not isinstance(given[0], Pretended):
        return False
    return name in _TAKE_NUMBERS and all(each.ndim == 0 for each in of_cpu)


# Factories have no tensor to go by. Some would fill an empty tensor and change its shape.
_FACTORIES = {
    "arange": ("", ".start", ".start_step"),
    "linspace": ("",),
    "eye": ("", ".m"),
    "randperm": ("", ".generator"),
    "tril_indices": ("",),
    "triu_indices": ("",),
    # None of them, but what `torch.tensor(…, device=…)` calls where wrapper tensors are not asked.
    "copy_": ("",),
    "_local_scalar_dense": ("",),
}


def _registered(func: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: _run(func, args, kwargs)


_LIBRARY = torch.library.Library("_", "IMPL")
_LIBRARY.fallback(lambda func, *args, **kwargs: _run(func, args, kwargs), "PrivateUse1")
for _name, _overloads in _FACTORIES.items():
    for _overload in _overloads:
        _made = getattr(getattr(torch.ops.aten, _name), _overload[1:] or "default")
        torch.library.impl(f"aten::{_name}{_overload}", "PrivateUse1")(_registered(_made))


# -- waiting --------------------------------------------------------------------------------------

_READING = {
    *("_local_scalar_dense", "equal", "nonzero", "masked_select", "bincount"),
    *("_unique2", "unique_dim", "unique_consecutive", "unique_dim_consecutive"),
}
"""Operations whose result the host must know."""

_counting: list[collections.Counter[str]] = []
_ROOT = Path(__file__).parents[2]


@contextmanager
def waits() -> Generator[collections.Counter[str], None, None]:
    """Within, count what the host waits for, by kind, operation and palscope's line.

    Kinds are "read" (of values, by Python or for a shape) and "written" (to the device, and not
    queued: `non_blocking`). The device takes what is queued as CUDA does, so palscope queues.
    """
    _counting.append(collections.Counter())
    QUEUING.add("pretend")
    try:
        yield _counting[-1]
    finally:
        _counting.pop()
        QUEUING.discard("pretend")


def _count(
    name: str,
    given: Sequence[Tensor],
    here: torch.device | None,
    args: Sequence[Any],
    kwargs: dict[str, Any],
) -> None:
    kind = _waits_for(name, given, here)
    queued = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
    if kind is not None and not (kind == "written" and queued):
        _counting[-1][f"{kind}: {name} in {_caller()}"] += 1


def _waits_for(name: str, given: Sequence[Tensor], here: torch.device | None) -> str | None:
    if name in _COPIES:
        source = given[-1]
        if not source.numel():
            return None
        if isinstance(source, Pretended):
            return "read" if here is None else None
        return None if here is None else "written"
    if name in _TAKE_INDICES:
        if any(each.dtype == torch.bool for each in given[1:]):
            return "read"
        return "written" if any(type(each) is Tensor and each.ndim for each in given[1:]) else None
    if name == "equal" and given[0].shape != given[1].shape:
        return None
    of_values = name == "repeat_interleave" and len(given) == 1
    return "read" if name in _READING or of_values else None


def _caller() -> str:
    """The innermost line of palscope that runs."""
    frame: Any = sys._getframe()
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if _ROOT / "palscope" in path.parents:
            return f"{path.relative_to(_ROOT)}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return "no line of palscope's"
