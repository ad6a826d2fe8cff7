"""One pass over rows: how often each unit fires, how strongly, and where in each clip it peaks.

Rows are read some thousand at a time; of each clip only the units that fire in it are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from tqdm.auto import tqdm

from palscope._features.heard.bins import BINS, bin_of
from palscope._features.heard.source import UnitSource
from palscope.errors import PalscopeError

AT_ONCE = 4096
"""Rows, about: a block ends where a clip does."""
_DENSE = 0.1
"""A larger share of values that are not 0 is multiplied as a full matrix."""


@dataclass(frozen=True)
class Survey:
    """What a pass finds of each unit.

    `clip`, `value`, `start` and `end` have an entry for each clip that fires a unit, those of unit
    `u` from `first[u]` to `first[u + 1]`, the largest first.

    Attributes:
        counts: rows by the size of their values, in the bins of the source's `edges`.
        rows: that were gone through.
        first: of each unit its entries.
        clip: row of the store's clips.
        value: the unit's largest in the clip.
        start, end: of the tokens around it that are at least half of it (s).
        sums: of each unit, over all rows.
        alike: how heads correlate over rows; None of other units.
    """

    counts: Int[np.ndarray, "units bins"]
    rows: int
    first: Int[np.ndarray, " ends"]
    clip: Int[np.ndarray, " peaks"]
    value: Float[np.ndarray, " peaks"]
    start: Float[np.ndarray, " peaks"]
    end: Float[np.ndarray, " peaks"]
    sums: Float[np.ndarray, " units"]
    alike: Float[np.ndarray, "units units"] | None

    def of(self, unit: int) -> slice:
        """The entries of a unit."""
        return slice(int(self.first[unit]), int(self.first[unit + 1]))


Correlations = list[Float[np.ndarray, "..."]]
"""`[units, others]` of each source behind the first."""


def survey(sources: Sequence[UnitSource]) -> tuple[list[Survey], Correlations]:
    """Go through the rows of all sources at once.

    Args:
        sources: units of the same tokens of the same clips.

    Returns:
        A survey of each source, and how the first one's units correlate over rows with each of the
        others'. NaN where one of the two is constant.

    Raises:
        PalscopeError: sources are of different tokens, no row has seconds, or a value is not
            finite.
    """
    table: Any = sources[0].rows.rows
    for other in sources[1:]:
        theirs: Any = other.rows.rows
        if len(theirs) != len(table) or not theirs[["clip", "start"]].equals(
            table[["clip", "start"]]
        ):
            raise PalscopeError(
                f"{other.rows.hook_point} ({other.name}) has rows of other tokens than "
                f"{sources[0].rows.hook_point}; store both in one run, for the same clips."
            )
    segments = _segments(table)
    seconds = table[["start", "end"]].to_numpy(dtype=np.float32)
    gathered = [_Gathered(each) for each in sources]
    pairs = [_Products() for _ in sources[1:]]
    with tqdm(total=len(table), desc="units", unit=" row") as bar:
        for block in _blocks(segments):
            start, end = block[0][1], block[-1][2]
            values = [source.values(start, end) for source in sources]
            for mine, found in zip(gathered, values, strict=True):
                mine.add(found, block, seconds)
            for pair, other in zip(pairs, values[1:], strict=True):
                pair.add(values[0], other)
            bar.update(end - start)
    return [each.surveyed() for each in gathered], [pair.correlations() for pair in pairs]


Segment = tuple[int, int, int]
"""A clip, and the first row and the one behind the last of one of its streams."""


def _segments(table: Any) -> list[Segment]:
    """Runs of rows of one clip and stream that have seconds."""
    clip, stream = table["clip"].to_numpy(), table["stream"].cat.codes.to_numpy()
    timed = table["start"].notna().to_numpy()
    changes = (np.diff(clip) != 0) | (np.diff(stream) != 0) | (np.diff(timed) != 0)
    edges = np.concatenate([[0], np.flatnonzero(changes) + 1, [len(table)]])
    found = [
        (int(clip[start]), start, end)
        for start, end in pairwise(edges.tolist())
        if end > start and timed[start]
    ]
    if not found:
        raise PalscopeError("no row has seconds: units of text cannot be heard.")
    return found


def _blocks(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    """Segments side by side, so many that they have about `AT_ONCE` rows."""
    block: list[Segment] = []
    for segment in segments:
        if block and (block[-1][2] != segment[1] or segment[2] - block[0][1] > AT_ONCE):
            yield block
            block = []
        block.append(segment)
    yield block


class _Gathered:
    """What is known so far of one source's units."""

    def __init__(self, source: UnitSource) -> None:
        self.edges = source.edges
        self.counts: Any = 0
        self.rows = 0
        self.peaks: list[list[np.ndarray]] = []
        self.units = 0
        self.sums: Any = 0.0
        self.alike = _Products() if source.made.get("kind") == "heads" else None

    def add(
        self, values: Float[np.ndarray, "rows units"], block: Sequence[Segment], seconds: np.ndarray
    ) -> None:
        """More rows."""
        self.units = values.shape[1]
        row, unit = np.nonzero(values > 0)
        self.counts += _counted(values[row, unit], unit, self.units, self.edges)
        self.rows += len(values)
        self.sums += values.sum(0, dtype=np.float64)
        if self.alike is not None:
            self.alike.add(values, values)
        base = block[0][1]
        for clip, start, end in block:
            found = peaks_of(values[start - base : end - base])
            unit, value, first, last = found
            where = np.full(len(unit), clip, dtype=np.int32)
            self.peaks.append(
                [unit, where, value, seconds[start + first, 0], seconds[start + last, 1]]
            )

    def surveyed(self) -> Survey:
        """All of it, by unit."""
        unit, clip, value, start, end = (
            np.concatenate(each) for each in zip(*self.peaks, strict=True)
        )
        # A clip has several streams: the larger peak stands.
        order = np.lexsort((-value, clip, unit))
        same = (np.diff(unit[order]) == 0) & (np.diff(clip[order]) == 0)
        kept = order[np.concatenate([[True], ~same])[: len(order)]]
        kept = kept[np.lexsort((clip[kept], -value[kept], unit[kept]))]
        first = np.searchsorted(unit[kept], np.arange(self.units + 1))
        return Survey(
            self.counts,
            self.rows,
            first,
            clip[kept],
            value[kept],
            start[kept],
            end[kept],
            self.sums,
            None if self.alike is None else self.alike.correlations(),
        )


