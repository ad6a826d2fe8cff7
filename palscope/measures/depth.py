"""At which depth a pathway is read: the layer where its attention mass peaks, and its centre.

Source: Figure 5 of the PAL paper (arXiv 2506.10423) shows mass by depth; the intervals are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd  # pyright: ignore[reportMissingTypeStubs]
from jaxtyping import Float, Int

from palscope.errors import PalscopeError
from palscope.measures.attention_mass import TEXT_PATHWAY

RESAMPLES = 2000


def depth_of_mass(
    table: pd.DataFrame, by: Sequence[str] = (), *, item: str = "path", confidence: float = 0.95
) -> pd.DataFrame:
    """Where in depth each stream gets its attention, over clips.

    Args:
        table: `by_pathway` of many clips, with a column that names the clip; heads are averaged.
        by: columns to keep apart, such as the clips' domain.
        item: the column that names the clip.
        confidence: of the intervals: percentile bootstrap over clips, 2,000 resamples. With one
            clip alone they are NaN.

    Returns:
        One row a (by…, pathway), text left out: `n` clips; `peak`, the layer with the greatest mean
        mass, with `peak_low`, `peak_high`; `peak_mass`, that mass (share of attention, mean over
        heads); `centre`, the mean layer weighted by mass, with `centre_low`, `centre_high`; and
        `mass`, the mean over all layers. A stream that is never seen has NaN for its layers.

    Raises:
        PalscopeError: the table has no stream.
    """
    whole: Any = table
    sound = whole[whole["pathway"].astype(str) != TEXT_PATHWAY]
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
) -> dict[str, float]:
    mean = masses.mean(0)
    if not mean.any():
        places = ("peak", "peak_low", "peak_high", "centre", "centre_low", "centre_high")
        return dict.fromkeys(places, np.nan) | {"peak_mass": 0.0, "mass": 0.0}

    def statistics(means: Float[np.ndarray, "resamples layers"]) -> dict[str, Any]:
        return {"peak": layers[means.argmax(-1)], "centre": means @ layers / means.sum(-1)}

    n = len(masses)
    drawn = np.random.default_rng(0).integers(n, size=(RESAMPLES, n))
    resampled = statistics(masses[drawn].mean(1))
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    out: dict[str, float] = {}
    for name, value in statistics(mean[None]).items():
        low, high = np.quantile(resampled[name], tails) if n > 1 else (np.nan, np.nan)
        out |= {name: float(value[0]), f"{name}_low": float(low), f"{name}_high": float(high)}
    return out | {"peak_mass": float(mean.max()), "mass": float(mean.mean())}
