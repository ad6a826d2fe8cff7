"""When words begin, read from heads that listen in time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from jaxtyping import Float
from scipy import ndimage

_FILTER = 7
"""Tokens of sound over which openai-whisper takes the median."""

_RISEN = 0.25
"""Share of its peak to which attention has risen where a word begins.

Chosen among 0.1 to 0.5 on the strings with which heads are found (Whisper tiny.en, spoken digits).
"""

Patterns = Float[np.ndarray, "heads tokens sound"]
"""What each head gives to every token of sound before each token is written."""


def risen_onsets(
    patterns: Patterns, starts: Sequence[int], step_s: float
) -> Float[np.ndarray, " words"]:
    """Where the heads' mean attention rises to a word: back from its peak to a quarter of it.

    Each word by itself, by the query that predicts its first token.

    Args:
        patterns: of the heads that are listened to.
        starts: the place among the tokens at which each word begins.
        step_s: length of a token of sound in seconds.

    Returns:
        Seconds from the clip's start.
    """
    found: list[int] = []
    for row in patterns.mean(0)[list(starts)]:
        peak = int(row.argmax())
        below = np.flatnonzero(row[:peak] <= _RISEN * row[peak])
        found.append(int(below[-1]) + 1 if len(below) else 0)
    return np.array(found) * step_s


def warped_onsets(
    patterns: Patterns, starts: Sequence[int], step_s: float
) -> Float[np.ndarray, " words"]:
    """openai-whisper's rule: tokens follow each other along the path of least cost through sound.

    Attention to each moment is standardised over the tokens, smoothed by a median over 7 moments,
    and averaged over heads; dynamic time warping then gives each token the moment at which the path
    reaches it. (openai-whisper, timing.py; in transformers `return_token_timestamps`.)

    Args:
        patterns: of the heads that are listened to.
        starts: the place among the tokens at which each word begins.
        step_s: length of a token of sound in seconds.

    Returns:
        Seconds from the clip's start.
    """
    middle, spread = patterns.mean(1, keepdims=True), patterns.std(1, keepdims=True)
    standard = (patterns - middle) / np.maximum(spread, np.finfo(np.float32).tiny)
    if patterns.shape[-1] > _FILTER // 2:
        standard = cast(Any, ndimage).median_filter(standard, (1, 1, _FILTER), mode="mirror")
    tokens, moments = _least_path(-standard.mean(0).astype(np.float64))
    reached = [int(moments[tokens.index(start)]) for start in starts]
    return np.array(reached) * step_s


def _least_path(cost: Float[np.ndarray, "tokens sound"]) -> tuple[list[int], list[int]]:
    """Rows and columns of the cheapest way from the first corner to the last, both in order."""
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0
    steps = np.zeros((rows + 1, columns + 1), dtype=np.int8)
    for column in range(1, columns + 1):
        for row in range(1, rows + 1):
            ways = total[row - 1, column - 1], total[row - 1, column], total[row, column - 1]
            # On a tie the last is taken, as the published rule does.
            best = 0 if ways[0] < min(ways[1:]) else 1 if ways[1] < min(ways[0], ways[2]) else 2
            steps[row, column] = best
            total[row, column] = cost[row - 1, column - 1] + ways[best]
    steps[0, :], steps[:, 0] = 2, 1
    found: list[tuple[int, int]] = []
    row, column = rows, columns
    while row > 0 or column > 0:
        found.append((row - 1, column - 1))
        way = steps[row, column]
        row, column = row - (way != 2), column - (way != 1)
    return [row for row, _ in reversed(found)], [column for _, column in reversed(found)]
