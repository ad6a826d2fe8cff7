"""What keys write: which words attention moves from a token into another.

Audio that is keys only (LAL) has no residual stream, so no logit lens: here it is read by what it
writes. `written_logits` is what attention moves from it to a query; `offered_logits`, what each
head would move from it to the query if it attended to nothing else.

Source: direct logit attribution, as in Elhage et al., "A Mathematical Framework for Transformer
Circuits" (2021).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from palscope._hooks import HookedAudioModel
from palscope._hooks.attention import CROSSING
from palscope._models.adapted import effective_weight
from palscope._models.families import raw
from palscope._queued import queued
from palscope._routing import LayerColumns, TokenLayout
from palscope.errors import PalscopeError, PromptError
from palscope.measures._columns import (
    column_labels,
    query_columns,
    running_places,
)
from palscope.measures._vocabulary import (
    answer_entries,
    beside,
    check_asked,
    named_tokens,
    norm_gain,
    top_entries,
)


@dataclass(frozen=True)
class LayerWrites:
    """What attention of one layer moves to one query, split by head and key.

    Summed over heads and keys, `written` is what attention adds to the residual stream there
    (`hook_attn_out`), but for an output projection's bias, which belongs to no key.

    Attributes:
        row, query, layer: whose attention; `query` is a column of `input_ids`.
        keys: column of each key.
        offered: what each head moves from a key when it attends to that key alone.
        pattern: the share of attention that each key gets.
        scale: what the final norm multiplies each dimension by at this query, in this run.
    """

    row: int
    query: int
    layer: int
    keys: list[int]
    offered: Float[Tensor, "heads keys d_model"]
    pattern: Float[Tensor, "heads keys"]
    scale: Float[Tensor, "d_model"]

    @property
    def written(self) -> Float[Tensor, "heads keys d_model"]:
        """What each head moves from each key."""
        return self.offered * self.pattern[..., None]


def writes_are_known(model: HookedAudioModel) -> bool:
    """Whether what keys write can be counted: not in an encoder–decoder."""
    return model.audio_attention != CROSSING


def attention_writes(
    model: HookedAudioModel, inputs: Mapping[str, Any], *, query: int = -1
) -> Iterator[LayerWrites]:
    """What every key writes into one query token of each row, layer by layer.

    A head moves `pattern[query, key] · V[key] · W_O` from a key. Families with a norm behind
    attention (Gemma 2 and 3, OLMo 2) scale that; the scale is the one of this run.

    Args:
        inputs: what `model.inputs` gives.
        query: a column of `input_ids`, or a negative one from each row's end.

    Raises:
        PromptError: the query does not exist, is padding, or does not run in the last layer: what
            it reads then reaches no logits of its own.
        PalscopeError: the model is an encoder–decoder.
    """
    if not writes_are_known(model):
        raise PalscopeError(
            "what single keys write is counted under an RMSNorm, in layers of one attention; this "
            "model's decoder has two, under a LayerNorm. Cut keys instead (attention_knockout), or "
            "read heads at cross_head_output."
        )
    layout = model.layout(inputs)
    route = model.current_route
    columns = [layout.layer_columns(route, layer) for layer in range(route.n_layers)]
    places = [wanted[0] for wanted in query_columns(layout, [query])]
    for row, place in enumerate(places):
        if not running_places(columns[-1], row, [place])[0]:
            raise PromptError(
                f"query {place} of row {row} does not run in the last layer under this route, so "
                "what it reads reaches no logits there. Ask a text token."
            )
    kept = _captured(model, inputs, columns, places)
    return _writes(model, columns, places, kept)


def written_logits(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    *,
    query: int = -1,
    pathways: Sequence[str] | None = None,
    answers: Sequence[str | int] = (),
    top_k: int = 5,
) -> pd.DataFrame:
    """Direct logit attribution of keys: what each adds to a query's logits through each layer.

    All heads together. The final norm is held at its scale of this run, so that contributions are
    linear: they sum to what attention of the layer contributes. A soft cap is left out. What later
    layers make of the written is not counted.

    Args:
        query: as in `attention_writes`.
        pathways: of which keys; by default every stream, not "text".
        answers: as in `logit_lens`.
        top_k: likewise.

    Returns:
        One row a (row, query, layer, key, id): `key`, a column of `input_ids`; `pathway, token,
        clip, start_s, end_s` say what stands there; `id, entry`; `logit`, the contribution; `rank`
        of the entry among all contributions of that key and layer, 0 the highest.

    Raises:
        PromptError: as `attention_writes`.
        PalscopeError: as `logit_lens`, or a pathway does not exist.
    """
    return _keys_table(model, inputs, query, pathways, answers, top_k, by_head=False)


def offered_logits(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    *,
    query: int = -1,
    pathways: Sequence[str] | None = None,
    answers: Sequence[str | int] = (),
    top_k: int = 5,
) -> pd.DataFrame:
    """What each head would add to a query's logits from each key if it attended to that key alone.

    Independent of the query but for the scale of its final norm, which makes the numbers those of
    `written_logits` for full attention. Arguments, columns and errors are the same; `head` stands
    beside `layer`.
    """
    return _keys_table(model, inputs, query, pathways, answers, top_k, by_head=True)


def written_by_pathway(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    *,
    query: int = -1,
    pathways: Sequence[str] | None = None,
    answers: Sequence[str | int] = (),
    top_k: int = 5,
) -> pd.DataFrame:
    """Direct logit attribution of whole pathways: what all keys of each together add.

    Arguments and errors are those of `written_logits`; a row a (row, query, layer, pathway, id),
    where the layer lets the pathway be read.
    """
    ids = answer_entries(model, answers)
    check_asked(ids, top_k)
    layout = model.layout(inputs)
    wanted = _checked_pathways(layout, pathways)
    parts: list[pd.DataFrame] = []
    for writes in attention_writes(model, inputs, query=query):
        label: Any = column_labels(model, layout, inputs["input_ids"], writes.row)
        pathway = label["pathway"].iloc[writes.keys].to_numpy()
        here = [name for name in wanted if (pathway == name).any()]
        if not here:
            continue
        vectors = torch.stack([writes.written[:, pathway == name].sum((0, 1)) for name in here])
        name = {"row": writes.row, "query": writes.query, "layer": writes.layer}
        where = pd.DataFrame({**name, "pathway": here})
        entries = top_entries(
            model, _direct_logits(model, writes, vectors), ids, top_k, probs=False
        )
        parts.append(beside(where, entries))
    return _all(parts, wanted)


@dataclass
class _Captured:
    """Of one run, what `_writes` needs; by layer, and there by row where rows differ in place."""

    pattern: dict[int, list[Float[Tensor, "heads keys"]]]
    values: dict[int, Float[Tensor, "batch keys kv_heads head_dim"]]
    attention: dict[int, list[Float[Tensor, "d_model"]]]
    final: list[Float[Tensor, "d_model"]]


def _captured(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    columns: Sequence[LayerColumns],
    places: Sequence[int],
) -> _Captured:
    """One forward pass, of which only the queries' rows are kept."""
    kept = _Captured({}, {}, {}, [])
    audio: dict[int, Tensor] = {}
    at = [
        [running_places(layer, row, [place])[0] for row, place in enumerate(places)]
        for layer in columns
    ]

    def keep(layer: int) -> list[tuple[str, Any]]:
        # A query that runs above only (a stream carried past this layer) reads nothing here.
        where = at[layer]

        def pattern(tensor: Tensor, hook: Any) -> None:
            kept.pattern[layer] = [
                tensor[row][:, place].squeeze(1) if place else tensor[row, :, 0].new_zeros(0)
                for row, place in enumerate(where)
            ]

        def audio_values(tensor: Tensor, hook: Any) -> None:
            audio[layer] = tensor

        def values(tensor: Tensor, hook: Any) -> None:
            memory = [audio[layer]] if layer in audio else []
            kept.values[layer] = torch.cat([*memory, tensor], 1)

        def out(tensor: Tensor, hook: Any) -> None:
            kept.attention[layer] = [
                tensor[row, place[0]] if place else tensor.new_zeros(0)
                for row, place in enumerate(where)
            ]

        name = f"blocks.{layer}.attn"
        hooks = [(f"{name}.hook_pattern", pattern), (f"{name}.hook_v", values)]
        hooks.append((f"{name}.hook_out", out))
        if columns[layer].memory.shape[1]:
            hooks.append((f"{name}.hook_audio_v", audio_values))
        return hooks

    def final(tensor: Tensor, hook: Any) -> None:
        kept.final = [tensor[row, place[0]] for row, place in enumerate(at[-1])]

    hooks = [hook for layer in range(len(columns)) for hook in keep(layer)]
    with torch.no_grad():
        model.run_with_hooks(
            dict(inputs), fwd_hooks=[*hooks, ("ln_final.hook_in", final)], logits_to_keep=1
        )
    return kept


