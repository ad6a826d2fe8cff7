"""The time grid of a token stream: which seconds of the clip a token stands for.

All seconds of palscope are double precision, in whole nanoseconds, and one rule says which tokens a
stretch of time takes, wherever it is asked: `overlaps`.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from palscope._whole import whole_number
from palscope.errors import AudioError

SECONDS_PER_FEATURE = 0.01
"""Every front end gives a frame of features each 10 ms."""

TOUCH_S = 1e-6
"""Seconds: an edge this close to a token's edge is on it, for seconds are sums of decimals."""

_PER_SECOND = 1e9  # nanoseconds; up to three months of them are exact in double precision


def rounded(seconds: Any) -> Any:
    """`seconds` as the doubles nearest to whole nanoseconds, 0.3 for 3 * 0.1; an array's or one's.

    >>> rounded(3 * 0.1)
    0.3
    """
    array = np.rint(np.asarray(seconds, dtype=np.float64) * _PER_SECOND) / _PER_SECOND
    return array if isinstance(seconds, np.ndarray) else float(array)


def overlaps(starts: Any, ends: Any, t0: float, t1: float) -> Any:
    """Which tokens overlap the stretch from `t0` to `t1`: the one rule of what a stretch takes.

    A token that it only touches is not taken, nor one of which it covers no more than a microsecond
    (of a stretch shorter than four, a quarter of it). So a stretch that lies on tokens takes one of
    them at least.

    Args:
        starts: seconds at which tokens begin, an array of any library in double precision.
        ends: seconds at which they end. NaN edges (text) overlap nothing.
        t0: start of the stretch, in seconds.
        t1: its end, after `t0`; infinite for all that follows.

    Returns:
        Booleans, one a token.

    Raises:
        AudioError: it is no stretch: it must begin at 0 or later, and end after that.
    """
    if not 0 <= t0 < t1:  # NaN is neither
        raise AudioError(f"{t0:g} to {t1:g} s is no stretch of time; expected 0 <= start < end.")
    after, before = _inner(t0, t1)
    begun = (starts * _PER_SECOND).round() < before
    return begun & ((ends * _PER_SECOND).round() > after)


def steps_within(
    edges: Float[np.ndarray, " edges"], t0: Any, t1: Any
) -> tuple[Int[np.ndarray, " stretches"], Int[np.ndarray, " stretches"]]:
    """The steps between ascending `edges` that overlap each stretch, by the rule of `overlaps`.

    Args:
        edges: seconds where steps begin, and where the last one ends.
        t0: starts of the stretches, in seconds.
        t1: their ends.

    Returns:
        The first step of each stretch, and the one behind its last.
    """
    after, before = _inner(np.asarray(t0), np.asarray(t1))
    sides = np.rint(edges * _PER_SECOND)
    first = np.searchsorted(sides[1:], after, side="right")
    return first, np.searchsorted(sides[:-1], before, side="left")


def _inner(t0: Any, t1: Any) -> tuple[Any, Any]:
    """Nanoseconds after which a token must end, and before which it must begin."""
    first, last = np.rint(t0 * _PER_SECOND), np.rint(t1 * _PER_SECOND)
    last = np.maximum(last, first + 1)
    touch = np.minimum(TOUCH_S * _PER_SECOND, (last - first) / 4)
    return first + touch, last - touch


