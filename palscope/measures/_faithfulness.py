"""Whether attributions may be believed: against exact patching, and by deletion and insertion.

Deletion takes away the sound that an attribution calls most important, piece after piece, and the
answer should soon be lost; insertion brings it into an empty clip, and the answer should soon be
there (Petsiuk et al. 2018, arXiv 1806.07421). Both are done to the waveform, so that no spread
inside the encoder brings back what was taken away.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy import integrate, stats
from torch import Tensor

from palscope._hooks import HookedAudioModel
from palscope._statistics import correlation_interval, interval_columns, mean_row
from palscope._statistics.correlation import PairedCells, all_cells
from palscope._statistics.tables import banded
from palscope.audio import Waveform
from palscope.errors import PalscopeError
from palscope.interventions import Sound, edit_waveform
from palscope.measures._attribution import attribution_at
from palscope.measures._metrics import Answers, answer_metrics
from palscope.measures._patching import GridCell

Curve = Literal["deletion", "insertion"]
CURVES: tuple[Curve, ...] = ("deletion", "insertion")

_FEWEST = 3
"""Points that a correlation needs."""


# -- against exact patching -----------------------------------------------------------------------


def beside_patching(
    patching: pd.DataFrame,
    attributions: pd.DataFrame,
    cells: Sequence[GridCell],
    *,
    only: Sequence[GridCell] | None = None,
    metric: str = "logit_diff",
) -> pd.DataFrame:
    """Each cell's effect by exact patching, and what an attribution says of it.

    Args:
        patching: of `activation_patching` for one pair and `cells`.
        attributions: of one method, for the same pair, metric and direction.
        cells: in the order in which they were patched.
        only: those of them to list (all by default): sound alone.
        metric: column of `patching`.

    Returns:
        `LABELS…, effect, attribution`, one row a cell, in nats: the metric with the cell patched
        less that of the unpatched run, and the sum of the cell's attributions.

    Raises:
        PalscopeError: a cell was not patched, or has no attribution.
    """
    whole: Any = patching
    patched = whole[whole["run"] == "patch"]
    if len(patched) != len(cells):
        raise PalscopeError(f"{len(patched)} cells were patched, but {len(cells)} are given.")
    target = float(whole.loc[whole["run"] == "target", metric].iloc[0])
    effects = dict(zip(map(id, cells), patched[metric] - target, strict=True))
    rows = [
        {
            **cell.labels,
            "effect": effects[id(cell)],
            "attribution": attribution_at(attributions, *cell.addresses),
        }
        for cell in (cells if only is None else only)
    ]
    return pd.DataFrame(rows)


def agreement(
    cells: pd.DataFrame,
    by: Sequence[str] = (),
    *,
    pair: str = "pair",
    confidence: float = 0.95,
) -> pd.DataFrame:
    """How well attributions agree with exact patching, over all cells and within each pair.

    Args:
        cells: of `beside_patching` for several pairs, with the pair's name in column `pair`.
        by: columns to keep apart, such as the method or the layer.

    Returns:
        One row a group: `by…, cells, pairs`; `pearson` and `spearman` over all its cells;
        `spearman_low` and `spearman_high`, of a jackknife over pairs, or of too few pairs
        `spearman_values`, the correlations within each (Pearson's is ruled by its largest cells,
        and no interval of it held); `pearson_pair` and `spearman_pair`, the median over pairs of
        the correlation within one, where something varies; `slope`, the factor by which effects
        exceed attributions (least squares through zero); `sign`, the share of the summed size of
        effects that attributions give the right sign; and `size`, the mean size of effects, in
        nats: where it is next to nothing, so is what a correlation says. NaN where there are fewer
        than three cells, or nothing varies.
    """
    rows: list[dict[str, Any]] = []
    whole: Any = cells
    groups = whole.groupby(list(by), sort=False, dropna=False) if by else [((), whole)]
    for names, group in groups:
        parts: list[PairedCells] = [
            (each["attribution"].to_numpy(), each["effect"].to_numpy())
            for _, each in group.groupby(pair, sort=False)
        ]
        row: dict[str, Any] = dict(zip(by, cast(Any, names), strict=True))
        row |= {"cells": len(group), "pairs": len(parts)}
        for name, correlate in (("pearson", _pearson), ("spearman", _spearman)):
            within = np.array([correlate(*part) for part in parts])
            within = within[~np.isnan(within)]
            row[name] = correlate(*all_cells(parts))
            if correlate is _spearman:
                interval = correlation_interval(correlate, parts, confidence=confidence)
                row |= interval_columns(interval, within, name)
            row[f"{name}_pair"] = float(np.median(within)) if len(within) else float("nan")
        rows.append(row | _scale(*all_cells(parts)))
    return pd.DataFrame(rows)


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    if len(x) < _FEWEST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    return _pearson(stats.rankdata(x), stats.rankdata(y))


def _scale(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    size, total = float((x**2).sum()), float(np.abs(y).sum())
    right = float(np.abs(y)[np.sign(x) == np.sign(y)].sum())
    return {
        "slope": float((x * y).sum()) / size if size else float("nan"),
        "sign": right / total if total else float("nan"),
        "size": float(np.abs(y).mean()),
    }


# -- deletion and insertion -----------------------------------------------------------------------


def equal_windows(seconds: float, count: int) -> list[Sound]:
    """`count` windows of equal length that make up a clip of `seconds`."""
    edges = np.linspace(0.0, seconds, count + 1).tolist()
    return [Sound(a, b) for a, b in itertools.pairwise(edges)]


def by_window(
    table: pd.DataFrame, windows: Sequence[Sound], *, value: str = "attribution"
) -> Float[np.ndarray, " windows"]:
    """`value` of the sound in each window, summed over all else.

    A token that several windows share gives to each in proportion to the seconds that it has there.

    Args:
        table: with `start_s` and `end_s`, in seconds: attributions of one method and site, or
            `over_time` of attention mass. Text, which has no seconds, is left out.
        windows: seconds; streams and clips are not told apart.
    """
    sound: Any = table.dropna(subset=["start_s", "end_s"])
    start, end = sound["start_s"].to_numpy()[:, None], sound["end_s"].to_numpy()[:, None]
    first = np.array([window.start for window in windows])
    last = np.array([np.inf if window.end is None else window.end for window in windows])
    shared = (np.minimum(end, last) - np.maximum(start, first)).clip(min=0)
    return (sound[value].to_numpy()[:, None] * shared / (end - start)).sum(0)


@torch.no_grad()
def deletion_insertion(
    model: HookedAudioModel,
    question: str,
    clip: Waveform,
    baseline: Waveform,
    windows: Sequence[Sound],
    orders: Mapping[str, Sequence[int]],
    *,
    answers: Answers,
    batch_size: int = 16,
) -> pd.DataFrame:
    """The answer while windows of a clip are deleted, or inserted, one after the other.

    Deletion starts from the clip and replaces its windows by the baseline's; insertion starts from
    the baseline and puts the clip's windows in. Sound is replaced in the waveform, and the whole
    clip is encoded anew.

    Args:
        question: what the model is asked.
        clip: at the model's sample rate.
        baseline: a clip of the same length: silence, or the corrupt one.
        windows: seconds; every window in its turn.
        orders: by name, the windows' numbers, the most important first.
        answers: whose deciding token is measured.

    Returns:
        `order, curve, step, share, logit_diff, logprob`: `curve` is "deletion" or "insertion";
        `step` windows, a `share` of all, have been replaced; metrics in nats, as in
        `answer_metrics`.

    Raises:
        PalscopeError: an order is no permutation of the windows.
        AudioError: clip and baseline differ in length or rate.
    """
    for name, order in orders.items():
        if sorted(order) != list(range(len(windows))):
            raise PalscopeError(f"order {name!r} is no permutation of {len(windows)} windows.")
    sets = {
        (name, curve, step): frozenset(order[:step])
        for name, order in orders.items()
        for curve in CURVES
        for step in range(len(windows) + 1)
    }
    every = frozenset(range(len(windows)))
    kept = {key: every - gone if key[1] == "deletion" else gone for key, gone in sets.items()}
    mixes = list(dict.fromkeys(kept.values()))
    sounds = [_mixed(clip, baseline, [windows[i] for i in sorted(mix)]) for mix in mixes]
    logits = _logits(model, question, sounds, answers, batch_size)
    measured = answer_metrics(logits, answers, logits[mixes.index(every)])
    rows = [
        {"order": name, "curve": curve, "step": step, "share": step / len(windows), "mix": mix}
        for (name, curve, step), mix in kept.items()
    ]
    table: Any = pd.DataFrame(rows)
    at = table.pop("mix").map({mix: number for number, mix in enumerate(mixes)})
    found: Any = measured.loc[at, ["logit_diff", "logprob"]].reset_index(drop=True)
    table[found.columns.tolist()] = found
    return table


def areas(table: pd.DataFrame, *, metric: str = "logprob") -> pd.DataFrame:
    """Mean of each curve over the share of windows replaced: the area under it.

    Args:
        table: of `deletion_insertion`; with a column `pair` for several pairs.

    Returns:
        `[pair], order, curve, area`, in nats. A good order has a small area for deletion and a
        large one for insertion.
    """
    names = [name for name in ("pair", "order", "curve") if name in table]
    rows: list[dict[str, Any]] = []
    whole: Any = table
    for labels, group in whole.groupby(names, sort=False):
        ordered = group.sort_values("share")
        area: Any = integrate.trapezoid(ordered[metric].to_numpy(), ordered["share"].to_numpy())
        rows.append(dict(zip(names, labels, strict=True)) | {"area": float(area)})
    return pd.DataFrame(rows)


def against_chance(
    table: pd.DataFrame, *, chance: str = "random", confidence: float = 0.95
) -> pd.DataFrame:
    """How much better each order is than random ones, over pairs.

    Args:
        table: of `areas` for several pairs; orders whose names begin with `chance` are averaged.

    Returns:
        `order, curve, gain, low, high, values, n`: mean over `n` pairs of the area's difference
        from chance, in nats, counted so that more is better in both curves, with its interval over
        pairs (of too few pairs NaN, and `values` has each pair's).

    Raises:
        PalscopeError: no order is random.
    """
    whole: Any = table
    random = whole["order"].str.startswith(chance)
    if not random.any():
        raise PalscopeError(f"no order begins with {chance!r}; there is nothing to compare with.")
    by = ["pair", "curve"]
    level: Any = whole[random].groupby(by)["area"].mean().rename("level").reset_index()
    all_cells = whole[~random].merge(level, on=by)
    signs = all_cells["curve"].map({"deletion": -1.0, "insertion": 1.0})
    all_cells["gain"] = signs * (all_cells["area"] - all_cells["level"])
    rows: list[dict[str, Any]] = []
    for (order, curve), group in all_cells.groupby(["order", "curve"], sort=False):
        found = mean_row(group["gain"], "gain", confidence=confidence)
        rows.append({"order": order, "curve": curve, **found})
    return pd.DataFrame(rows)


def curve_bands(
    table: pd.DataFrame,
    *,
    metric: str = "logprob",
    chance: str = "random",
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Mean curves over pairs, with the interval of each point's mean.

    Args:
        table: of `deletion_insertion` for several pairs, named in a column `pair`; orders whose
            names begin with `chance` are averaged within each pair.

    Returns:
        `order, curve, share, n, mean, low, high, values`; of too few pairs `low` and `high` are
        NaN, and `values` has each pair's.
    """
    whole: Any = table.copy()
    whole["order"] = whole["order"].mask(whole["order"].str.startswith(chance), chance)
    by = ["order", "curve", "share"]
    each: Any = whole.groupby(["pair", *by], sort=False)[metric].mean().reset_index()
    order = pd.MultiIndex.from_frame(cast(Any, each[by].drop_duplicates()))
    wide = each.pivot(index=by, columns="pair", values=metric).reindex(order)
    values = cast(Any, wide.to_numpy(float))
    return pd.DataFrame(banded(values, confidence), index=order).reset_index()


def _mixed(clip: Waveform, baseline: Waveform, windows: Sequence[Sound]) -> Waveform:
    """The baseline with the clip's sound in `windows`."""
    mixed = baseline
    for window in windows:
        mixed = edit_waveform(mixed, window, clip)
    return mixed


def _logits(
    model: HookedAudioModel,
    question: str,
    sounds: Sequence[Waveform],
    answers: Answers,
    batch_size: int,
) -> Float[Tensor, "sounds vocabulary"]:
    found: list[Tensor] = []
    for first in range(0, len(sounds), batch_size):
        each = [
            answers.behind(model.inputs(question, sound))
            for sound in sounds[first : first + batch_size]
        ]
        batch = {name: torch.cat([inputs[name] for inputs in each]) for name in each[0]}
        found.append(model(batch, logits_to_keep=1)[:, -1].float().cpu())
    return torch.cat(found)
