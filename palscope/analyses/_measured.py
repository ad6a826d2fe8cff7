"""What both hosts do alike: every table of an analysis, item by item, into a store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Protocol, TypeVar, cast

import pandas as pd

from palscope._hooks import HookedAudioModel
from palscope._routing import Route, route_to_text
from palscope._sweeps.store import SharedMeasure
from palscope.analyses._analysis import Analysis, Item, Results, Table, Work
from palscope.analyses._options import Options

T = TypeVar("T")
OptionsT = TypeVar("OptionsT", bound=Options)
ItemT = TypeVar("ItemT", bound=Item)


class TableRows(Protocol):
    """A table of a store: reads each item's rows; why the others were left out."""

    @property
    def rows(self) -> Mapping[str, Callable[[], pd.DataFrame]]: ...

    @property
    def left_out(self) -> Mapping[str, str]: ...


class Store(Protocol):
    """Where tables are kept: `palscope._sweeps.store.Run` a folder, `…memory.Memory` nowhere."""

    def over(
        self,
        items: Sequence[T],
        measure: Callable[[T], pd.DataFrame],
        *,
        table: str,
        key: Callable[[T], str],
        item: str = ...,
        keys: Sequence[str] = ...,
        content: Callable[[T], str | bytes] | None = ...,
        shared: SharedMeasure[T] | None = ...,
    ) -> TableRows: ...


def measured(
    analysis: Analysis[OptionsT, ItemT],
    name: str,
    options: OptionsT,
    model: HookedAudioModel,
    route: Route,
    items: Sequence[ItemT],
    store: Store,
) -> Results[OptionsT, ItemT]:
    """Every table of the items, from the store as far as it has them.

    The model is on the route while an item is measured, and free between two; the measures of an
    analysis that `reroutes` set theirs.

    Args:
        analysis: whose tables; not what is measured `once` a run.
        name: the model's, in figures.
        options: of the analysis.
        model: that is measured.
        route: the one that is asked about.
        items: those that are left out of a table are left out of the next ones, too.
        store: keeps the tables.

    Raises:
        PalscopeError: no item could be measured.
    """
    if not model.processor.takes_questions and getattr(options, "question", None) is None:
        asked = model.processor.any_question  # a transcriber is asked for the transcript
        items = [replace(cast(Any, item), question=asked) for item in items]
    stored: dict[str, Mapping[str, Callable[[], pd.DataFrame]]] = {}
    left_out: dict[str, str] = {}
    work = Work(
        model,
        route,
        options,
        rows=lambda table, name: stored[table][name](),
        whole=lambda table: pd.concat([rows() for rows in stored[table].values()]),
    )
    for table in analysis.tables:
        if not table.when(options):
            continue

        def several(
            group: Sequence[ItemT], table: Table[OptionsT, ItemT] = table
        ) -> list[pd.DataFrame]:
            with nullcontext() if analysis.reroutes else model.route(route):
                return list(table.measure(work, group))

        def measure(item: ItemT, several: Any = several) -> pd.DataFrame:
            (rows,) = several([item])
            return rows

        done = store.over(
            items,
            measure,
            table=table.name,
            key=lambda item: item.name,
            item=analysis.column or analysis.item,
            keys=table.keys,
            content=lambda item: item.digest,
            shared=_shared(several, options) if table.shares_passes else None,
        )
        stored[table.name] = done.rows
        left_out |= done.left_out
        items = [item for item in items if item.name in done.rows]
    told = "" if options.route is None else route_to_text(route)
    return Results(options, name, told, items, f"{analysis.item}s", stored, left_out)


def _shared(
    measure: Callable[[Sequence[ItemT]], list[pd.DataFrame]], options: Any
) -> SharedMeasure[ItemT]:
    """Clips of a domain are about as long as each other, and so are their questions."""
    return SharedMeasure(measure, options.batch, lambda item: cast(Any, item).group)
