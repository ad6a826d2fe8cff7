"""Attention mass of sets of keys: of pathways, clips, seconds, or any columns one names.

The mass of a set is exp(logsumexp of its scores − logsumexp of all scores): the sum of a pattern's
row over the set. Only these sums are kept, so the masses of all text over an hour of sound are a
small table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from palscope._hooks import HookedAudioModel
from palscope._routing import TokenLayout
from palscope._whole import whole_number
from palscope.audio._timegrid import overlaps
from palscope.errors import PalscopeError
from palscope.measures._attention_rows import (
    AttentionRows,
    asked_columns,
    check_sums,
    read_attention_rows,
    sum_tolerance,
)
from palscope.measures._columns import HEAD, Queries, head_columns

KeySet = Bool[Tensor, "batch columns"]
"""Which columns of `input_ids` belong to a set, in each row of the batch."""


def pathway_mass(
    model: HookedAudioModel, inputs: Mapping[str, Any], *, queries: Queries = (-1,)
) -> pd.DataFrame:
    """Attention of chosen query tokens to text and to each stream: `by_pathway`, at once.

    Arguments and errors are those of `attention_mass`.

    Returns:
        `row, query, layer, head, pathway, mass`: a row a (row, query, layer, head, pathway). Every
        pathway has a row in every layer in which the query runs, NaN where the layer cannot see it.
    """
    layout = model.layout(inputs)
    table = _set_mass(model, inputs, layout, pathway_sets(layout), queries)
    return table.rename(columns={"set": "pathway"})


def set_mass(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    sets: Mapping[str, KeySet],
    *,
    queries: Queries = (-1,),
) -> pd.DataFrame:
    """Attention of chosen query tokens to each of some sets of keys.

    Args:
        sets: by name, from `pathway_sets`, `clip_sets`, `seconds_set`, or made of what the layout
            says of its columns: `{"beginning": layout.token < 5}`. They may overlap.
        inputs: as in `attention_mass`.
        queries: as in `attention_mass`.

    Returns:
        `row, query, layer, head, set, mass`: a row a (row, query, layer, head, set), in layers in
        which the query runs. `set` is a categorical; `mass` is NaN where the layer sees none of it.
        Of an encoder–decoder a layer's words sum to 1, and what it crosses does.

    Raises:
        PromptError: as `attention_mass`.
        PalscopeError: as `attention_mass`, or a set has another shape than `input_ids`.
    """
    layout = model.layout(inputs)
    _check_sets(sets, layout)
    return _set_mass(model, inputs, layout, sets, queries)


def pathway_sets(layout: TokenLayout) -> dict[str, KeySet]:
    """The keys of each pathway: "text", "filler" where there are any, the checkpoint's streams."""
    return {name: layout.stream == kind for name, kind in layout.pathways.items()}


def clip_sets(layout: TokenLayout) -> dict[str, KeySet]:
    """The keys of each clip, all streams: "clip 0" is the first of each row, "clip 1" its second.

    A row that has fewer clips has none of a set's keys.
    """
    rows = range(layout.stream.shape[0])
    first = [layout.clip_row.index(row) if row in layout.clip_row else 0 for row in rows]
    shift = torch.tensor(first, device=layout.clip.device)[:, None]
    own = torch.where(layout.stream >= 0, layout.clip - shift, -1)
    return {f"clip {number}": own == number for number in range(int(own.max()) + 1)}


def seconds_set(layout: TokenLayout, start_s: float, end_s: float, clip: int = 0) -> KeySet:
    """The audio tokens, of all streams, that overlap a stretch of a clip (as in `by_seconds`).

    Tokens are not cut: a stretch that begins or ends inside one takes it whole.

    Args:
        start_s: start of the stretch, in seconds from the clip's start.
        end_s: its end.
        clip: the clip's number in each row.

    Raises:
        PalscopeError: no token of any row overlaps the stretch.
    """
    clip = whole_number(clip, "clip", least=0)
    clips = clip_sets(layout)
    starts, ends = layout.seconds.unbind(-1)
    within = overlaps(starts, ends, start_s, end_s).to(layout.stream.device)
    within &= clips.get(f"clip {clip}", torch.zeros_like(within))
    if not bool(within.any()):
        raise PalscopeError(
            f"no audio token of clip {clip} overlaps {start_s:.2f} to {end_s:.2f} s; there are "
            f"{len(clips)} clip(s) in a row, of up to {ends.nan_to_num().max():.2f} s."
        )
    return within


