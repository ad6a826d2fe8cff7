"""An analysis is one object: its options, its items, what is measured of them, and its figures.

Two hosts run it, the command line (`palscope.analyses.main`) and the page; both store and draw what
the object says, so that they cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, Protocol, TypeVar

import pandas as pd
from typing_extensions import Self

from palscope._hooks import HookedAudioModel
from palscope._routing import Route
from palscope.plots._figure import Caption, Figure


class Item(Protocol):
    """What is measured by itself and stored by itself: `palscope.pairs.Pair`, `AskedClip`."""

    @property
    def name(self) -> str:
        """Names its rows; no two items of a run have the same."""
        ...

    @property
    def digest(self) -> str:
        """Of everything that its rows depend on."""
        ...


T = TypeVar("T")
OptionsT = TypeVar("OptionsT")
ItemT = TypeVar("ItemT", bound=Item)


@dataclass(frozen=True)
class Work(Generic[OptionsT]):
    """What a measure works with.

    Attributes:
        model: on the route that is asked about, unless the analysis `reroutes` it.
        route: the one that is asked about.
        options: of the analysis.
        rows: a table that was measured before this one, and an item's name: its rows.
        whole: a table that was measured before this one: the rows of all items that it has.
    """

    model: HookedAudioModel
    route: Route
    options: OptionsT
    rows: Callable[[str, str], pd.DataFrame]
    whole: Callable[[str], pd.DataFrame]


TOGETHER = "all"
"""Names the rows of a table that is `once` a run's."""

Measure = Callable[[Work[OptionsT], Sequence[ItemT]], Iterable[pd.DataFrame]]
"""The rows of each item, in their order."""


def each(measure: Callable[[Work[OptionsT], ItemT], pd.DataFrame]) -> Measure[OptionsT, ItemT]:
    """A measure of one item as a measure of several."""

    def measured(work: Work[OptionsT], items: Sequence[ItemT]) -> Iterator[pd.DataFrame]:
        return (measure(work, item) for item in items)

    return measured


@dataclass(frozen=True)
class Table(Generic[OptionsT, ItemT]):
    """One table that is measured.

    Attributes:
        name: of the file, without its ending.
        measure: gives every item's rows; what `palscope.errors.PalscopeError` it raises leaves the
            item out.
        keys: the columns that tell an item's rows apart, all that are no measurement.
        when: whether these options ask for it.
        shares_passes: whether items that are measured together share passes: `batch` of the options
            (`SharedPasses`) says how many. A row is the one that the item has alone, to rounding.
    """

    name: str
    measure: Measure[OptionsT, ItemT]
    keys: tuple[str, ...]
    when: Callable[[OptionsT], bool] = lambda options: True
    shares_passes: bool = False


@dataclass(frozen=True)
class Results(Generic[OptionsT, ItemT]):
    """What a host has measured, for summaries, figures and notes.

    Attributes:
        options: of the analysis.
        model: its name, as it was given.
        route: in one word; empty where it is the checkpoint's own.
        items: those that were measured.
        of: what they are, in the plural.
        stored: each table's rows by item.
        left_out: why an item could not be measured, by its name.
    """

    options: OptionsT
    model: str
    route: str
    items: Sequence[ItemT]
    of: str
    stored: Mapping[str, Mapping[str, Callable[[], pd.DataFrame]]]
    left_out: Mapping[str, str] = field(default_factory=dict)
    _derived: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def each(self, table: str) -> Iterator[tuple[str, pd.DataFrame]]:
        """Each item and its rows, read one at a time: the whole may not fit in memory."""
        for item in self.items:
            yield item.name, self.of_item(table, item.name)

    def rows(self, table: str) -> pd.DataFrame:
        """A whole table."""
        return pd.concat([rows for _, rows in self.each(table)], ignore_index=True)

    def of_item(self, table: str, name: str) -> pd.DataFrame:
        """One item's rows."""
        return self.stored[table][name]()

    def derived(self, make: Callable[[Self], T]) -> T:
        """What `make` makes of these results: made when it is first asked for, and kept.

        For summaries that notes and figures read again. Several read what is kept: do not change
        it.
        """
        if make not in self._derived:
            self._derived[make] = make(self)
        return self._derived[make]

    def caption(self, n: int | None = None, only: str = "") -> Caption:
        """What stands at every figure: the model and route, the question or pair, and n.

        Args:
            n: how many items are drawn; by default all.
            only: draws the pairs of this kind, or the clips of this domain, alone.
        """
        every: Sequence[Any] = self.items
        paired = hasattr(every[0], "kind")
        group = "kind" if paired else "group"
        items = [each for each in every if only in ("", getattr(each, group))]
        named = list(dict.fromkeys(each.name if paired else each.question for each in items))
        if paired and len(named) > 1:
            named = list(dict.fromkeys(each.kind for each in items))
        asked = f"“{named[0]}”" if len(named) == 1 else f"{len(named)} questions"
        if paired:
            asked = ("pair " if len(items) == 1 else "pairs: ") + ", ".join(named)
        model = " ".join(filter(None, (self.model, self.route)))
        return Caption(model, asked, len(items) if n is None else n, self.of)


