"""Rows of attention patterns: what chosen queries give to every key, as the model runs fused.

A layer's pattern is heads × queries × keys, which no fused kernel builds. Here only the rows of the
chosen queries are computed, from the queries and keys that the kernel was given, a block at a time.
Where something inside attention is hooked, TransformerLens computes the pattern anyway, and the
hook may change it: there the rows are read from `hook_pattern`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from palscope._hooks import HookedAudioModel
from palscope._models.recording import LayerAttention
from palscope._queued import queued
from palscope._routing import LayerColumns, TokenLayout
from palscope.errors import PalscopeError
from palscope.measures._columns import Queries, check_they_run, query_columns, running_places

_BLOCK = 2**21
"""Numbers in a block of weights (8 MiB): queries are taken so many at a time that it holds them."""


@dataclass(frozen=True)
class AttentionRows:
    """What some queries of one row of the batch give to the keys of one layer.

    Attributes:
        layer, row: where.
        queries: the queries' columns of `input_ids`.
        columns: what stands in the layer; `columns.keys[row]` are the keys' columns.
        weights: the pattern's rows, in float32.
        crossed: whether they are of the layer's second attention, which reads audio alone. A key -1
            is there the empty one that a query reads which is cut off from all sound.
    """

    layer: int
    row: int
    queries: list[int]
    columns: LayerColumns
    weights: Float[Tensor, "heads queries keys"]
    crossed: bool = False


def asked_columns(
    model: HookedAudioModel, layout: TokenLayout, queries: Queries
) -> list[list[int]]:
    """The columns that `queries` name in each row.

    Raises:
        PromptError: one does not exist, is padding, or runs in no layer under the current route.
    """
    asked = query_columns(layout, queries)
    for row, wanted in enumerate(asked):
        check_they_run(layout, model.current_route, row, wanted)
    return asked


def read_attention_rows(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    asked: Sequence[Sequence[int]],
    take: Callable[[AttentionRows], None],
    *,
    logits_to_keep: int = 1,
    stop_at_layer: int | None = None,
) -> Tensor:
    """Run the model once, and give `take` the attention of the queries that were asked for.

    Hooks that are set on the model stay in effect. Layers come from the bottom up; in each, every
    row of the batch in which a query runs, in one or more blocks.

    Args:
        inputs: what `model.inputs` gives; encoded clips (`audio`) serve as well.
        asked: columns of each row, from `asked_columns`.
        take: called with each block while the model runs; it may keep the block.
        logits_to_keep: of so many of the last tokens.
        stop_at_layer: the layer before which the run ends; None runs all.

    Returns:
        The run's logits `[batch, kept, vocabulary]`; the residual stream of one that ends before.
    """
    known: dict[tuple[int, int], tuple[Tensor, list[int]]] = {}
    alive: list[Tensor] = []  # whose ids stand in keys: nothing else may have them meanwhile

    def places(columns: LayerColumns, row: int) -> tuple[Int[Tensor, "asked"], list[int]]:
        key = id(columns.running), row  # one for all layers in which the same tokens run
        if key not in known:
            alive.append(columns.running)
            found, queries = running_places(columns, row, asked[row])
            where = queued(torch.tensor(found, dtype=torch.long), columns.running.device)
            known[key] = where, queries
        return known[key]

    def hand_on(
        layer: int,
        columns: LayerColumns,
        heads: int,
        weights: Callable[[int, Tensor], Tensor],
        crossed: bool,
    ) -> None:
        size = max(1, _BLOCK // (heads * columns.keys.shape[1]))
        for row in range(len(asked)):
            where, queries = places(columns, row)
            for first in range(0, len(queries), size):
                part = slice(first, first + size)
                made = weights(row, where[part])
                take(AttentionRows(layer, row, queries[part], columns, made, crossed))

    def see(attention: LayerAttention) -> None:
        heads, columns = attention.query.shape[1], attention.columns
        hand_on(attention.layer, columns, heads, attention.weights, attention.crossed)

    def reader(layer: int, name: str) -> Any:
        def hook(pattern: Float[Tensor, "batch heads queries keys"], hook: Any) -> None:
            run = model.model.current_run
            assert run is not None  # the hook fires within a call

            def weights(row: int, where: Tensor) -> Tensor:
                return pattern[row][:, where.to(pattern.device)].float()

            columns, crossed = run.columns_of(layer), name == "cross_attn"
            if crossed:
                more = pattern.shape[-1] - columns.crossed.shape[1]
                columns = columns.reading(functional.pad(columns.crossed, (0, more), value=-1))
            hand_on(layer, columns, pattern.shape[1], weights, crossed)

        return hook

    layers = range(model.current_route.n_layers if stop_at_layer is None else stop_at_layer)
    slow = [
        layer
        for layer in layers
        if any(each.is_hooked_inside() for each in model.attentions(layer).values())
    ]
    hooks = [
        (f"blocks.{layer}.{name}.hook_pattern", reader(layer, name))
        for layer in slow
        for name in model.attentions(layer)
    ]
    with torch.no_grad(), ExitStack() as stack:
        if len(slow) < len(layers):
            fused = [layer for layer in layers if layer not in slow]
            stack.enter_context(model.model.recording_attention(see, fused))
        return model.run_with_hooks(
            dict(inputs),
            fwd_hooks=hooks,
            logits_to_keep=logits_to_keep,
            stop_at_layer=stop_at_layer,
        )


def sum_tolerance(model: HookedAudioModel) -> float:
    """How far from 1 the masses of one query may sum, in the model's precision."""
    return 1e-3 if model.model.dtype == torch.float32 else 2e-2


def check_sums(sums: Float[np.ndarray, "..."], row: int, layer: int, tolerance: float) -> None:
    """Raise `PalscopeError` where masses over all keys do not sum to 1."""
    if not bool((np.abs(sums - 1) <= tolerance).all()):  # NaN fails too
        raise PalscopeError(
            f"layer {layer}, row {row}: attention sums to {sums.min():.4g} … {sums.max():.4g}, not "
            "1. Does a hook change patterns, or do the weights hold NaN?"
        )