def _writes(
    model: HookedAudioModel,
    columns: Sequence[LayerColumns],
    places: Sequence[int],
    kept: _Captured,
) -> Iterator[LayerWrites]:
    decoder = model.model.decoder
    for layer, found in enumerate(columns):
        attention = raw(decoder.layers[layer].self_attn)
        # Granite adds a part of what attention gives.
        part: float = getattr(raw(decoder.layers[layer]), "residual_multiplier", 1.0)
        weight = effective_weight(raw(attention.o_proj)) * part
        output = cast(Any, weight.unflatten(1, (-1, attention.head_dim)))
        for row, place in enumerate(places):
            pattern = kept.pattern[layer][row]
            if not pattern.numel():
                continue
            keys = found.on_host.keys[row]
            stand = (keys >= 0).nonzero()[:, 0]
            real = queued(stand, pattern.device)
            values = kept.values[layer][row, real]
            shared = int(output.shape[1]) // values.shape[1]
            values = values.repeat_interleave(shared, 1)
            offered = torch.einsum("khd,mhd->hkm", values.float(), output.float())
            block: Any = model.blocks[layer]
            if hasattr(block, "ln1_post"):
                offered = offered * norm_gain(raw(block.ln1_post), kept.attention[layer][row])
            yield LayerWrites(
                row,
                place,
                layer,
                [int(key) for key in keys[stand]],
                offered.detach(),
                pattern[:, real].float(),
                norm_gain(raw(decoder.norm), kept.final[row]),
            )


