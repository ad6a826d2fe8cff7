"""What each head's reading of sound does to an answer, and in how few layers it is read.

Cutting a head off from sound changes what the head gives: the attention that is left sums to 1.
That change is computed for every head, exactly, from patterns and values of the plain run; what it
does to the answer above is estimated by one gradient for all of them (attribution patching: Nanda
2023, neelnanda.io/attribution-patching). The largest are then cut for real, since an estimate to
first order can be wrong by any amount.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from palscope._hooks import HookedAudioModel
from palscope._models.recording import LayerAttention
from palscope._queued import queued
from palscope._whole import whole_number
from palscope.errors import PalscopeError
from palscope.interventions import Address, Sound, Text, resolve, run_cells
from palscope.interventions._apply import Bound
from palscope.interventions._cells import with_encoded
from palscope.measures._gradients import Moved, Values, gradients_of, leaf
from palscope.measures._knockout import Edges, attention_knockout, cuts_of_text, sliding_windows
from palscope.measures._metrics import Answers, answer_metrics


def head_effects(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    *,
    answers: Answers,
    sounds: Sequence[Sound] = (Sound(),),
    checked: int = 16,
) -> pd.DataFrame:
    """What cutting text off from sound does to the answer, in one head at a time.

    One forward pass, one with its backward pass, and `checked` cuts, which share passes
    (`run_cells`).

    Args:
        inputs: of one prompt.
        answers: two, or one; the effect is on their logit difference, or on the one answer's
            log-probability.
        sounds: what is cut, all of it together.
        checked: how many heads are cut for real: those with the largest estimates.

    Returns:
        One row a layer and head, the largest effect first, heads that were cut before those that
        were not: `layer, head, mass, estimate, effect`. `mass` is the mean over text tokens of the
        attention that goes to the sounds (0 to 1; missing where the layer does not see them, at
        the bottom); `estimate` and `effect`, the change in nats that the cut is estimated to make
        and does make; `effect` is missing where the head was not cut.

    Raises:
        HookError: someone's hook stands inside attention.
        PalscopeError: there are several prompts, no text sees the sounds in any layer, `checked`
            is negative, or a sound cannot be resolved.
    """
    checked = whole_number(checked, "checked", least=0)
    if inputs["input_ids"].shape[0] != 1:
        raise PalscopeError("effects of heads are of one answer: give the inputs of one prompt.")
    inputs = with_encoded(model, answers.behind(inputs))
    layout = model.layout(inputs)
    found = [resolve(model, inputs, Address("pattern", sound), layout) for sound in sounds]
    columns = torch.cat([part.columns for each in found for part in each.parts])
    table = _estimates(model, inputs, columns, answers)
    order = table["estimate"].abs().sort_values(ascending=False, kind="stable").dropna().index
    table["effect"] = float("nan")
    chosen: Any = order[:checked]
    if len(chosen):
        table.loc[chosen, "effect"] = _exact(model, inputs, table.loc[chosen], sounds, answers)
    told = table["effect"].fillna(table["estimate"]).abs()
    ordered = table.assign(told=told, seen=table["effect"].notna()).sort_values(
        ["seen", "told"], ascending=False, kind="stable", na_position="last"
    )
    return ordered.drop(columns=["told", "seen"]).reset_index(drop=True)


def shortest_window(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    *,
    answers: Answers,
    sounds: Sequence[Sound] = (Sound(),),
    share: float = 0.5,
) -> pd.DataFrame:
    """The fewest neighbouring layers in which cutting text off from sound moves the answer.

    Widths are doubled from a single layer on, and bisected: of windows of the width that is found,
    one moves the answer by `share` of what cutting in all layers does; of windows one layer
    shorter, none. (Not every shorter width is tried: a window may do more than a wider one that
    holds it, but seldom does.)

    Args:
        inputs: as in `head_effects`, like `answers` and `sounds`.
        answers: likewise.
        sounds: likewise.
        share: of the change that cutting in all layers makes, more than 0 and at most 1.

    Returns:
        The windows of that width, the largest effect first: `first_layer, last_layer, effect,
        share`. No window at all means that cutting in all layers does nothing.

    Raises:
        PalscopeError: as `head_effects`, or the share is none.
    """
    if not 0 < share <= 1:
        raise PalscopeError(f"a share of {share} is none; give more than 0 and at most 1.")
    layers = model.current_route.n_layers
    edges = [Edges(tuple((Text(), sound) for sound in sounds))]
    metric = f"{answers.metric}_change"

    def effects(width: int) -> pd.DataFrame:
        windows = sliding_windows(layers, width, 1)
        table: Any = attention_knockout(model, inputs, edges, windows, answers=answers)
        cut = table[table["run"] == "cut"]
        return cut[["first_layer", "last_layer", metric]].rename(columns={metric: "effect"})

    every: Any = effects(layers)
    whole = float(every["effect"].to_numpy()[0])
    if not whole:
        return every[:0].assign(share=float("nan"))

    def reached(width: int) -> pd.DataFrame:
        found: Any = (every if width == layers else effects(width)).copy()
        found["share"] = found["effect"] / whole
        return found[found["share"] >= share]

    low, width = 0, 1
    kept = reached(width)
    while not len(kept):
        low, width = width, min(2 * width, layers)
        kept = reached(width)
    while width - low > 1:
        middle = (low + width) // 2
        found = reached(middle)
        if len(found):
            width, kept = middle, found
        else:
            low = middle
    return kept.sort_values("share", ascending=False, kind="stable").reset_index(drop=True)


# -- estimates ------------------------------------------------------------------------------------


def _estimates(
    model: HookedAudioModel, inputs: Mapping[str, Any], columns: Tensor, answers: Answers
) -> Any:
    """`layer, head, mass, estimate`, in the order of layers and heads."""
    gradients = _head_gradients(model, inputs, answers)
    layers, heads = model.current_route.n_layers, model.cfg.n_heads
    found = np.full((2, layers, heads), float("nan"))

    def see(attention: LayerAttention) -> None:
        gradient = gradients[attention.layer]
        device = attention.query.device
        read = queued(torch.isin(attention.columns.on_host.keys[0], columns), device)
        if not read.any():
            return
        stands: list[int] = attention.columns.on_host.running[0].tolist()
        places = torch.tensor([stands.index(column) for column in gradient.columns])
        weights = attention.weights(0, queued(places, device))
        change = output_change(weights, attention.value[0], read, to_nothing=attention.crossed)
        estimate = (change * gradient.values.to(device)).sum((1, 2))
        mass = weights[..., read].sum(-1).mean(-1)
        found[:, attention.layer] = torch.stack([mass, estimate]).cpu()

    with torch.no_grad(), model.model.recording_attention(see, range(layers)):
        model(inputs, logits_to_keep=1)
    layer, head = np.divmod(np.arange(layers * heads), heads)
    mass, estimate = found.reshape(2, -1)
    return pd.DataFrame({"layer": layer, "head": head, "mass": mass, "estimate": estimate})


def output_change(
    weights: Float[Tensor, "heads queries keys"],
    values: Float[Tensor, "kv_heads keys head_dim"],
    cut: Bool[Tensor, "keys"],
    *,
    to_nothing: bool = False,
) -> Float[Tensor, "heads queries head_dim"]:
    """How a head's output changes when it no longer reads some keys, and reads the rest more.

    What is left is summed rather than subtracted from 1: it may be 1e-13 of the whole. A query
    that sees nothing else keeps its output, as there is nothing to cut it to; or, with
    `to_nothing` (cross-attention), it gives nothing.
    """
    read = values.float().repeat_interleave(weights.shape[0] // values.shape[0], 0)
    rest = weights.masked_fill(cut, 0)
    left = rest.sum(-1, keepdim=True)
    after = rest / left.clamp_min(torch.finfo(left.dtype).tiny) @ read
    given = weights @ read
    return torch.where(left > 0, after - given, -given if to_nothing else torch.zeros_like(after))


@dataclass(frozen=True)
class _Gradient:
    """The answer's gradient for the outputs of one layer's heads, at its text tokens."""

    columns: list[int]
    values: Float[Tensor, "heads tokens head_dim"]


def _head_gradients(
    model: HookedAudioModel, inputs: Mapping[str, Any], answers: Answers
) -> dict[int, _Gradient]:
    """By layer."""
    crosses = model.audio_attention == "cross_attn"
    site = "cross_head_output" if crosses else "head_output"
    resolved = resolve(model, inputs, Address(site, Text()))
    heads, width = model.cfg.n_heads, model.cfg.d_head
    nudges: Values = {
        (part.hook, part.row): leaf(torch.zeros(len(part.columns), heads, width))
        for part in resolved.parts
    }
    placed = [(Bound(resolved, Moved(nudges, replaces=False)), 0)]
    _, (found,) = gradients_of(model, inputs, placed, 1, [nudges], answers, answers.metric)
    return {
        cast(int, part.layer): _Gradient(
            cast("list[int]", part.columns.tolist()), found[part.hook, part.row].transpose(0, 1)
        )
        for part in resolved.parts
    }


# -- cuts -----------------------------------------------------------------------------------------


def _exact(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    heads: Any,
    sounds: Sequence[Sound],
    answers: Answers,
) -> Float[np.ndarray, "heads"]:
    """The change that each of `heads` makes when it alone is cut off."""
    route = model.current_route
    cells = [
        cuts_of_text(route, sounds, layers=[int(layer)], heads=(int(head),))
        for layer, head in zip(heads["layer"], heads["head"], strict=True)
    ]
    logits = run_cells(model, inputs, [[], *cells])
    found = answer_metrics(logits, answers, logits[0])[answers.metric].to_numpy()
    return found[1:] - found[0]
