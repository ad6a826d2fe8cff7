"""A second implementation of a palscope model on Llama: DESIGN's table, one token at a time.

One row without padding, no cache, no masks, no hooks, nothing of `palscope.routing.layout` or of
`palscope.models.decoder`, nothing of transformers but the weights.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

from palscope.routing import Level, Route, Source, Stream

Column = tuple[str, int, int]
"""What stands in a column: "text", its number among the words, -1; or stream, token, clip."""


def columns_of(
    words: list[int], audio_id: int, frames: list[int], streams: tuple[Stream, ...]
) -> list[Column]:
    """The columns of a prompt: after every `ratio` frames, or at the clip's end, their summary."""
    columns: list[Column] = []
    clip = -1
    previous: int | None = None
    left = 0
    for number, word in enumerate(words):
        if word != audio_id:
            columns.append(("text", number, -1))
        elif previous != audio_id or left == 0:
            clip += 1
            order: list[Column] = []
            for frame in range(frames[clip]):
                order.append(("frames", frame, clip))
                for stream in streams[1:]:
                    if (frame + 1) % stream.ratio == 0 or frame + 1 == frames[clip]:
                        order.append((stream.name, frame // stream.ratio, clip))
            columns += order
            left = len(order) - 1
        else:
            left -= 1
        previous = word
    return columns


def logits(model: Any, words: list[int], features: list[Tensor], route: Route) -> dict[int, Tensor]:
    """Logits by column, for the tokens that run in the last layer.

    Args:
        words: one row of the processor's ids, audio places included.
        features: `[bins, frames]` of each clip.
    """
    weights = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    config = model.config.text_config
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    size = config.head_dim
    base = config.rope_parameters["rope_theta"]

    def norm(x: Tensor, name: str) -> Tensor:
        scale = torch.rsqrt(x.pow(2).mean() + config.rms_norm_eps)
        return x * scale * weights[f"language_model.model.{name}.weight"]

    def turned(x: Tensor, position: int) -> Tensor:
        out = x.clone()
        for i in range(size // 2):
            angle = position / base ** (2 * i / size)
            a, b = x[..., i], x[..., i + size // 2]
            out[..., i] = a * math.cos(angle) - b * math.sin(angle)
            out[..., i + size // 2] = b * math.cos(angle) + a * math.sin(angle)
        return out

    pooled = []
    for clip in features:
        lengths = torch.tensor([clip.shape[1]])
        outputs = model.encoder.outputs(clip[None], lengths)
        pooled.append({k: v[0] for k, v in model.connector(outputs).items()})
    frames = [len(p["frames"]) for p in pooled]
    columns = columns_of(words, model.config.audio_token_id, frames, model.connector.streams)
    assert len(columns) == len(words)

    table = weights["language_model.model.embed_tokens.weight"]
    state: dict[int, Tensor] = {}
    for i, (kind, token, clip) in enumerate(columns):
        if kind == "text":
            state[i] = table[words[token]]
        elif kind in model.connector.input_projectors:
            state[i] = model.connector.project_input(kind, pooled[clip][kind][token])

    after: dict[int, Tensor] = {}
    for layer in range(config.num_hidden_layers):
        name = f"layers.{layer}"
        full = f"language_model.model.{name}"

        def level(i: int, layer: int = layer) -> Level:
            kind = columns[i][0]
            if kind == "text":
                return Level.FULL
            named = {stream.name: cells for stream, cells in route.rows}
            return named[kind][layer].level if kind in named else Level.ABSENT

        def project(x: Tensor, which: str, count: int, full: str = full) -> Tensor:
            return (weights[f"{full}.self_attn.{which}_proj.weight"] @ x).view(count, size)

        keys: dict[int, Tensor] = {}
        values: dict[int, Tensor] = {}
        for i, (kind, token, clip) in enumerate(columns):
            if level(i) is Level.ABSENT:
                continue
            entering = state.get(i)
            if kind != "text" and route.cell(kind, layer).source is Source.PROJECTED:
                entering = model.connector.project_layer(kind, layer, pooled[clip][kind][token])
            assert entering is not None
            x = norm(entering, f"{name}.input_layernorm")
            keys[i] = turned(project(x, "k", kv_heads), i)
            values[i] = project(x, "v", kv_heads)

        after = {}
        for i, (kind, _, _) in enumerate(columns):
            if level(i) not in (Level.ATTEND, Level.FULL):
                continue
            x = norm(state[i], f"{name}.input_layernorm")
            query = turned(project(x, "q", heads), i)
            seen = [
                j
                for j in keys
                if j <= i
                and not (
                    route.frame_readers == "text"
                    and columns[j][0] == "frames"
                    and kind not in ("text", "frames")
                )
            ]
            read: list[Tensor] = []
            for head in range(heads):
                group = head // (heads // kv_heads)
                scores = torch.stack([query[head] @ keys[j][group] for j in seen])
                share = (scores / math.sqrt(size)).softmax(0)
                read.append(share @ torch.stack([values[j][group] for j in seen]))
            y = state[i] + weights[f"{full}.self_attn.o_proj.weight"] @ torch.cat(read)
            if level(i) is Level.FULL:
                z = norm(y, f"{name}.post_attention_layernorm")
                gate = silu(weights[f"{full}.mlp.gate_proj.weight"] @ z)
                up = weights[f"{full}.mlp.up_proj.weight"] @ z
                y = y + weights[f"{full}.mlp.down_proj.weight"] @ (gate * up)
            after[i] = y
        state |= after
    head = weights["language_model.lm_head.weight"]
    return {i: head @ norm(x, "norm") for i, x in after.items()}
