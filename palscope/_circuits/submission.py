"""Scores of edges that another method gave, from a file."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from palscope.errors import PalscopeError

COLUMNS = ("pair", "edge", "score")


def submitted(path: Path, pair: str, n_edges: int) -> Float[np.ndarray, "edges"]:
    """A pair's scores in a submission, by the edges' numbers.

    Args:
        path: parquet with the columns `pair`, `edge` and `score`.
        pair: its name.
        n_edges: of its graph.

    Raises:
        PalscopeError: the file cannot be read, lacks the pair or a column, or does not score each
            edge of it once, by a finite number.
    """
    rows: Any = _read(path)
    mine = rows[rows["pair"] == pair]
    if not len(mine):
        known = ", ".join(map(str, rows["pair"].unique()[:5]))
        raise PalscopeError(f"{path} has no scores of {pair}; it has some of {known}.")
    edges = mine["edge"].to_numpy()
    if not np.array_equal(np.sort(edges), np.arange(n_edges)):
        raise PalscopeError(
            f"{path} scores {len(np.unique(edges))} different edges of {pair} in {len(mine)} rows; "
            f"its graph has {n_edges}, from 0 to {n_edges - 1}, and each needs one score."
        )
    found = np.empty(n_edges)
    found[edges] = mine["score"].to_numpy(dtype=np.float64)
    if not np.isfinite(found).all():
        edge = int(np.flatnonzero(~np.isfinite(found))[0])
        raise PalscopeError(f"{path} scores edge {edge} of {pair} as {found[edge]}.")
    return found


@lru_cache(maxsize=2)
def _read(path: Path) -> pd.DataFrame:
    try:
        rows = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise PalscopeError(f"{path} cannot be read as parquet: {error}") from error
    missing = [name for name in COLUMNS if name not in rows.columns]
    if missing:
        raise PalscopeError(
            f"{path} lacks the column {missing[0]!r}; a submission has {', '.join(COLUMNS)}."
        )
    return rows
