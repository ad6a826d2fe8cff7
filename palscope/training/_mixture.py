"""Rows as training examples, drawn by index: the same on any number of workers and processes."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int
from torch.utils.data import Dataset

from palscope.datasets._decoded import WaveformCache
from palscope.datasets._examples import Example
from palscope.errors import DataError


class QuestionRows(Dataset[Example]):
    """`size` examples of `table`, chosen by the shares of `mix`.

    Each kind of rows is gone through in random order, then again in another, so that no row of it
    is heard twice before all were heard once.

    Args:
        table: rows (`palscope.training._rows`).
        waveforms: of the rows' files.
        size: number of examples.
        mix: share of each pattern of `domain/task`; a row is of the first that it fits. Empty: all
            rows alike.
        seed: of the draws.

    Raises:
        DataError: a pattern fits no row.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        waveforms: WaveformCache,
        *,
        size: int,
        mix: Mapping[str, float],
        seed: int = 0,
    ) -> None:
        self.table: Any = table
        self.waveforms = waveforms
        kinds = pools(table, mix)
        self.rows = drawn(list(kinds.values()), list(mix.values()) or [1.0], size, seed)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        row = self.table.iloc[int(self.rows[index])]
        return row_example(row, np.array(self.waveforms[str(row["audio"])]))

    def seconds(self, index: int) -> float:
        """Duration of an example's sound, without reading it."""
        return self.waveforms.seconds(str(self.table["audio"].iloc[int(self.rows[index])]))


def row_example(row: Any, samples: np.ndarray) -> Example:
    """The question of a row (a series, or a mapping) about these samples (mono, 16 kHz)."""
    return Example(
        waveforms=[samples],
        question=str(row["question"]),
        answer=str(row["answer"]),
        kind=f"{row['domain']}/{row['task']}",
        choices=[],
        spans=[],
    )


def pattern_of(domain: str, task: str, mix: Mapping[str, float]) -> str | None:
    """The first pattern that `domain/task` fits; None when there is none."""
    return next((each for each in mix if fnmatchcase(f"{domain}/{task}", each)), None)


def pools(table: pd.DataFrame, mix: Mapping[str, float]) -> dict[str, Int[np.ndarray, " _rows"]]:
    """The places of the rows of each pattern.

    Raises:
        DataError: a pattern fits no row.
    """
    if not mix:
        return {"*": np.arange(len(table))}
    columns: Any = table
    pairs: list[Any] = list(zip(columns["domain"], columns["task"], strict=True))
    pattern = {(domain, task): pattern_of(domain, task, mix) for domain, task in set(pairs)}
    of_row = np.array([pattern[pair] for pair in pairs])
    found = {each: np.flatnonzero(of_row == each) for each in mix}
    empty = [each for each, rows in found.items() if not len(rows)]
    if empty:
        there = sorted({f"{domain}/{task}" for domain, task in pattern})
        raise DataError(
            f"mix: no row is of {', '.join(map(repr, empty))} (or an earlier pattern takes them "
            f"all); the rows are of {', '.join(map(repr, there[:20]))}"
            f"{' …' if len(there) > 20 else ''}."
        )
    return found


def drawn(
    kinds: list[Int[np.ndarray, " _rows"]], shares: list[float], size: int, seed: int
) -> Int[np.ndarray, "size"]:
    """Which row each of `size` examples is."""
    rng = np.random.default_rng(seed)
    share = np.array(shares) / sum(shares)
    kind_of = rng.choice(len(kinds), size, p=share) if len(kinds) > 1 else np.zeros(size, int)
    rows = np.empty(size, dtype=np.int64)
    for kind, places in enumerate(kinds):
        at = np.flatnonzero(kind_of == kind)
        rounds = -(-len(at) // len(places))
        order = [np.random.default_rng([seed, kind, n]).permutation(places) for n in range(rounds)]
        rows[at] = np.concatenate(order)[: len(at)] if order else []
    return rows
