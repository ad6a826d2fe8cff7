"""Addresses before the decoder: which hook points, and which tokens of a clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
import torch

from palscope._hooks import HookedAudioModel
from palscope._routing import Route, TokenLayout
from palscope.audio._timegrid import TimeGrid
from palscope.encoders._tower import Tower
from palscope.errors import PalscopeError
from palscope.interventions._address import Address, Sound
from palscope.interventions._parts import Part, Resolved, TokenAxis, checked, covered_by
from palscope.interventions._tokens import sound_columns, stretch


def before_the_decoder(
    model: HookedAudioModel, inputs: Mapping[str, Any], address: Address, layout: TokenLayout
) -> Resolved:
    places = encoder_places(model, address)
    parts: list[Part] = []
    covered: list[dict[str, Any]] = []
    sound = address.key_tokens
    assert isinstance(sound, Sound)
    if sound.stream is not None:
        raise PalscopeError(f"{address.site} lies before the streams part; leave stream out.")
    frames = [int(n) for n in inputs["feature_lengths"]]
    for row in range(layout.stream.shape[0]):
        owned = [clip for clip, owner in enumerate(layout.clip_row) if owner == row]
        if sound.clip >= len(owned):
            raise PalscopeError(
                f"clip {sound.clip} does not exist: row {row} has {len(owned)} clip(s)."
            )
        clip = owned[sound.clip]
        length = model.model.seconds_covered(frames[clip])
        start, end = stretch(sound, length)
        told: set[tuple[int, TimeGrid]] = set()
        for part, grid in places:
            count = tokens_of(model, grid, frames[clip])
            tokens = grid.tokens_between(start, end, count)
            stands = torch.tensor(list(tokens))
            parts.append(replace(part, row=clip, columns=stands, clip=(row, sound.clip)))
            if (part.encoder, grid) in told:
                continue  # another layer of the same encoder
            told.add((part.encoder, grid))
            spans = grid.spans(tokens[-1] + 1, length)
            covered.append(
                {
                    "row": row,
                    "stream": "mel frames" if address.site == "mel" else "encoder tokens",
                    "tokens": len(tokens),
                    "first": tokens[0],
                    "last": tokens[-1],
                    "start_s": float(spans[tokens[0], 0]),
                    "end_s": float(spans[-1, 1]),
                }
            )
    return Resolved(address, tuple(parts), lambda: pd.DataFrame(covered))


def tokens_of(model: HookedAudioModel, grid: TimeGrid, frames: int) -> int:
    """How many tokens of a grid come of a clip of `frames`."""
    if grid == model.model.frame_grid:
        return model.model.frame_tokens(frames)  # some classes leave a clip's very end without
    return grid.tokens(model.model.seconds_encoded(frames))


def encoder_grid(model: HookedAudioModel, part: Part) -> TimeGrid:
    """The time grid of a part before the decoder, whose columns are tokens of the clip."""
    if part.axis == "mel":
        return TimeGrid(model.model.seconds_per_frame)
    encoder = model.model.encoder.parts[part.encoder]
    return encoder.grid if part.layer is None else encoder.blocks[part.layer].grid


def encoder_places(model: HookedAudioModel, address: Address) -> list[tuple[Part, TimeGrid]]:
    """Hook points of the address in each of the encoders, still without row and columns."""
    encoder = model.model.encoder
    none = torch.empty(0, dtype=torch.long)
    if address.site == "encoder_output":
        axis: TokenAxis = "passing" if encoder.a_call_a_clip else "clip_tokens"
        parts = [
            Part(f"audio_{name}.hook_in", axis, 0, none, encoder=number)
            for number, name in enumerate(model.model.encoder_entries)
        ]
    elif address.site == "mel":
        for each in encoder.parts:
            if each.mel_hook is None:
                raise PalscopeError(
                    f"the encoder {each.kind} hears a short clip several times over, or is "
                    "not hooked where its features enter, so they cannot be addressed: edit the "
                    "sound itself (edit_waveform)."
                )
        parts = [
            Part(f"audio_{prefix}{each.mel_hook}", "mel", 0, none, encoder=number)
            for number, (prefix, each) in enumerate(
                zip(encoder.prefixes, encoder.parts, strict=True)
            )
        ]
    else:
        parts = _encoder_blocks(model, address)
    return [(part, encoder_grid(model, part)) for part in parts]


def _encoder_blocks(model: HookedAudioModel, address: Address) -> list[Part]:
    """The layers of every encoder; a number names that layer of each encoder that has it."""
    encoder = model.model.encoder
    deepest = max(len(each.blocks) for each in encoder.parts)
    if not deepest:
        raise PalscopeError(f"the encoder {encoder.kind} names no layers of its own.")
    wanted = checked("encoder layer", address.layers, deepest)
    inside = "hook_out"
    if address.site == "encoder_neurons":
        inside = "mlp_out.hook_in"
        _check_neurons(model, encoder)
    none = torch.empty(0, dtype=torch.long)
    parts: list[Part] = []
    for number, (prefix, each) in enumerate(zip(encoder.prefixes, encoder.parts, strict=True)):
        for layer, block in enumerate(each.blocks):
            hook = f"audio_{prefix}{block.name}.{inside}"
            # The layers above the last that the connector reads do not run.
            if layer in wanted and (address.layers or model.can_fire(hook)):
                parts.append(
                    Part(hook, "passing", 0, none, layer=layer, encoder=number, order=block.order)
                )
    return parts


def _check_neurons(model: HookedAudioModel, encoder: Tower) -> None:
    """Raise `PalscopeError` where a layer's feed-forward network has no name."""
    known = model.hook_dict
    for prefix, each in zip(encoder.prefixes, encoder.parts, strict=True):
        for block in each.blocks:
            if f"audio_{prefix}{block.name}.mlp_out.hook_in" not in known:
                raise PalscopeError(
                    f"the encoder {each.kind} does not name the feed-forward network of "
                    f"{block.name} (mlp_out), so its neurons cannot be addressed."
                )


def connector_output(model: HookedAudioModel, address: Address, layout: TokenLayout) -> Resolved:
    route = model.current_route
    sound = address.key_tokens
    assert isinstance(sound, Sound)
    parts: list[Part] = []
    used: set[tuple[int, int]] = set()
    for row in range(layout.stream.shape[0]):
        columns = sound_columns(sound, layout, row)
        for index, stream in enumerate(layout.streams):
            mine = columns[layout.stream[row][columns] == index]
            hooks = stream_hooks(route, stream.name)
            if not len(mine) or not hooks:
                continue
            tokens = layout.token[row][mine]
            clip = int(layout.clip[row][mine[0]])
            parts += [
                Part(hook, "clip_tokens", clip, tokens, clip=(row, sound.clip)) for hook in hooks
            ]
            used |= {(row, int(column)) for column in mine}
    if not parts:
        raise PalscopeError(f"connector_output: this route reads no such stream:\n{route}")
    return Resolved(address, tuple(parts), lambda: covered_by(layout, used))


def stream_hooks(route: Route, stream: str) -> list[str]:
    """Where a stream's tokens leave the connector, on their way into each projector."""
    cells = route.cells(stream)
    hooks = [
        f"audio_projector_{stream}_{layer}.hook_in"
        for layer, cell in enumerate(cells)
        if cell.symbol == "P"
    ]
    if any(cell.symbol in "kaFX" for cell in cells):
        hooks.append(f"audio_input_{stream}.hook_in")
    return hooks
