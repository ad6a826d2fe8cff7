"""From a measure's table to what a figure draws; both kinds of figures draw the same."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
from jaxtyping import Float

from palscope.measures import by_pathway, mean_band, over_time


class Strips(NamedTuple):
    """A time course for every head: `values` `[layers, heads, slices + gap]`.

    `edges` are the slices' borders in seconds, one more than slices.
    """

    values: Float[np.ndarray, "layers heads slices_and_gap"]
    edges: Float[np.ndarray, " edges"]


def layer_means(table: pd.DataFrame) -> pd.DataFrame:
    """`layer, pathway, n, mean, low, high` of a table by layer and pathway.

    Takes what `attention_mass` or `by_pathway` gives, or a `mean_band` by layer and pathway.
    """
    return _banded(_summed(table), ["layer", "pathway"])


def layer_head_means(table: pd.DataFrame, pathway: str) -> pd.DataFrame:
    """One pathway's mean mass: a row a layer and head.

    Takes what `attention_mass` or `by_pathway` gives, or a `mean_band` by layer, head and pathway.
    It is NaN in layers that cannot see the pathway.

    Raises:
        ValueError: the table has no such pathway.
    """
    means: Any = _banded(_summed(table), ["layer", "head", "pathway"])
    mine = means[means["pathway"] == pathway]
    if not len(mine):
        known = ", ".join(map(str, means["pathway"].unique()))
        raise ValueError(f"no pathway {pathway!r} in the table; it has: {known}.")
    return mine


def layer_head_difference(table: pd.DataFrame, minus: pd.DataFrame, pathway: str) -> pd.DataFrame:
    """`layer_head_means` of `table` less those of `minus`: `difference`, in percentage points.

    NaN in layers that do not see the pathway in both: there is nothing to compare.
    """
    one: Any = layer_head_means(table, pathway)
    other: Any = layer_head_means(minus, pathway)
    both = one.merge(other, how="outer", on=["layer", "head"], suffixes=("", "_minus"))
    both["difference"] = 100 * (both["mean"] - both["mean_minus"])
    return both[["layer", "head", "difference", "n", "mean", "mean_minus"]]


def head_time_bins(table: pd.DataFrame, pathway: str, bins: int = 24) -> pd.DataFrame:
    """Mass that each head gives to equal slices of a clip: `layer, head, start_s, end_s, mass`.

    A token's mass is shared out over the slices that it overlaps, so that sums stay; there are no
    more slices than tokens. Layers that cannot see the pathway have no rows.

    Args:
        table: from `attention_mass`, for one row, query and clip.
        pathway: a stream.
        bins: how many slices at most.

    Raises:
        ValueError: the table holds several rows, queries or clips.
    """
    rows: Any = table
    rows = rows[rows["pathway"] == pathway]
    if any(rows[name].nunique() > 1 for name in ("row", "query", "clip")):
        raise ValueError("head_time_bins draws one row, query and clip; choose them first.")
    columns = ["layer", "head", "start_s", "end_s", "mass"]
    if not len(rows):
        return pd.DataFrame(columns=pd.Index(columns))
    wide = rows.pivot_table(index=["layer", "head"], columns=["start_s", "end_s"], values="mass")
    starts = wide.columns.get_level_values(0).to_numpy()
    ends = wide.columns.get_level_values(1).to_numpy()
    edges = cast(Any, np.linspace(0, ends.max(), min(bins, len(starts)) + 1))
    overlap = np.minimum(ends[:, None], edges[1:]) - np.maximum(starts[:, None], edges[:-1])
    share = np.clip(overlap, 0, None) / (ends - starts)[:, None]
    binned = wide.to_numpy() @ share
    at = wide.index.repeat(len(edges) - 1)
    return pd.DataFrame(
        {
            "layer": at.get_level_values(0),
            "head": at.get_level_values(1),
            "start_s": np.tile(edges[:-1], len(wide)),
            "end_s": np.tile(edges[1:], len(wide)),
            "mass": binned.reshape(-1),
        }
    )


def time_means(table: pd.DataFrame, clip: int | None = None) -> pd.DataFrame:
    """`pathway, start_s, end_s, n, mean, low, high`: mass of each slice of time.

    Takes what `attention_mass` or `over_time` gives of one prompt, or a `mean_band` by pathway,
    start and end. `clip` picks one of the prompt's clips.
    """
    sliced: Any = over_time(table) if "key" in table else table
    if clip is not None and "clip" in sliced:
        sliced = sliced[sliced["clip"] == clip]
    return _banded(sliced, ["pathway", "start_s", "end_s"])


def key_means(table: pd.DataFrame) -> pd.DataFrame:
    """`key, pathway, token, clip, start_s, end_s, mass`: mass of each key, in order of the prompt.

    Mean over the layers and heads in `table` (from `attention_mass`, for one row and query); a
    layer that cannot see a key counts as 0.

    Raises:
        ValueError: the table holds several rows or queries.
    """
    rows: Any = table
    if any(rows[name].nunique() > 1 for name in ("row", "query")):
        raise ValueError("key_means draws one row and query; choose them first.")
    heads = len(rows[["layer", "head"]].drop_duplicates())
    keys: Any = rows.groupby("key", sort=True).agg(
        pathway=("pathway", "first"),
        token=("token", "first"),
        clip=("clip", "first"),
        start_s=("start_s", "first"),
        end_s=("end_s", "first"),
        mass=("mass", "sum"),
    )
    keys["mass"] /= heads
    return keys.reset_index()


def _summed(table: pd.DataFrame) -> pd.DataFrame:
    return by_pathway(table) if "key" in table else table


def _banded(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    return table if "mean" in table else mean_band([table], by)


def head_strips(table: pd.DataFrame, pathway: str, gap: int = 2) -> Strips:
    """`head_time_bins` as a picture: layers upwards, the heads' slices side by side.

    Between two heads lie `gap` slices of nothing (NaN), as in layers that cannot see the pathway.
    """
    binned: Any = head_time_bins(table, pathway)
    whole: Any = table
    shape = int(whole["layer"].max()) + 1, int(whole["head"].max()) + 1
    slices = int(binned.groupby(["layer", "head"]).size().max()) if len(binned) else 1
    values = np.full((*shape, slices + gap), np.nan)
    edges = np.zeros(slices + 1)
    for (layer, head), strip in binned.groupby(["layer", "head"]):
        values[layer, head, :slices] = strip["mass"]
        edges = np.append(strip["start_s"], strip["end_s"].iloc[-1])
    return Strips(values, edges)
