"""Attention inside the connector: which encoder tokens each latent reads, in seconds and Hz.

For connectors whose frame tokens are latents that read by cross-attention (Q-Former, LFST).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from palscope._connectors import Reads, Resampler
from palscope._hooks import HookedAudioModel
from palscope._hooks.hooked import hooked
from palscope._models import PalscopeForConditionalGeneration
from palscope._models.families import raw
from palscope.audio._timegrid import TimeGrid
from palscope.errors import PalscopeError

_TOLERANCE = 0.02
"""How far masses that were rounded to bfloat16 may be from summing to 1."""


def connector_attention(model: HookedAudioModel, inputs: Mapping[str, Any]) -> pd.DataFrame:
    """Attention of each latent to every encoder token that it can read.

    The clips are encoded, and no more is run. Hooks that are already set on the model stay in
    effect, so an intervention before the decoder can be measured.

    A token's seconds say where its own samples are; what it knows is wider (`measures.leakage`).

    Args:
        inputs: what `model.inputs` gives, with clips.

    Returns:
        One row a (clip, layer, head, latent, token). The columns are `row` of the batch; `clip`,
        its number in the row; `layer`, the number of the cross-attention, from 0; `head`; `latent`,
        the number of the frame token; `latent_start_s`, `latent_end_s`, the sound that it stands
        for, in seconds from the clip's start; `encoder`, a categorical; `token` of that encoder;
        `start_s`, `end_s`, its sound; `low_hz`, `high_hz`, its band, NaN where it has none; `mass`,
        the share of attention, from 0 to 1. The masses of one (clip, layer, head, latent) sum to
        1. A latent has no rows in a layer that finds no token in its region.

    Raises:
        PalscopeError: the connector has no attention, or is a published model's; there is no clip,
            or it comes encoded; or the masses do not sum to 1 (NaN weights, for example).
    """
    if inputs.get("input_features") is None:
        raise PalscopeError(
            "connector attention is computed while clips are encoded: give inputs with clips, not "
            "encoded ones (audio=)."
        )
    if not isinstance(model.model, PalscopeForConditionalGeneration):
        raise PalscopeError(
            "connector attention is that of palscope's own connectors; what a published model has "
            "in their place is not opened."
        )
    pool: Resampler = raw(model.model.connector.pool)
    patterns = _patterns(model, inputs, len(pool.attentions))
    encoder = model.model.encoder
    layout = model.layout(inputs)
    lengths = [int(n) for n in inputs["feature_lengths"]]
    tokens = [[part.tokens(n) for part in encoder.parts] for n in lengths]
    most = [max(counts) for counts in zip(*tokens, strict=True)]
    seconds = layout.seconds.nan_to_num().flatten(0, 1)
    pieces: list[pd.DataFrame] = []
    for clip, row in enumerate(layout.clip_row):
        own = (layout.clip == clip).flatten().cpu()
        duration = float(seconds[own, 1].max())
        spans = _Spans(model, duration)
        for layer, (pattern, reads) in enumerate(zip(patterns, pool.reads(most), strict=True)):
            per_clip = len(pattern) // len(lengths)
            windows = pattern[clip * per_clip :][: pool.steps(tokens[clip][0])]
            part = _table(windows, reads, tokens[clip], spans)
            part.insert(0, "row", row)
            part.insert(1, "clip", clip - layout.clip_row.index(row))
            part.insert(2, "layer", layer)
            pieces.append(part)
    table = pd.concat(pieces, ignore_index=True)
    table["encoder"] = pd.Categorical.from_codes(table["encoder"], _names(model))
    return table


class _Spans:
    """Seconds and bands of the frame grid's tokens and of each encoder's, for one clip."""

    def __init__(self, model: HookedAudioModel, duration: float) -> None:
        self.duration = duration
        self.frames: TimeGrid = model.model.frame_grid
        self.grids = [part.grid for part in model.model.encoder.parts]

    def of(self, grid: TimeGrid, tokens: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n 2"]:
        every = np.minimum(grid.spans(int(tokens.max(initial=0)) + 1), self.duration)
        return every[tokens]

    def bands(self, grid: TimeGrid, tokens: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n 2"]:
        bands = np.array([grid.band(i) or (np.nan, np.nan) for i in range(grid.per_step)])
        return bands[tokens % grid.per_step]


def _patterns(
    model: HookedAudioModel, inputs: Mapping[str, Any], layers: int
) -> list[Float[Tensor, "windows heads latents _places"]]:
    """Each cross-attention's pattern; a window is one of one clip."""
    if not layers:
        raise PalscopeError(
            "this model's connector pools encoder tokens, and has no attention; a Q-Former's or "
            "LFST's has."
        )
    found: dict[int, Tensor] = {}

    def keep(number: int) -> Any:
        def hook(pattern: Tensor, hook: Any) -> None:
            found[number] = pattern.detach().float().cpu()

        return hook

    with (
        torch.no_grad(),
        hooked(model, {f"audio_attn_{i}.hook_pattern": keep(i) for i in range(layers)}),
    ):
        model.model.encode_audio(inputs["input_features"], inputs["feature_lengths"])
    return [found[number] for number in range(layers)]


def _table(
    pattern: Float[Tensor, "steps heads latents places"],
    reads: Reads,
    tokens: list[int],
    spans: _Spans,
) -> pd.DataFrame:
    """The rows of one clip in one layer."""
    steps, heads, latents, _ = pattern.shape
    encoder, token = reads.encoder.numpy(), reads.token[:steps].numpy()
    inside: Any = (token >= 0) & (token < np.array(tokens)[encoder])
    mass = pattern.permute(1, 0, 2, 3).numpy()  # heads steps latents places
    sums = np.where(inside[:, None], mass, 0.0).sum(-1)
    read: Any = inside.any(-1)[:, None]
    if not np.allclose(np.where(read, sums, 1.0), 1.0, atol=_TOLERANCE):
        raise PalscopeError(
            f"connector attention sums to between {sums[:, read[:, 0]].min():g} and "
            f"{sums[:, read[:, 0]].max():g}, not to 1; are there NaNs among the weights?"
        )
    shape = (heads, steps, latents, inside.shape[1])
    chosen = np.broadcast_to(inside[None, :, None], shape)
    head, step, latent, place = (each.astype(np.int32) for each in chosen.nonzero())
    number = step * latents + latent
    which = encoder[place]
    at = token[step, place]
    latent_spans = spans.of(spans.frames, number)
    span, band = np.empty((len(at), 2)), np.empty((len(at), 2))
    for index, grid in enumerate(spans.grids):
        mine = which == index
        span[mine], band[mine] = spans.of(grid, at[mine]), spans.bands(grid, at[mine])
    return pd.DataFrame(
        {
            "head": head,
            "latent": number,
            "latent_start_s": latent_spans[:, 0],
            "latent_end_s": latent_spans[:, 1],
            "encoder": which,
            "token": at,
            "start_s": span[:, 0],
            "end_s": span[:, 1],
            "low_hz": band[:, 0],
            "high_hz": band[:, 1],
            "mass": mass[chosen],
        }
    )


def _names(model: HookedAudioModel) -> list[str]:
    """The encoders, by the names under which they are hooked."""
    encoder = model.model.encoder
    if len(encoder.parts) == 1:
        return [encoder.kind]
    return [prefix.removesuffix("_") for prefix in encoder.prefixes]
