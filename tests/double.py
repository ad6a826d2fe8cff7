"""Double precision throughout: so that two sides differ by what they do, not by how they round.

A model in double precision still rounds to single in its norms, its softmax and its angles, where
its code says so. Within `Double` single precision is double wherever it is asked for. Tolerances
can then be far above what any processor's kernels do to the last bits, and far below any fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

CLOSE = {"atol": 1e-9, "rtol": 1e-9}
"""Ten thousand times and more what tiny models round to in double precision; see `test_double`."""


_PRODUCTS = (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__)


class Double(TorchFunctionMode):
    """Within, whatever asks torch for single precision gets double, new tensors too."""

    asleep = False

    def __enter__(self) -> Any:
        torch.set_default_dtype(torch.float64)
        return super().__enter__()

    def __exit__(self, *args: Any) -> None:
        super().__exit__(*args)
        torch.set_default_dtype(torch.float32)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if Double.asleep:
            return func(*args, **(kwargs or {}))
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        args = tuple(_double(each) for each in args)
        if func in _PRODUCTS:  # of what began in numpy's single precision, in a feature extractor
            args = tuple(each.double() if isinstance(each, torch.Tensor) else each for each in args)
        return func(*args, **{name: _double(each) for name, each in (kwargs or {}).items()})


def doubled(make: Callable[[], Any]) -> Any:
    """A model with the random weights of single precision, in double within `Double`."""
    kind = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    Double.asleep = True
    try:
        made = make()
    finally:
        Double.asleep = False
        torch.set_default_dtype(kind)
    if has_experts(made):
        made.set_experts_implementation("eager")  # the fused kernel has no double
    return made.to(kind)


def has_experts(model: Any) -> bool:
    """Whether some of the model's layers are mixtures of experts."""
    return any(hasattr(module, "num_experts") for module in model.modules())


def as_default(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """A feature extractor's tensors in the precision of the model."""
    kind = torch.get_default_dtype()
    return {k: v.to(kind) if v.is_floating_point() else v for k, v in inputs.items()}


def _double(given: Any) -> Any:
    return torch.float64 if given is torch.float32 else given
