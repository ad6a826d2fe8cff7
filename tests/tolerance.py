"""How far apart two computations of the same numbers may lie: derived, never measured.

Where both sides can be computed in double precision, compare there (`tests.double`). Else a
tolerance follows from how the numbers came about. Each operation rounds its result by up to half
an epsilon of its type, relative to the numbers that it adds up; over a chain of operations these
errors add up like a random walk at best and one by one at worst. Taking them one by one, a chain
of `depth` operations on numbers up to `magnitude` is off by `depth * epsilon / 2 * magnitude`.
Another processor adds the same terms in another order: that changes the errors, not their size.
Ten times that is the tolerance.
"""

from __future__ import annotations

import torch

MARGIN = 10
PER_LAYER = 8
"""Operations in a row in a transformer layer: two norms, and six products with softmax or gate."""


def rounding(
    depth: int, magnitude: float, dtype: torch.dtype = torch.float32, margin: float = MARGIN
) -> dict[str, float]:
    """`atol` and `rtol` of numbers that went through `depth` operations.

    Args:
        depth: operations in a row on the longer side, `PER_LAYER` a layer.
        magnitude: of the largest numbers on the way: logits, scores, a residual stream.
    """
    return {"atol": margin * depth * torch.finfo(dtype).eps / 2 * magnitude, "rtol": 0.0}
