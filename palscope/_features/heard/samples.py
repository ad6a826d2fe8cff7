"""Which seconds of which clips are played of a unit: its strongest, and some of every strength."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from palscope._features.heard.survey import Survey

TOP = 10
"""Of the clips that fire a unit, the strongest."""
BANDS, PER_BAND = 4, 3
"""Quarters of the clips that fire a unit, by strength, and how many are drawn of each."""


@dataclass(frozen=True)
class Samples:
    """`TOP` strongest clips of each unit, then `PER_BAND` of each quarter, the weakest first.

    A unit that few clips fire has fewer; `clip` is -1 in what is left over. No clip stands twice
    among the strongest, nor twice in the quarters.

    Attributes:
        clip: row of the store's clips.
        value: the unit's largest there.
        start, end: the seconds around it of at least half of it.
    """

    clip: Int[np.ndarray, "units samples"]
    value: Float[np.ndarray, "units samples"]
    start: Float[np.ndarray, "units samples"]
    end: Float[np.ndarray, "units samples"]


def chosen(found: Survey, seed: int) -> Samples:
    """The samples of every unit; those of quarters are drawn by `seed` and the unit's number."""
    units = len(found.first) - 1
    places = np.full((units, TOP + BANDS * PER_BAND), -1)
    for unit in range(units):
        mine = found.of(unit)
        places[unit] = _places(mine.stop - mine.start, (seed, unit))
        places[unit][places[unit] >= 0] += mine.start
    empty = places < 0
    if not len(found.clip):
        nothing = np.zeros(places.shape, dtype=np.float32)
        return Samples(places.astype(np.int32), nothing, nothing, nothing)
    numbers = [np.where(empty, 0, each[places]) for each in (found.value, found.start, found.end)]
    return Samples(np.where(empty, -1, found.clip[places]), *numbers)


def _places(count: int, seed: tuple[int, int]) -> Int[np.ndarray, " samples"]:
    """Of so many clips, the strongest first: which are played, -1 where there are too few."""
    out = np.full(TOP + BANDS * PER_BAND, -1)
    top = min(TOP, count)
    out[:top] = np.arange(top)
    drawn = np.random.default_rng(seed)
    for band, quarter in enumerate(np.array_split(np.arange(count)[::-1], BANDS)):
        some = drawn.choice(quarter, min(PER_BAND, len(quarter)), replace=False)
        begins = TOP + band * PER_BAND
        out[begins : begins + len(some)] = np.sort(some)[::-1]
    return out
