"""Stretches of a clip to compare one with: as long, and elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from palscope._hooks import HookedAudioModel
from palscope.interventions import Knockout, resolve


def disjoint_stretches(
    start: float, end: float, seconds: float, *, clear_of: tuple[float, float] | None = None
) -> list[tuple[float, float]]:
    """Stretches as long as `start` to `end` that lie beside it in a clip, and beside each other.

    They are laid out from the stretch to both ends; what is left over at an end has none.

    Args:
        start: of the stretch, in seconds.
        end: likewise.
        seconds: the clip's length.
        clear_of: seconds that no other stretch may touch, by default the stretch's own; those of
            its tokens (`Resolved.covered`), where two stretches are to share none.

    Returns:
        `(start, end)` in order, in seconds; none where the stretch leaves no room for another.
    """
    length = end - start
    left, right = clear_of or (start, end)
    starts = [left - number * length for number in range(int(left / length + 1e-6), 0, -1)]
    room = int((seconds - right) / length + 1e-6)
    starts += [right + number * length for number in range(room)]
    return [(max(0.0, at), min(at + length, seconds)) for at in starts]


def stretches_beside(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    cuts: Iterable[Knockout],
    start: float,
    end: float,
    seconds: float,
) -> list[tuple[float, float]]:
    """`disjoint_stretches` of `start` to `end` that share no token with what `cuts` cut there."""
    covered: list[Any] = [resolve(model, inputs, cut.address).covered for cut in cuts]
    left = min(start, *(float(each["start_s"].min()) for each in covered))
    right = max(end, *(float(each["end_s"].max()) for each in covered))
    return disjoint_stretches(start, end, seconds, clear_of=(left, right))