def caption_of_models(every: Sequence[Results[Any, Any]]) -> Caption:
    """What stands at a figure of several models' results."""
    captions = [results.caption() for results in every]
    return replace(captions[0], model=", ".join(caption.model for caption in captions))


def _none(results: Any) -> Mapping[str, pd.DataFrame]:
    return {}


def _as_it_is(options: Any, item: ItemT) -> ItemT:
    return item


def _no_notes(results: Any) -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class Analysis(Generic[OptionsT, ItemT]):
    """One analysis.

    Attributes:
        name: of the command, and of its file.
        title: on the page.
        about: what it measures and how it is to be read, in a few sentences; for the page.
        passes: how many passes of one prompt (`palscope.analyses._passes`) an item takes, about;
            None where nobody knows. The page makes seconds of them.
        options: its dataclass, of `option` fields.
        items: what the options choose (`chosen_clips`, `chosen_pairs`).
        prepare: what options make of one item before it is measured.
        tables: what is measured, in this order; a later one may read an earlier one's rows.
        once: a table of all items at once, as of what is timed side by side; the command line
            alone measures it.
        figures: by the names of their files.
        summaries: small tables beside the figures, by the names of their CSV files.
        notes: lines that are printed, and stand under the figures on the page.
        item: what an item is, in captions and in what is printed.
        column: the name of every table's first column, which names the item; by default `item`.
        takes: what the page gives it: a pair, its clean clip, or both of its clips.
        on_page: other defaults on the page, where a person waits: options by name.
        reroutes: whether its measures set the model's route themselves; the page then leaves the
            model free between two routes.
        compare: figures of several models' results, by the names of their files; where it is left
            out, `--model` names one alone.
    """

    name: str
    title: str
    about: str
    options: type[OptionsT]
    items: Callable[[OptionsT], list[ItemT]]
    tables: Sequence[Table[OptionsT, ItemT]]
    figures: Callable[[Results[OptionsT, ItemT]], Mapping[str, Figure]]
    once: Table[OptionsT, ItemT] | None = None
    prepare: Callable[[OptionsT, ItemT], ItemT] = _as_it_is
    summaries: Callable[[Results[OptionsT, ItemT]], Mapping[str, pd.DataFrame]] = _none
    notes: Callable[[Results[OptionsT, ItemT]], Sequence[str]] = _no_notes
    passes: Callable[[Work[OptionsT], ItemT], float] | None = None
    item: Literal["clip", "pair"] = "clip"
    column: str = ""
    takes: Literal["pair", "clean", "both"] | None = "clean"
    on_page: Mapping[str, Any] = field(default_factory=dict)
    reroutes: bool = False
    compare: Callable[[Sequence[Results[OptionsT, ItemT]]], Mapping[str, Figure]] | None = None