def _keys_table(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    query: int,
    pathways: Sequence[str] | None,
    answers: Sequence[str | int],
    top_k: int,
    *,
    by_head: bool,
) -> pd.DataFrame:
    ids = answer_entries(model, answers)
    check_asked(ids, top_k)
    layout = model.layout(inputs)
    wanted = _checked_pathways(layout, pathways)
    labels = [
        column_labels(model, layout, inputs["input_ids"], row)
        for row in range(layout.stream.shape[0])
    ]
    parts: list[pd.DataFrame] = []
    for writes in attention_writes(model, inputs, query=query):
        label: Any = labels[writes.row]
        of_wanted = label["pathway"].isin(wanted)
        # A layer's keys are its audio memory first; the table goes by column.
        ordered = sorted((key, place) for place, key in enumerate(writes.keys))
        at = [place for key, place in ordered if of_wanted[key]]
        if not at:
            continue
        keys = [writes.keys[place] for place in at]
        name = {"row": writes.row, "query": writes.query, "layer": writes.layer}
        if by_head:
            vectors = list(enumerate(writes.offered[:, at]))
        else:
            vectors = [(None, writes.written[:, at].sum(0))]
        for number, vector in vectors:
            logits = _direct_logits(model, writes, vector)
            where = named_tokens(
                label, keys, **(name if number is None else {**name, "head": number})
            )
            where = where.rename(columns={"column": "key"})
            parts.append(beside(where, top_entries(model, logits, ids, top_k, probs=False)))
    return _all(parts, wanted)


def _direct_logits(
    model: HookedAudioModel, writes: LayerWrites, vectors: Float[Tensor, "vectors d_model"]
) -> Float[Tensor, "vectors vocabulary"]:
    """What `vectors`, added to the query's residual stream, add to its logits before a soft cap."""
    head = raw(model.model.unembedding).weight
    scaled = vectors.to(head.device) * writes.scale.to(head.device)
    made = functional.linear(scaled.to(head.dtype), head).float().detach()
    return made / model.model.logits_divisor


def _all(parts: Sequence[pd.DataFrame], pathways: Sequence[str]) -> pd.DataFrame:
    if not parts:
        raise PalscopeError(
            f"no layer lets {', '.join(pathways)} be read under this route; nothing is written."
        )
    return pd.concat(parts, ignore_index=True)


def _checked_pathways(layout: TokenLayout, pathways: Sequence[str] | None) -> list[str]:
    streams = [stream.name for stream in layout.streams]
    if pathways is None:
        return streams
    unknown = [name for name in pathways if name not in layout.pathways]
    if unknown or not pathways:
        raise PalscopeError(
            f"no pathway {', '.join(unknown) or 'given'}; there are: {', '.join(layout.pathways)}."
        )
    return list(pathways)
