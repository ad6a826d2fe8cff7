"""Attention to a stretch of sound, addressed in seconds."""

from __future__ import annotations

from typing import Any

import pandas as pd  # pyright: ignore[reportMissingTypeStubs]

from palscope.audio.timegrid import overlaps
from palscope.errors import PalscopeError
from palscope.measures.columns import HEAD, TEXT_PATHWAY
from palscope.whole import whole_number


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

    Sums over streams. Every head in the table has a row, 0 where its layer sees no such token.
    Arguments and errors are those of `tokens_within`, which says what was covered.
    """
    sums: Any = _within(table, start_s, end_s, clip).groupby(HEAD)["mass"].sum()
    heads: Any = table[HEAD].drop_duplicates()
    return heads.merge(sums.reset_index(), on=HEAD, how="left").fillna({"mass": 0.0})


def _within(table: Any, start_s: float, end_s: float, clip: int) -> Any:
    clip = whole_number(clip, "clip", least=0)
    sound = table[(table["pathway"] != TEXT_PATHWAY) & (table["clip"] == clip)]
    found = sound[overlaps(sound["start_s"], sound["end_s"], start_s, end_s)]
    if not len(found):
        heard = (
            "no sound is seen in this table"
            if not len(sound)
            else (f"its tokens cover {sound['start_s'].min():.2f} to {sound['end_s'].max():.2f} s")
        )
        raise PalscopeError(
            f"no audio token of clip {clip} overlaps {start_s:.2f} to {end_s:.2f} s: {heard}."
        )
    return found