@dataclass(frozen=True)
class TimeGrid:
    """Steps of time, in each of which `per_step` tokens stand.

    Token `i` stands for the seconds `[s, s + 1) * seconds_per_step` of its step, which is
    `s = i // per_step`. Encoders of spectrogram patches have a token for each band of frequency in
    a step, the lowest first. Tokens of the whole clip (a CLS token, latents of the clip) have
    steps without end: `seconds_per_step=inf`.

    Steps are equal, or `centres` says where in a cycle of steps, which repeats, each has its middle
    (an encoder that hears a second at a time may make 13 tokens of it). A step is then what lies
    nearest to its centre within the cycle. A clip has the tokens whose centres it reaches, and the
    last of them stands for what is left of the clip, too.

    A span says where the token's own samples are. What a token *knows* is wider: an encoder with
    global attention spreads a sound over all of its tokens.

    Attributes:
        seconds_per_step: seconds from one step to the next; on average where `centres` says more.
        per_step: tokens that share a step.
        hz: edges of their bands of frequency, in Hz, one more than `per_step`, ascending; None
            where a token hears all frequencies, or nobody knows which.
        centres: seconds from the start of a cycle to the middle of each of its steps, ascending,
            within `seconds_per_step` times their number; None for equal steps.

    Raises:
        AudioError: a step of no positive length, no token in a step, or bands or centres that do
            not fit.

    >>> TimeGrid(0.1).span(3)
    (0.3, 0.4)
    >>> TimeGrid(0.1).tokens_between(0.25, 0.4, 10)
    range(2, 4)
    >>> TimeGrid(0.16, per_step=8).span(17)
    (0.32, 0.48)
    >>> uneven = TimeGrid(0.5, centres=(0.0, 0.4))
    >>> uneven.spans(4).tolist()
    [[0.0, 0.2], [0.2, 1.0], [1.0, 1.2], [1.2, 2.0]]
    >>> uneven.spans(3, duration=1.3).tolist()
    [[0.0, 0.2], [0.2, 1.0], [1.0, 1.3]]
    """

    seconds_per_step: float
    per_step: int = 1
    hz: tuple[float, ...] | None = None
    centres: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.seconds_per_step > 0:  # NaN is not
            raise AudioError(
                f"seconds_per_step is {self.seconds_per_step}; expected a positive number."
            )
        per_step = whole_number(self.per_step, "tokens in a step", least=1, error=AudioError)
        object.__setattr__(self, "per_step", per_step)
        if self.hz is not None:
            object.__setattr__(self, "hz", tuple(self.hz))
            if len(self.hz) != self.per_step + 1 or list(self.hz) != sorted(set(self.hz)):
                raise AudioError(
                    f"hz={self.hz} are no edges of {self.per_step} bands; expected "
                    f"{self.per_step + 1} ascending frequencies."
                )
        if self.centres is not None:
            object.__setattr__(self, "centres", tuple(self.centres))
            inside = all(0 <= centre < self.seconds_per_cycle < math.inf for centre in self.centres)
            if not (self.centres and inside) or list(self.centres) != sorted(set(self.centres)):
                raise AudioError(
                    f"centres={self.centres} are no middles of steps of {self.seconds_per_step:g} "
                    "s on average; expected ascending seconds from 0 to below the cycle's end."
                )

    @property
    def whole_clip(self) -> bool:
        """Whether every token stands for the whole clip."""
        return math.isinf(self.seconds_per_step)

    @property
    def cycle(self) -> int:
        """Tokens after which the grid repeats: those of a step where steps are equal."""
        return self.per_step * self._steps_per_cycle

    @property
    def seconds_per_cycle(self) -> float:
        """Seconds after which the grid repeats."""
        return self.seconds_per_step * self._steps_per_cycle

    @property
    def equal_step(self) -> float:
        """Seconds of each step. Raises `AudioError` where steps differ."""
        if self.centres is not None:
            raise AudioError(
                f"{self._steps_per_cycle} steps of different length share each "
                f"{self.seconds_per_cycle:g} s; expected equal steps."
            )
        return self.seconds_per_step

    @property
    def seconds_per_token(self) -> float:
        """Seconds from one token to the next, where steps are equal and no tokens share one.

        Raises `AudioError` elsewhere.
        """
        if self.per_step > 1:
            raise AudioError(
                f"{self.per_step} tokens share each step of {self.seconds_per_step:g} s; ask for "
                "seconds_per_step."
            )
        return self.equal_step

    def tokens(self, seconds: float) -> int:
        """How many tokens a clip of `seconds` has; its last step may be cut short."""
        if self.centres is None:
            steps = math.ceil((seconds - TOUCH_S) / self.seconds_per_step)
        else:
            cycle, rest = self._within_cycle(seconds)
            steps = cycle * self._steps_per_cycle + bisect_left(self.centres, rest - TOUCH_S)
        return self.per_step * max(1, steps)

    def span(self, i: int) -> tuple[float, float]:
        """First and last second of token `i` (counted from 0).

        Raises `AudioError` for a negative `i`.
        """
        i = whole_number(i, "token", least=0, error=AudioError)
        step = i // self.per_step
        start, end = self._starts(np.array([step, step + 1])).tolist()
        return start, end

    def band(self, i: int) -> tuple[float, float] | None:
        """Lowest and highest frequency of token `i`, in Hz; None without bands."""
        row = whole_number(i, "token", least=0, error=AudioError) % self.per_step
        return None if self.hz is None else (self.hz[row], self.hz[row + 1])

    def spans(self, n: int, duration: float | None = None) -> Float[np.ndarray, "tokens 2"]:
        """First and last second of tokens `0 … n - 1`; none ends after `duration` (seconds).

        Raises `AudioError` when a token would start at or after `duration`.
        """
        edges = self.edges(n, duration)
        if duration is not None and n and edges[-2] > duration - TOUCH_S:
            raise AudioError(
                f"{n} tokens of {self.seconds_per_step:g} s do not fit into {duration:g} s; "
                f"the last would start at {self.span(n - 1)[0]:g} s. Check the clip's token count."
            )
        of_steps = np.stack([edges[:-1], edges[1:]], axis=1)
        return np.repeat(of_steps, self.per_step, axis=0)[:n]

    def edges(self, n: int, duration: float | None = None) -> Float[np.ndarray, "steps_and_one"]:
        """Seconds where the steps of `n` tokens begin, and where the last one ends.

        None lies after `duration` (seconds), and the last one there where the last token stands for
        what is left of the clip.
        """
        n = whole_number(n, "the number of tokens", least=0, error=AudioError)
        edges = self._starts(np.arange(-(-n // self.per_step) + 1))
        if duration is None:
            return edges
        if self.centres is not None and n and duration < self._reach(n) + TOUCH_S:
            edges[-1] = max(edges[-1], duration)
        return rounded(np.minimum(edges, duration))

    def tokens_between(self, t0: float, t1: float, n: int) -> range:
        """Return the tokens, of `n`, that overlap the seconds from `t0` to `t1`.

        `t1` may lie past the last token (a clip's last token may be cut short). Raises `AudioError`
        when the window is empty, or starts before 0 or after the last token.
        """
        edges = self.edges(n)
        if self.centres is not None and n:
            edges[-1] = max(edges[-1], self._reach(n))  # the last stands for what is left, too
        found = overlaps(edges[:-1], edges[1:], t0, t1).nonzero()[0]
        if not len(found):
            raise AudioError(
                f"{t0:g} to {t1:g} s starts after the last of {n} tokens, "
                f"which ends at {self.span(n - 1)[1] if n else 0:g} s."
            )
        first, last = int(found[0]), int(found[-1]) + 1
        return range(first * self.per_step, min(last * self.per_step, n))

    def coarsen(self, k: int) -> TimeGrid:
        """Return the grid of tokens that each pool `k` of these.

        Raises `AudioError` for a `k` that would pool across steps but not whole ones, and where
        steps differ.
        """
        step = self.equal_step
        k = whole_number(k, "the tokens pooled into one", least=1, error=AudioError)
        if self.per_step % k == 0:
            hz = None if self.hz is None else self.hz[::k]
            return TimeGrid(step, self.per_step // k, hz)
        if k % self.per_step:
            raise AudioError(
                f"Cannot pool {k} tokens where {self.per_step} share a step: expected a number "
                f"that divides {self.per_step}, or a multiple of it."
            )
        return TimeGrid(step * (k // self.per_step))

    @property
    def _steps_per_cycle(self) -> int:
        return 1 if self.centres is None else len(self.centres)

    def _within_cycle(self, seconds: float) -> tuple[int, float]:
        """Whole cycles before `seconds`, and what is left of them."""
        cycle = math.floor((seconds + TOUCH_S) / self.seconds_per_cycle)
        return cycle, seconds - cycle * self.seconds_per_cycle

    def _starts(self, steps: Int[np.ndarray, " steps"]) -> Float[np.ndarray, " steps"]:
        """Seconds where steps begin."""
        if self.centres is None:
            begun = np.zeros(len(steps))  # 0 * inf is no number
            return rounded(np.multiply(steps, self.seconds_per_step, out=begun, where=steps > 0))
        centres = np.array(self.centres)
        inner = np.concatenate([[0.0], (centres[:-1] + centres[1:]) / 2])
        cycles, places = np.divmod(steps, len(centres))
        return rounded(cycles * self.seconds_per_cycle + inner[places])

    def _reach(self, n: int) -> float:
        """Second up to which a clip has no more than `n` tokens: the next one's centre."""
        assert self.centres is not None
        cycle, place = divmod(-(-n // self.per_step), len(self.centres))
        return cycle * self.seconds_per_cycle + self.centres[place]
