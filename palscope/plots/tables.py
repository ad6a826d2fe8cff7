"""From a measure's table to what a figure draws; both kinds of figures draw the same."""

from __future__ import annotations

from typing import Any

import pandas as pd  # pyright: ignore[reportMissingTypeStubs]

from palscope.measures import by_pathway, mean_band, over_time


def layer_means(table: pd.DataFrame) -> pd.DataFrame:
    """`layer, pathway, n, mean, low, high` of a table by layer and pathway.

    Takes what `attention_mass` or `by_pathway` gives, or a `mean_band` by layer and pathway.
    """
    return _banded(_summed(table), ["layer", "pathway"])


def layer_head_means(table: pd.DataFrame, pathway: str) -> pd.DataFrame:
    """One pathway's mean mass: a row a layer, a column a head.

    Takes what `attention_mass` or `by_pathway` gives, or a `mean_band` by layer, head and pathway.

    Raises:
        ValueError: the table has no such pathway.
    """
    means: Any = _banded(_summed(table), ["layer", "head", "pathway"])
    mine = means[means["pathway"] == pathway]
    if not len(mine):
        known = ", ".join(map(str, means["pathway"].unique()))
        raise ValueError(f"no pathway {pathway!r} in the table; it has: {known}.")
    return mine.pivot(index="layer", columns="head", values="mean")


def time_means(table: pd.DataFrame, clip: int | None = None) -> pd.DataFrame:
    """`pathway, start_s, end_s, n, mean, low, high`: mass of each slice of time.

    Takes what `attention_mass` or `over_time` gives, or a `mean_band` by pathway, start and end.
    `clip` picks one of the prompt's clips.
    """
    sliced: Any = over_time(table) if "key" in table else table
    if clip is not None and "clip" in sliced:
        sliced = sliced[sliced["clip"] == clip]
    return _banded(sliced, ["pathway", "start_s", "end_s"])


def _summed(table: pd.DataFrame) -> pd.DataFrame:
    return by_pathway(table) if "key" in table else table


def _banded(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    return table if "mean" in table else mean_band([table], by)
