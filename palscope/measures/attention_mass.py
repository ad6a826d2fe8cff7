"""Attention mass: how much of a query's attention goes to text, to each stream, to each moment.

Source: the attention analysis of the PAL paper (arXiv 2506.10423), here for any route.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd  # pyright: ignore[reportMissingTypeStubs]
import torch
from jaxtyping import Float
from torch import Tensor

from palscope.errors import PalscopeError
from palscope.hooks import HookedAudioModel
from palscope.measures.columns import (
    TEXT_PATHWAY,
    check_they_run,
    column_labels,
    query_columns,
    running_places,
)

HEAD = ["row", "query", "layer", "head"]
"""Columns that name one softmax: its masses sum to 1."""

_PADDING_TOLERANCE = 1e-6


def attention_mass(
    model: HookedAudioModel, inputs: Mapping[str, Any], *, queries: Sequence[int] = (-1,)
) -> pd.DataFrame:
    """Attention of chosen query tokens to every key, under the model's current route.

    Patterns are read layer by layer and only the queries' rows of them are kept. Hooks that are
    already set on the model stay in effect, so an intervention can be measured.

    Args:
        inputs: what `model.inputs` gives; encoded clips (`audio`) serve as well.
        queries: columns of `input_ids`; a negative one counts each row's real tokens from the
            right: -1 is the last token, which predicts the answer.

    Returns:
        One row a (row, query, layer, head, key), padding left out. The columns are `row` of the
        batch; `query` and `key`, columns of `input_ids`; `layer`; `head`; `pathway`, a categorical
        of "text" and the checkpoint's streams; `token`, the text of a text key, else ""; `clip`,
        the clip's number in its row, -1 for text; `start_s`, `end_s`, the key's sound in seconds
        from its clip's start, NaN for text; `mass`, the share of attention, from 0 to 1. The masses
        of one (row, query, layer, head) sum to 1. A stream that a layer cannot see has no rows
        there, and a query has none in layers where it does not run.

    Raises:
        PromptError: a query does not exist, is padding, or runs in no layer.
        PalscopeError: the model gave masses that do not sum to 1 (NaN weights, for example).
    """
    layout = model.layout(inputs)
    route = model.current_route
    columns = [layout.layer_columns(route, layer) for layer in range(route.n_layers)]
    places = query_columns(layout, queries)
    for row, wanted in enumerate(places):
        check_they_run(columns, row, wanted)
    kept: dict[int, dict[int, Float[Tensor, "heads queries keys"]]] = {}

    def keep(layer: int) -> Any:
        chosen = [
            running_places(columns[layer], row, wanted)[0] for row, wanted in enumerate(places)
        ]

        def hook(pattern: Float[Tensor, "batch heads queries keys"], hook: Any) -> None:
            kept[layer] = {
                row: pattern[row][:, at].detach().float().cpu()
                for row, at in enumerate(chosen)
                if at
            }

        return hook

    hooks = [(f"blocks.{layer}.attn.hook_pattern", keep(layer)) for layer in range(route.n_layers)]
    with torch.no_grad():
        model.run_with_hooks(dict(inputs), fwd_hooks=hooks, logits_to_keep=1)

    labels = [column_labels(model, layout, inputs["input_ids"], row) for row in range(len(places))]
    tolerance = 1e-3 if model.model.dtype == torch.float32 else 2e-2
    parts: list[pd.DataFrame] = []
    for row, wanted in enumerate(places):
        for layer in range(route.n_layers):
            if row in kept[layer]:
                asked = running_places(columns[layer], row, wanted)[1]
                keys = columns[layer].keys[row].cpu()
                parts.append(
                    _table(kept[layer][row], keys, labels[row], row, layer, asked, tolerance)
                )
    return pd.concat(parts, ignore_index=True)


def by_pathway(table: pd.DataFrame, pathways: Sequence[str] | None = None) -> pd.DataFrame:
    """Mass of each pathway: `row, query, layer, head, pathway, mass`.

    Every pathway has a row in every layer, 0 where the layer cannot see it.

    Args:
        table: from `attention_mass`.
        pathways: those to list; by default "text" and all of the checkpoint's streams.
    """
    listed = list(pathways or _pathways(table))
    sums: Any = table.groupby([*HEAD, "pathway"], observed=True)["mass"].sum()
    wide = sums.unstack("pathway", fill_value=0.0).reindex(columns=listed, fill_value=0.0)
    wide.columns = pd.Index(listed, name="pathway")
    long = wide.stack().rename("mass").reset_index()
    long["pathway"] = pd.Categorical(long["pathway"], categories=listed)
    return long


def over_time(table: pd.DataFrame, pathway: str | None = None) -> pd.DataFrame:
    """Mass of each slice of time, averaged over the layers and heads in `table`.

    Take the layers and heads of interest first: `over_time(table[table["layer"] == 3])`. A layer
    that cannot see a stream counts as 0 in its mean.

    Args:
        table: from `attention_mass`.
        pathway: one stream; all of them by default.

    Returns:
        `row, query, pathway, clip, start_s, end_s, mass`, one row an audio token (slices of time
        differ in length between streams), in order of time.
    """
    whole: Any = table
    sound = whole[whole["pathway"] != TEXT_PATHWAY]
    if pathway is not None:
        if pathway not in _pathways(table) or pathway == TEXT_PATHWAY:
            known = ", ".join(p for p in _pathways(table) if p != TEXT_PATHWAY) or "none"
            raise PalscopeError(f"no stream {pathway!r} in the table; it has: {known}.")
        sound = sound[sound["pathway"] == pathway]
    slices = ["row", "query", "pathway", "clip", "start_s", "end_s"]
    sums: Any = sound.groupby(slices, observed=True)["mass"].sum().reset_index()
    heads = whole[HEAD].drop_duplicates().groupby(["row", "query"]).size().rename("heads")
    sums = sums.merge(heads.reset_index(), on=["row", "query"])
    sums["mass"] /= sums.pop("heads")
    return sums


def _pathways(table: pd.DataFrame) -> list[str]:
    column: Any = table["pathway"]
    categorical = isinstance(column.dtype, pd.CategoricalDtype)
    found = cast(Any, column.dtype.categories if categorical else column.unique())
    return [str(name) for name in found]


def _table(
    pattern: Float[Tensor, "heads queries keys"],
    keys: Tensor,
    labels: pd.DataFrame,
    row: int,
    layer: int,
    queries: list[int],
    tolerance: float,
) -> pd.DataFrame:
    """The rows of one layer of one row of the batch."""
    where = f"layer {layer}, row {row}"
    real = (keys >= 0).numpy()
    mass: Any = pattern.numpy()
    if np.abs(mass[..., ~real]).max(initial=0) > _PADDING_TOLERANCE:
        raise PalscopeError(f"{where}: attention went to padding; this is a fault of palscope's.")
    mass = mass[..., real]
    sums = mass.sum(-1)
    if not bool((np.abs(sums - 1) <= tolerance).all()):  # NaN fails too
        raise PalscopeError(
            f"{where}: attention sums to {sums.min():.4g} … {sums.max():.4g}, not 1. Does a hook "
            "change patterns, or do the weights hold NaN?"
        )
    at: Any = keys.numpy()[real]
    order = at.argsort()  # the layer's keys are its audio memory first; the table goes by column
    at, mass = at[order], mass[..., order]
    heads, n_queries, n_keys = len(pattern), len(queries), int(real.sum())
    each = labels.iloc[np.tile(at, heads * n_queries)].reset_index(drop=True)
    each.insert(0, "row", row)
    each.insert(1, "query", np.tile(np.repeat(queries, n_keys), heads))
    each.insert(2, "layer", layer)
    each.insert(3, "head", np.repeat(np.arange(heads), n_queries * n_keys))
    each.insert(5, "key", np.tile(at, heads * n_queries))
    each["mass"] = mass.reshape(-1)
    return each
