"""The time grid of a token stream: which seconds of the clip a token stands for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from palscope.errors import AudioError

SECONDS_PER_FEATURE = 0.01
"""Every front end gives a frame of features each 10 ms."""

# Seconds are sums of decimal fractions: an edge this close to a token's edge is on it.
_EDGE = 1e-6


@dataclass(frozen=True)
class TimeGrid:
    """Equal steps of time, in each of which `per_step` tokens stand.

    Token `i` stands for the seconds `[s, s + 1) * seconds_per_step` of its step, which is
    `s = i // per_step`. Encoders of spectrogram patches have a token for each band of frequency in
    a step, the lowest first. Tokens of the whole clip (a CLS token, latents of the clip) have
    steps without end: `seconds_per_step=inf`.

    A span says where the token's own samples are. What a token *knows* is wider: an encoder with
    global attention spreads a sound over all of its tokens.

    Attributes:
        seconds_per_step: seconds from one step to the next.
        per_step: tokens that share a step.
        hz: edges of their bands of frequency, in Hz, one more than `per_step`, ascending; None
            where a token hears all frequencies, or nobody knows which.

    Raises:
        AudioError: a step of no positive length, no token in a step, or bands that do not fit.

    >>> TimeGrid(0.1).span(3)
    (0.30000000000000004, 0.4)
    >>> TimeGrid(0.1).tokens_between(0.25, 0.4, 10)
    range(2, 4)
    >>> TimeGrid(0.16, per_step=8).span(17)
    (0.32, 0.48)
    """

    seconds_per_step: float
    per_step: int = 1
    hz: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.seconds_per_step > 0:  # NaN is not
            raise AudioError(
                f"seconds_per_step is {self.seconds_per_step}; expected a positive number."
            )
        if self.per_step < 1:
            raise AudioError(f"{self.per_step} tokens in a step; expected a positive number.")
        if self.hz is not None:
            object.__setattr__(self, "hz", tuple(self.hz))
            if len(self.hz) != self.per_step + 1 or list(self.hz) != sorted(set(self.hz)):
                raise AudioError(
                    f"hz={self.hz} are no edges of {self.per_step} bands; expected "
                    f"{self.per_step + 1} ascending frequencies."
                )

    @property
    def whole_clip(self) -> bool:
        """Whether every token stands for the whole clip."""
        return math.isinf(self.seconds_per_step)

    @property
    def seconds_per_token(self) -> float:
        """Seconds from one token to the next, where no tokens share a step.

        Raises `AudioError` where they do.
        """
        if self.per_step > 1:
            raise AudioError(
                f"{self.per_step} tokens share each step of {self.seconds_per_step:g} s; ask for "
                "seconds_per_step."
            )
        return self.seconds_per_step

    def tokens(self, seconds: float) -> int:
        """How many tokens a clip of `seconds` has; its last step may be cut short."""
        return self.per_step * max(1, math.ceil(seconds / self.seconds_per_step - _EDGE))

    def span(self, i: int) -> tuple[float, float]:
        """First and last second of token `i` (counted from 0).

        Raises `AudioError` for a negative `i`.
        """
        if i < 0:
            raise AudioError(f"Token {i} does not exist; tokens are counted from 0.")
        step = i // self.per_step
        return self._start(step), self._start(step + 1)

    def band(self, i: int) -> tuple[float, float] | None:
        """Lowest and highest frequency of token `i`, in Hz; None without bands."""
        row = i % self.per_step
        return None if self.hz is None else (self.hz[row], self.hz[row + 1])

    def spans(self, n: int, duration: float | None = None) -> Float[np.ndarray, "tokens 2"]:
        """First and last second of tokens `0 … n - 1`; none ends after `duration` (seconds).

        Raises `AudioError` when a token would start at or after `duration`.
        """
        if n < 0:
            raise AudioError(f"{n} tokens asked for; expected none or more.")
        steps = np.arange(-(-n // self.per_step) + 1)
        edges = np.array([self._start(int(step)) for step in steps])
        if duration is not None:
            if n and edges[-2] > duration - _EDGE:
                raise AudioError(
                    f"{n} tokens of {self.seconds_per_step:g} s do not fit into {duration:g} s; "
                    f"the last would start at {edges[-2]:g} s. Check the clip's token count."
                )
            edges = np.minimum(edges, duration)
        of_steps = np.stack([edges[:-1], edges[1:]], axis=1)
        return np.repeat(of_steps, self.per_step, axis=0)[:n]

    def tokens_between(self, t0: float, t1: float, n: int) -> range:
        """Return the tokens, of `n`, that overlap the seconds from `t0` to `t1`.

        `t1` may lie past the last token (a clip's last token may be cut short). Raises `AudioError`
        when the window is empty, or starts before 0 or after the last token.
        """
        if not 0 <= t0 < t1:
            raise AudioError(f"The window {t0:g} to {t1:g} s is no window; expected 0 <= t0 < t1.")
        first = math.floor(t0 / self.seconds_per_step + _EDGE)
        last = max(math.ceil(t1 / self.seconds_per_step - _EDGE), first + 1)
        if first * self.per_step >= n:
            raise AudioError(
                f"The window {t0:g} to {t1:g} s starts after the last of {n} tokens, "
                f"which ends at {self.span(n - 1)[1] if n else 0:g} s."
            )
        return range(first * self.per_step, min(last * self.per_step, n))

    def coarsen(self, k: int) -> TimeGrid:
        """Return the grid of tokens that each pool `k` of these.

        Raises `AudioError` for a `k` that would pool across steps but not whole ones.
        """
        if k < 1:
            raise AudioError(f"Cannot pool {k} tokens into one; expected at least 1.")
        if self.per_step % k == 0:
            hz = None if self.hz is None else self.hz[::k]
            return TimeGrid(self.seconds_per_step, self.per_step // k, hz)
        if k % self.per_step:
            raise AudioError(
                f"Cannot pool {k} tokens where {self.per_step} share a step: expected a number "
                f"that divides {self.per_step}, or a multiple of it."
            )
        return TimeGrid(self.seconds_per_step * (k // self.per_step))

    def _start(self, step: int) -> float:
        return step * self.seconds_per_step if step else 0.0  # 0 * inf is no number
