"""Fused projections with low-rank adapters: their parts, where TransformerLens splits them.

Where something is hooked inside attention or a gated MLP whose projections are one (Phi-3),
TransformerLens computes it anew from parts of that one's weight, cut out when the model is wrapped:
without adapters. Here the parts are those of the projection as it is when it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from palscope._models.adapted import (
    bias_rows,
    effective_weight,
    is_adapted,
    plain_linear,
    projected_rows,
)


class ProjectedRows(nn.Module):
    """Some outputs of a projection, as a linear map."""

    def __init__(self, projection: nn.Module, rows: slice) -> None:
        super().__init__()
        self._of = (projection,)  # in a tuple: it stays where it is among the model's modules
        self._rows = rows

    @property
    def weight(self) -> Float[Tensor, "outputs inputs"]:
        """Active adapters included."""
        return effective_weight(self._of[0])[self._rows]

    @property
    def bias(self) -> Float[Tensor, "outputs"] | None:
        """None without one."""
        return bias_rows(plain_linear(self._of[0]), self._rows)

    def forward(self, x: Float[Tensor, "*tokens inputs"]) -> Float[Tensor, "*tokens outputs"]:
        """Raises `CheckpointError` for adapters that are no plain LoRA."""
        return projected_rows(self._of[0], self._rows, x)


def keep_adapters(component: Any) -> None:
    """Let the parts of fused projections in and below a component have their adapters, in place."""
    submodules: dict[str, Any] = component.submodules
    if hasattr(component, "split_qkv_matrix") and "qkv" in submodules:
        name = submodules["qkv"].name
        component.split_qkv_matrix = _split(component.split_qkv_matrix, name)
    if hasattr(component, "split_gate_up_matrix"):
        component.split_gate_up_matrix = _split(
            component.split_gate_up_matrix, component.fused_attr
        )
    for part in submodules.values():
        keep_adapters(part)


def _split(given: Callable[[Any], tuple[Any, ...]], name: str) -> Callable[[Any], tuple[Any, ...]]:
    def split(module: Any) -> tuple[Any, ...]:
        parts, fused = given(module), getattr(module, name)
        if not is_adapted(fused):
            return parts
        made: list[ProjectedRows] = []
        first = 0
        for part in parts:
            made.append(ProjectedRows(fused, slice(first, first + part.out_features)))
            first += part.out_features
        return tuple(made)

    return split
