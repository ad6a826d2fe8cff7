"""How far apart two computations of the same numbers may lie: derived, never fitted to a processor.

Each operation rounds its result by up to half an epsilon of its type, relative to the numbers that
it adds up. Another processor adds the same terms in another order: that changes the errors, not
their size. What they add up to is known in two ways.

`rounding` counts: taken one by one, a chain of `depth` operations on numbers up to `magnitude` is
off by `depth * epsilon / 2 * magnitude`, and ten times that is the tolerance. Over a deep model in
half precision it allows anything, since errors hardly ever all point one way.

`limits` asks the model: with every layer's output off at random by what its operations round
(`shaken`), how far do the logits move? That has the type, the depth and the magnitudes in it, and
how much the layers amplify, which for some models is a lot and for a few tokens of any model. Ten
times that, again, is the tolerance: bfloat16 beside float32 came to four times at most.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

MARGIN = 10
PER_LAYER = 8
"""Operations in a row in a transformer layer: two norms, and six products with softmax or gate."""

SHAKES = 2
"""Random draws that `limits` averages over."""
COARSE = 0.5
"""Share of the logits' own spread; where rounding moves them as far, nothing can be told."""


def rounding(
    depth: int, magnitude: float, dtype: torch.dtype = torch.float32, margin: float = MARGIN
) -> dict[str, float]:
    """`atol` and `rtol` of numbers that went through `depth` operations.

    Args:
        depth: operations in a row on the longer side, `PER_LAYER` a layer.
        magnitude: of the largest numbers on the way: logits, scores, a residual stream.
    """
    return {"atol": margin * depth * torch.finfo(dtype).eps / 2 * magnitude, "rtol": 0.0}


def apart(
    got: Float[Tensor, "*columns vocabulary"], wanted: Float[Tensor, "*columns vocabulary"]
) -> Float[Tensor, "*columns"]:
    """How far apart logits are, column by column, as a share of the wanted ones' own spread.

    The root of the mean square over the vocabulary; the spread is over all columns.
    """
    got, wanted = got.double(), wanted.double()
    spread = (wanted - wanted.mean(-1, keepdim=True)).square().mean().sqrt()
    return (got - wanted).square().mean(-1).sqrt() / spread


@contextmanager
def shaken(layers: Iterable[nn.Module], seed: int) -> Generator[None, None, None]:
    """Within, what leaves each layer is off by what a layer's operations round, at random."""
    draws = torch.Generator().manual_seed(seed)

    def off(states: Tensor) -> Tensor:
        size = torch.finfo(states.dtype).eps / 2 * PER_LAYER**0.5
        noise = torch.randn(states.shape, generator=draws, dtype=torch.float32)
        return (states * (1 + size * noise.to(states.device))).to(states.dtype)

    def after(_module: nn.Module, _args: Any, out: Any) -> Any:
        if not isinstance(out, tuple):
            return off(out)
        states, *rest = cast("tuple[Any, ...]", out)
        return (off(states), *rest)

    handles = [layer.register_forward_hook(after) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def limits(
    moved: Sequence[Float[Tensor, "columns"]], dtype: torch.dtype
) -> Float[Tensor, "columns"]:
    """How far apart logits of one computation may be, from how far they moved when shaken.

    Args:
        moved: of each draw, as `apart` has it.
        dtype: of the computation.
    """
    each = torch.stack(list(moved)).square().mean(0)
    typical = each.mean().sqrt()  # a token may be still by chance
    return MARGIN * each.sqrt().clamp(min=max(float(typical), torch.finfo(dtype).eps))
