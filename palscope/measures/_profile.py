"""Where a model listens, on axes that models share: seconds of the clip, and relative depth.

Models differ in layers and in seconds a token; shares of depth and stretches of time do not. Two
views, because they answer different questions: attention mass says where the token that predicts
the answer looks, knockout (Geva et al. 2023, arXiv 2304.14767) what the answer needs from there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from palscope._hooks import HookedAudioModel
from palscope._statistics import mean_band
from palscope.audio._timegrid import rounded
from palscope.errors import PalscopeError
from palscope.interventions import Sound
from palscope.interventions._cells import with_encoded
from palscope.measures._attention_mass import attention_mass, by_pathway, over_time
from palscope.measures._columns import NO_SOUND
from palscope.measures._grids import stretch_names
from palscope.measures._knockout import (
    and_fillers,
    attention_knockout,
    sliding_windows,
    text_to_audio,
)
from palscope.measures._metrics import Answers

MASS, KNOCKOUT = "attention mass", "knockout"
DEPTH, SECONDS = "depth", "seconds"

_VIEWS = [(measure, axis) for measure in (MASS, KNOCKOUT) for axis in (DEPTH, SECONDS)]

WINDOW = 0.2
"""Share of the layers that a knockout's window cuts; windows are half as far apart."""


def attention_profile(
    model: HookedAudioModel, inputs: Mapping[str, Any], *, seconds: float, step: float
) -> pd.DataFrame:
    """Attention mass and knockout of one clip, by relative depth and by seconds.

    The query of the mass is the prompt's last token. The knockout cuts all text off from sound; its
    effect is the KL divergence (nats) of the next token's distribution from that without cuts. Over
    depth, windows of a fifth of the layers are cut; over time, a stretch in all layers.

    Args:
        inputs: one prompt with one clip, under the model's current route.
        seconds: of the clip.
        step: seconds of a stretch; the last takes what is left, up to half a step more.

    Returns:
        `measure, axis, start, end, value`; `start` and `end` are seconds, or shares of depth from 0
        (below the first layer) to 1. Mass by depth is the share of a layer's attention that goes to
        sound; by seconds, that share a second, averaged over all layers.

    Raises:
        PalscopeError: the batch has several rows or clips, or no layer lets text read sound.
    """
    if len(model.layout(inputs).clip_row) != 1 or inputs["input_ids"].shape[0] != 1:
        raise PalscopeError("a profile is of one prompt with one clip; measure clips one by one.")
    inputs = with_encoded(model, inputs)
    edges = _stretches(seconds, step)
    names = stretch_names([*(start for start, _ in edges), seconds])
    stretches = {name: Sound(*edge) for name, edge in zip(names, edges, strict=True)}
    rows = [
        *_mass_by_depth(table := attention_mass(model, inputs), model.current_route.n_layers),
        *_mass_by_seconds(table, edges),
        *_knockout(model, inputs, stretches, edges),
    ]
    return pd.DataFrame(rows, columns=["measure", "axis", "start", "end", "value"])


def profile_bands(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Means of profiles over clips, with their intervals, on the same axes.

    Args:
        tables: `attention_profile` of each clip, of one model and one step.

    Returns:
        `measure, axis, start, end, n, mean, low, high, values` (`mean_band`). Where clips' last
        stretches differ, `end` is the longest's.
    """
    parts: list[Any] = []
    places = ["measure", "axis", "start"]
    for measure, axis in _VIEWS:
        rows = [_view(table, measure, axis) for table in tables]
        highest = 1.0 if (measure, axis) == (MASS, DEPTH) else None
        band: Any = mean_band(rows, places, value="value", limits=(0, highest))
        every: Any = pd.concat(rows)
        ends = every.groupby(places)["end"].max().reset_index()
        parts.append(ends.merge(band, on=places))
    return pd.concat(parts, ignore_index=True)


def _view(table: Any, measure: str, axis: str) -> pd.DataFrame:
    return table[(table["measure"] == measure) & (table["axis"] == axis)]


def _stretches(seconds: float, step: float) -> list[tuple[float, float]]:
    if not 0 < step < math.inf:
        raise PalscopeError(f"steps of {step:g} s; give a positive number of seconds.")
    count = max(1, math.floor(seconds / step + 0.5))
    starts = [rounded(number * step) for number in range(count)]
    return list(zip(starts, [*starts[1:], seconds], strict=True))


_Row = tuple[str, str, float, float, float]


def _mass_by_depth(table: pd.DataFrame, n_layers: int) -> list[_Row]:
    sums: Any = by_pathway(table)
    mass = sums[~sums["pathway"].isin(NO_SOUND)]
    sound = mass.groupby(["layer", "head"])["mass"].sum(min_count=1)
    layers = sound.groupby("layer").mean()
    return [
        (MASS, DEPTH, layer / n_layers, (layer + 1) / n_layers, float(value))
        for layer, value in layers.items()
    ]


def _mass_by_seconds(table: pd.DataFrame, edges: list[tuple[float, float]]) -> list[_Row]:
    tokens: Any = over_time(table)
    spans = tokens[["start_s", "end_s"]].to_numpy()
    mass = tokens["mass"].to_numpy()
    return [
        (MASS, SECONDS, start, end, float(mass @ _shares(spans, start, end)) / (end - start))
        for start, end in edges
    ]


def _shares(
    spans: Float[np.ndarray, "tokens 2"], start: float, end: float
) -> Float[np.ndarray, " tokens"]:
    """How much of each token's time lies within a stretch."""
    within = np.minimum(spans[:, 1], end) - np.maximum(spans[:, 0], start)
    return within.clip(min=0) / np.maximum(spans[:, 1] - spans[:, 0], 1e-9)


def _knockout(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    stretches: Mapping[str, Sound],
    edges: list[tuple[float, float]],
) -> list[_Row]:
    layers = model.current_route.n_layers
    width = max(1, round(WINDOW * layers))
    windows = sliding_windows(layers, width, max(1, width // 2))
    answers = Answers((), _next_token(model, inputs), None)
    layout = model.layout(inputs)
    whole = and_fillers(text_to_audio(model.current_route, readers=["text"])[-1:], layout)
    by_depth: Any = attention_knockout(model, inputs, whole, windows, answers=answers)
    rows: list[_Row] = [
        (KNOCKOUT, DEPTH, first / layers, (last + 1) / layers, float(kl))
        for first, last, kl in by_depth[by_depth["run"] == "cut"][
            ["first_layer", "last_layer", "kl"]
        ].itertuples(index=False)
    ]
    parts = text_to_audio(model.current_route, readers=["text"], segments=stretches)
    # Of all streams together, where there are several.
    parts = and_fillers(parts[-len(stretches) :], layout)
    by_time: Any = attention_knockout(model, inputs, parts, [range(layers)], answers=answers)
    effects = by_time[by_time["run"] == "cut"]["kl"]
    return rows + [
        (KNOCKOUT, SECONDS, start, end, float(kl))
        for (start, end), kl in zip(edges, effects, strict=True)
    ]


def _next_token(model: HookedAudioModel, inputs: Mapping[str, Any]) -> int:
    with torch.no_grad():
        return int(model(dict(inputs), logits_to_keep=1)[0, -1].argmax())
