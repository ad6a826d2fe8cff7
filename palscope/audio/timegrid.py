"""The time grid of a token stream: which seconds of the clip a token stands for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from palscope.errors import AudioError

# Seconds are sums of decimal fractions: an edge this close to a token's edge is on it.
_EDGE = 1e-6


@dataclass(frozen=True)
class TimeGrid:
    """Equal steps of time: token `i` stands for the seconds `[i, i + 1) * seconds_per_token`.

    A span says where the token's own samples are. What a token *knows* is wider: an encoder with
    global attention spreads a sound over all of its tokens.

    >>> TimeGrid(0.1).span(3)
    (0.30000000000000004, 0.4)
    >>> TimeGrid(0.1).tokens_between(0.25, 0.4, 10)
    range(2, 4)
    """

    seconds_per_token: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds_per_token) and self.seconds_per_token > 0):
            raise AudioError(
                f"seconds_per_token is {self.seconds_per_token}; expected a positive number."
            )

    def span(self, i: int) -> tuple[float, float]:
        """First and last second of token `i` (counted from 0).

        Raises `AudioError` for a negative `i`.
        """
        if i < 0:
            raise AudioError(f"Token {i} does not exist; tokens are counted from 0.")
        return i * self.seconds_per_token, (i + 1) * self.seconds_per_token

    def spans(self, n: int, duration: float | None = None) -> Float[np.ndarray, "tokens 2"]:
        """First and last second of tokens `0 … n - 1`; none ends after `duration` (seconds).

        Raises `AudioError` when a token would start at or after `duration`.
        """
        if n < 0:
            raise AudioError(f"{n} tokens asked for; expected none or more.")
        edges = np.arange(n + 1, dtype=np.float64) * self.seconds_per_token
        if duration is not None:
            if n and edges[-2] > duration - _EDGE:
                raise AudioError(
                    f"{n} tokens of {self.seconds_per_token:g} s do not fit into {duration:g} s; "
                    f"the last would start at {edges[-2]:g} s. Check the clip's token count."
                )
            edges = np.minimum(edges, duration)
        return np.stack([edges[:-1], edges[1:]], axis=1)

    def tokens_between(self, t0: float, t1: float, n: int) -> range:
        """Return the tokens, of `n`, that overlap the seconds from `t0` to `t1`.

        `t1` may lie past the last token (a clip's last token may be cut short). Raises `AudioError`
        when the window is empty, or starts before 0 or after the last token.
        """
        if not 0 <= t0 < t1:
            raise AudioError(f"The window {t0:g} to {t1:g} s is no window; expected 0 <= t0 < t1.")
        first = math.floor(t0 / self.seconds_per_token + _EDGE)
        last = math.ceil(t1 / self.seconds_per_token - _EDGE)
        if first >= n:
            raise AudioError(
                f"The window {t0:g} to {t1:g} s starts after the last of {n} tokens, "
                f"which ends at {n * self.seconds_per_token:g} s."
            )
        return range(first, min(max(last, first + 1), n))

    def coarsen(self, k: int) -> TimeGrid:
        """Return the grid of tokens that each pool `k` of these."""
        if k < 1:
            raise AudioError(f"Cannot pool {k} tokens into one; expected at least 1.")
        return TimeGrid(self.seconds_per_token * k)
