"""Attention to a stretch of sound, addressed in seconds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from palscope._whole import whole_number
from palscope.audio._timegrid import TOUCH_S, overlaps
from palscope.errors import PalscopeError
from palscope.measures._columns import HEAD, NO_SOUND


def tokens_within(table: pd.DataFrame, start_s: float, end_s: float, clip: int = 0) -> pd.DataFrame:
    """The audio tokens of a clip that overlap a stretch of it, and the seconds that they cover.

    Tokens are not cut: a stretch that begins or ends inside one takes it whole.

    Args:
        table: from `attention_mass`.
        start_s: start of the stretch, in seconds from the clip's start.
        end_s: its end.
        clip: the clip's number in the prompt.

    Returns:
        `pathway, tokens, start_s, end_s`, one row a stream that is seen in the table.

    Raises:
        PalscopeError: no token of any stream overlaps the stretch, or it is empty, or the table
            holds several rows of a batch.
    """
    if table["row"].nunique() > 1:
        raise PalscopeError("the table holds several rows of a batch; choose one of them.")
    keys = _within(table, start_s, end_s, clip)[["pathway", "key", "start_s", "end_s"]]
    grouped: Any = keys.drop_duplicates().groupby("pathway", observed=True)
    return grouped.agg(
        tokens=("key", "size"), start_s=("start_s", "min"), end_s=("end_s", "max")
    ).reset_index()


def by_seconds(table: pd.DataFrame, start_s: float, end_s: float, clip: int = 0) -> pd.DataFrame:
    """Mass of the tokens that overlap a stretch of a clip: `row, query, layer, head, mass`.

    Sums over streams. Every head in the table has a row, NaN where its layer sees no such token.
    Arguments and errors are those of `tokens_within`, which says what was covered.
    """
    sums: Any = _within(table, start_s, end_s, clip).groupby(HEAD)["mass"].sum()
    heads: Any = table[HEAD].drop_duplicates()
    return heads.merge(sums.reset_index(), on=HEAD, how="left")


def mass_per_second(tokens: pd.DataFrame, edges: Float[np.ndarray, " edges"]) -> pd.DataFrame:
    """Share of attention a second in each bin of time, so that tokens of any length compare.

    A token's mass is spread evenly over its seconds. A bin that the clip fills by less than half
    has no value; of one that the clip's end cuts, the seconds that there are count.

    Args:
        tokens: from `over_time`, of one clip.
        edges: of the bins, in seconds from the clip's start, ascending.

    Returns:
        `pathway, start_s, end_s, mass`, a row a stream and bin; `mass` is a share of attention a
        second, NaN behind the clip's end.
    """
    starts, ends = edges[:-1], edges[1:]
    parts: list[pd.DataFrame] = []
    whole: Any = tokens
    for pathway, rows in whole.groupby("pathway", observed=True, sort=False):
        first, last = (rows[name].to_numpy()[:, None] for name in ("start_s", "end_s"))
        shared = (np.minimum(last, ends) - np.maximum(first, starts)).clip(min=0)
        mass = (rows["mass"].to_numpy()[:, None] * shared / (last - first)).sum(0)
        filled = shared.sum(0)
        enough = filled > (ends - starts) / 2 - TOUCH_S
        value = np.divide(mass, filled, out=np.full(len(mass), np.nan), where=enough)
        about = {"pathway": pathway, "start_s": starts, "end_s": ends, "mass": value}
        parts.append(pd.DataFrame(about))
    columns = ["pathway", "start_s", "end_s", "mass"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def _within(table: Any, start_s: float, end_s: float, clip: int) -> Any:
    clip = whole_number(clip, "clip", least=0)
    sound = table[~table["pathway"].isin(NO_SOUND) & (table["clip"] == clip)]
    found = sound[overlaps(sound["start_s"], sound["end_s"], start_s, end_s)]
    if not len(found):
        spans = (
            "no sound is seen in this table"
            if not len(sound)
            else (f"its tokens cover {sound['start_s'].min():.2f} to {sound['end_s'].max():.2f} s")
        )
        raise PalscopeError(
            f"no audio token of clip {clip} overlaps {start_s:.2f} to {end_s:.2f} s: {spans}."
        )
    return found
