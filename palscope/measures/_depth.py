"""At which depth a pathway is read: the layer where its attention mass peaks, and its centre.

Source: Figure 5 of the PAL paper (arXiv 2506.10423) shows mass by depth; the intervals are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from palscope._statistics import NO_INTERVAL, interval_columns, peak_interval, ratio_interval
from palscope.errors import PalscopeError
from palscope.measures._columns import NO_SOUND


def depth_of_mass(
    table: pd.DataFrame, by: Sequence[str] = (), *, item: str = "path", confidence: float = 0.95
) -> pd.DataFrame:
    """Where in depth each stream gets its attention, over clips.

    Args:
        table: `by_pathway` of many clips, with a column that names the clip; heads are averaged.
        by: columns to keep apart, such as the clips' domain.
        item: the column that names the clip.
        confidence: of the intervals over clips; of too few clips they are NaN.

    Returns:
        One row a (by…, pathway), text and fillers left out: `n` clips; `peak`, the layer with the
        greatest mean mass, with `peak_low`, `peak_high`; `peak_mass`, that mass (share of
        attention, mean over heads); `centre`, the mean layer weighted by mass, with `centre_low`,
        `centre_high`; and `mass`, the mean over all layers. Of too few clips for an interval
        (`palscope._statistics`) `peak_values` and `centre_values` have each clip's. A stream that
        is never seen has NaN for its layers.

    Raises:
        PalscopeError: the table has no stream, or a layer sees one in some clips only.
    """
    whole: Any = table
    sound = whole[~whole["pathway"].astype(str).isin(NO_SOUND)]
    if not len(sound):
        raise PalscopeError("no stream in the table: the depth of text alone says nothing.")
    groups = [*by, "pathway"]
    rows: list[dict[str, Any]] = []
    for names, group in sound.groupby(groups, observed=True, sort=False):
        wide: Any = group.pivot_table(index=item, columns="layer", values="mass", aggfunc="mean")
        masses, layers = wide.to_numpy(), wide.columns.to_numpy()
        about = dict(zip(groups, names, strict=True)) | {"n": len(masses)}
        rows.append(about | _depth(masses, layers, confidence))
    return pd.DataFrame(rows)


def _depth(
    masses: Float[np.ndarray, "clips layers"], layers: Int[np.ndarray, " layers"], confidence: float
) -> dict[str, Any]:
    unseen = np.isnan(masses)
    if (unseen.any(0) != unseen.all(0)).any():
        raise PalscopeError(
            "a layer sees the stream in some clips and not in others; give clips that were "
            "measured under one route."
        )
    masses = np.where(unseen, 0.0, masses)  # no weight, and no peak
    mean = masses.mean(0)
    out: dict[str, Any] = {"peak": np.nan, "centre": np.nan}
    peak = centre = NO_INTERVAL
    peaks, centres = np.array([]), np.array([])
    if mean.any():
        out = {"peak": float(layers[mean.argmax()]), "centre": float(mean @ layers / mean.sum())}
        weighted, weight = masses @ layers, masses.sum(-1)
        peak = peak_interval(masses, layers, confidence=confidence)
        centre = ratio_interval(weighted, weight, confidence=confidence)
        read = weight > 0
        peaks, centres = layers[masses[read].argmax(-1)], weighted[read] / weight[read]
    out |= interval_columns(peak, peaks, "peak") | interval_columns(centre, centres, "centre")
    return out | {"peak_mass": float(mean.max()), "mass": float(mean.mean())}