def peaks_of(
    values: Float[np.ndarray, "tokens units"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Units that fire, their largest value, and first and last token at half of it around it."""
    most = values.max(0)
    unit = np.flatnonzero(most > 0)
    mine, most = values[:, unit], most[unit]
    at = mine.argmax(0)
    token = np.arange(len(values))[:, None]
    low = mine < most / 2
    first = np.where(low & (token < at), token, -1).max(0) + 1
    last = np.where(low & (token > at), token, len(values)).min(0) - 1
    return unit.astype(np.int32), most, first, last


def _counted(
    values: np.ndarray, unit: np.ndarray, units: int, edges: np.ndarray
) -> Int[np.ndarray, "units bins"]:
    found = np.bincount(unit * BINS + bin_of(values, edges), minlength=units * BINS)
    return found.reshape(units, BINS)


class _Products:
    """Sums that two sources' correlations are made of."""

    def __init__(self) -> None:
        self.rows = 0
        self.product: Any = 0.0
        self.sums: Any = [0.0, 0.0]
        self.squares: Any = [0.0, 0.0]

    def add(
        self, mine: Float[np.ndarray, "rows units"], other: Float[np.ndarray, "rows others"]
    ) -> None:
        """More rows."""
        self.rows += len(mine)
        self.product += _product(mine, other)
        for side, values in enumerate((mine, other)):
            self.sums[side] += values.sum(0, dtype=np.float64)
            self.squares[side] += np.einsum("ru,ru->u", values, values).astype(np.float64)

    def correlations(self) -> Float[np.ndarray, "units others"]:
        """Pearson's, of each pair."""
        mean, other = (total / self.rows for total in self.sums)
        spreads = [
            np.sqrt(np.maximum(square / self.rows - each**2, 0))
            for square, each in zip(self.squares, (mean, other), strict=True)
        ]
        for spread, square in zip(spreads, self.squares, strict=True):
            spread[spread**2 <= 1e-9 * square / self.rows] = np.nan
        covariance = self.product / self.rows - np.outer(mean, other)
        return (covariance / np.outer(*spreads)).astype(np.float32)


def _product(mine: np.ndarray, other: np.ndarray) -> np.ndarray:
    sides: list[Any] = [
        each if np.count_nonzero(each) > _DENSE * each.size else sparse.csr_array(each)
        for each in (mine, other)
    ]
    found = sides[0].T @ sides[1]
    return found.toarray() if sparse.issparse(found) else np.asarray(found)
