"""Projections with low-rank adapters inside (LoRA, as peft puts them there), row by row.

peft leaves a layer in a linear map's place, which adds the active adapters' products to what the
map makes. Where palscope needs some outputs alone, or the weight itself, adapters count too.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from palscope.errors import CheckpointError


def is_adapted(projection: Any) -> bool:
    """Whether there are adapters in a projection, active or not."""
    return hasattr(projection, "base_layer")


def plain_linear(projection: Any) -> nn.Linear:
    """The linear map itself, without adapters.

    Raises:
        CheckpointError: it is no `torch.nn.Linear`, or has adapters that are no plain LoRA.
    """
    plain = getattr(projection, "base_layer", projection)
    if type(plain) is not nn.Linear:
        raise CheckpointError(
            f"a projection is a {type(plain).__name__}; its rows can be used alone only in a plain "
            "torch.nn.Linear. Load it unquantised."
        )
    if plain is not projection:
        names = _active(projection)
        variants: Any = getattr(projection, "lora_variant", {})
        if not hasattr(projection, "lora_A") or any(
            name in variants or projection.lora_B[name].bias is not None for name in names
        ):
            raise CheckpointError(
                f"a projection is a {type(projection).__module__}.{type(projection).__name__} "
                f"with {', '.join(names)}; of adapters only plain LoRA can be read row by row. "
                "Merge it into the weights."
            )
    return plain


def projected_rows(
    projection: Any, rows: slice, x: Float[Tensor, "*tokens inputs"]
) -> Float[Tensor, "*tokens outputs"]:
    """The outputs `rows` of a projection, adapters included; the others are not computed.

    Raises `CheckpointError` as `plain_linear` does.
    """
    plain = plain_linear(projection)
    out = functional.linear(x, plain.weight[rows], bias_rows(plain, rows))
    for name in _active(projection):
        down, up = projection.lora_A[name], projection.lora_B[name]
        low = down(projection.lora_dropout[name](x.to(down.weight.dtype)))
        out = out + (functional.linear(low, up.weight[rows]) * projection.scaling[name]).to(out)
    return out


def effective_weight(projection: Any) -> Float[Tensor, "outputs inputs"]:
    """The weight of a projection with what its active adapters add.

    Raises:
        CheckpointError: it is quantised, so that what it holds is not its numbers; or has adapters
            that are no plain LoRA.
    """
    weight: Tensor = getattr(projection, "base_layer", projection).weight
    if not weight.is_floating_point():
        raise CheckpointError(
            f"weights of this decoder are quantised ({type(projection).__name__}, {weight.dtype}), "
            "and their numbers are needed here. Load the model unquantised, say in bfloat16."
        )
    if not (names := _active(projection)):
        return weight
    weight = plain_linear(projection).weight
    return torch.stack([weight, *(projection.get_delta_weight(name) for name in names)]).sum(0)


def bias_rows(linear: nn.Linear, rows: slice) -> Float[Tensor, "outputs"] | None:
    """Those of its bias; None without one."""
    given: Any = linear.bias  # None without one, whatever torch's annotation says
    return None if given is None else given[rows]


def _active(projection: Any) -> list[str]:
    """Names of the adapters that change what `projection` makes, beside its own weight."""
    if not is_adapted(projection) or projection.disable_adapters or projection.merged:
        return []
    kinds = [getattr(projection, kind) for kind in projection.adapter_layer_names]
    return [name for name in projection.active_adapters if any(name in kind for kind in kinds)]