def _set_mass(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    layout: TokenLayout,
    sets: Mapping[str, KeySet],
    queries: Queries,
) -> pd.DataFrame:
    asked = asked_columns(model, layout, queries)
    # Beside the sets, all tokens: their mass must be 1.
    chosen = torch.stack([*(each.to(layout.stream.device) for each in sets.values()), layout.real])
    known: dict[tuple[int, int, torch.device], Float[Tensor, "sets keys"]] = {}
    found: list[_Sums] = []
    alive: list[Any] = []  # whose ids stand in keys: nothing else may have them meanwhile

    def add(rows: AttentionRows) -> None:
        # One object of columns for all layers in which the same tokens meet, on whatever device.
        key = id(rows.columns), rows.row, rows.weights.device
        if key not in known:
            alive.append(rows.columns)
            keys = rows.columns.keys[rows.row]
            members = chosen[:, rows.row, keys.clamp(min=0)] & (keys >= 0)
            if rows.crossed:  # a query that is cut off from all of it reads an empty key
                members[-1] |= keys < 0
            known[key] = members.to(rows.weights.device).float()
        heads, queries, _ = rows.weights.shape
        mass = (known[key] @ rows.weights.flatten(0, 1).T).view(-1, heads, queries)
        mass[~known[key].any(1)] = float("nan")
        found.append(_Sums(rows.row, rows.layer, rows.queries, mass))

    read_attention_rows(model, inputs, asked, add)
    return _table(found, list(sets), sum_tolerance(model))


def _check_sets(sets: Mapping[str, KeySet], layout: TokenLayout) -> None:
    if not sets:
        raise PalscopeError("no set of keys was given; pathway_sets(layout) makes some.")
    for name, each in sets.items():
        if each.shape != layout.stream.shape or each.dtype != torch.bool:
            raise PalscopeError(
                f"set {name!r} is {each.dtype} of shape {tuple(each.shape)}; expected booleans, "
                f"one a column of input_ids: {tuple(layout.stream.shape)}."
            )


class _Sums(NamedTuple):
    """Masses of each set, and of all tokens behind them."""

    row: int
    layer: int
    queries: list[int]
    mass: Float[Tensor, "sets_and_all heads queries"]


def _table(found: Sequence[_Sums], names: list[str], tolerance: float) -> pd.DataFrame:
    columns: dict[str, list[Any]] = {name: [] for name in [*HEAD, "mass"]}
    for row, layer, queries, sums in found:
        mass: Any = sums.cpu().numpy()
        check_sums(mass[-1], row, layer, tolerance)
        each = np.moveaxis(mass[:-1], 0, -1)
        heads, _, n_sets = each.shape
        for name, values in head_columns(row, layer, queries, heads, n_sets).items():
            columns[name].append(values)
        columns["mass"].append(each.reshape(-1))
    whole: dict[str, Any] = {name: np.concatenate(values) for name, values in columns.items()}
    mass = whole.pop("mass")
    codes: Any = np.tile(range(len(names)), len(mass) // len(names))
    whole |= {"set": pd.Categorical.from_codes(codes, categories=names), "mass": mass}
    table = pd.DataFrame(whole)
    if len({(each.row, each.layer, query) for each in found for query in each.queries}) < sum(
        len(each.queries) for each in found
    ):
        # Two attentions of a layer, each of which sees some of the sets.
        grouped: Any = table.groupby([*HEAD, "set"], observed=True, sort=False)["mass"]
        table = grouped.sum(min_count=1).reset_index()
    return table.sort_values(HEAD, kind="stable", ignore_index=True)
