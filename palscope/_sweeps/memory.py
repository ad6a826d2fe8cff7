"""A run that is kept in memory: `Run.over` for results that are looked at, and not stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pandas as pd

from palscope._sweeps.shards import named_rows
from palscope._sweeps.store import SharedMeasure, by_key, check_any
from palscope.errors import PalscopeError

T = TypeVar("T")


@dataclass(frozen=True)
class KeptTable:
    """A table in memory: each item's rows, as a copy of one's own, and why items are left out."""

    rows: dict[str, Callable[[], pd.DataFrame]]
    left_out: dict[str, str]


class Memory:
    """Measures as a `Run` does, in one process, silently, and keeps what it measures.

    Asked again, it goes on where an exception that is no `PalscopeError` ended it. Random numbers
    are not seeded: they are the process's, and other threads draw them too.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], pd.DataFrame] = {}

    def __len__(self) -> int:
        """How many items' rows are kept, over all tables."""
        return len(self._kept)

    def __contains__(self, part: tuple[str, str]) -> bool:
        """Whether it keeps the rows of a table and an item, both by name."""
        return part in self._kept

    def over(
        self,
        items: Sequence[T],
        measure: Callable[[T], pd.DataFrame],
        *,
        table: str,
        key: Callable[[T], str],
        item: str = "pair",
        keys: Sequence[str] = (),
        content: Callable[[T], str | bytes] | None = None,
        shared: SharedMeasure[T] | None = None,
    ) -> KeptTable:
        """`Run.over`, whose arguments these are; it raises the same, and measures one by one."""
        del shared
        named, _ = by_key(items, table, key, content)
        rows: dict[str, Callable[[], pd.DataFrame]] = {}
        left_out: dict[str, str] = {}
        for name, each in named.items():
            if (table, name) not in self._kept:
                try:
                    measured = named_rows(measure(each), name, item, keys)
                    self._kept[table, name] = measured.reset_index(drop=True)
                except PalscopeError as error:
                    left_out[name] = str(error)
                    continue
            rows[name] = self._kept[table, name].copy
        check_any(table, rows, left_out)
        return KeptTable(rows, left_out)
