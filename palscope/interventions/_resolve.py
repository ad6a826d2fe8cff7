"""From an address to exact tokens: which hook points, which rows and columns, what they cover."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor

from palscope._hooks import HookedAudioModel
from palscope._routing import TokenLayout
from palscope._routing.layout import FILLER, TEXT
from palscope._routing.row_columns import named_columns, text_columns
from palscope.audio._timegrid import TOUCH_S, TimeGrid, overlaps
from palscope.encoders._tower import Tower
from palscope.errors import PalscopeError, PromptError
from palscope.interventions._address import SITES, Address, Filler, Sound, Text, Tokens

TokenAxis = Literal[
    "running", "memory", "fed", "pattern", "cross_pattern", "passing", "clip_tokens", "mel"
]
"""How a hook point's tensor is laid out; `Places` knows each."""

OF_CLIPS = ("passing", "mel", "clip_tokens")
"""Layouts before the decoder, where a part's row is a clip of the batch."""

_LATE_S = 0.1
"""A stretch may end so much behind its clip: features and tokens round a clip's length."""

_BLOCK = {
    "resid_pre": "hook_resid_pre",
    "resid_post": "hook_resid_post",
    "attn_out": "hook_attn_out",
    "mlp_out": "hook_mlp_out",
    "head_output": "attn.hook_z",
    "pattern": "attn.hook_pattern",
    "cross_out": "hook_cross_attn_out",
    "cross_head_output": "cross_attn.hook_z",
    "cross_pattern": "cross_attn.hook_pattern",
}


@dataclass(frozen=True)
class Part:
    """The tokens of one row of the batch at one hook point.

    Attributes:
        hook: name of the hook point.
        axis: how its tensor is laid out.
        row: row of the batch; for sites before the decoder, the clip of the batch.
        columns: columns of the layout inside the decoder, tokens of the clip before it; in order.
        onwards: the columns that decoding adds belong to it too.
        layer: None at a site without layers.
        heads: places on the tensor's head axis, None for all.
        queries: at `pattern`, the columns that read; `columns` are the keys.
        encoder: before the decoder, which of the encoder's parts.
        order: inside an encoder's layer, places of its tokens among a clip's; None where token `i`
            of what passes has place `i`.
        clip: before the decoder, the row of the batch that has the clip, and its number there.
    """

    hook: str
    axis: TokenAxis
    row: int
    columns: Int[Tensor, "tokens"]
    onwards: bool = False
    layer: int | None = None
    heads: tuple[int, ...] | None = None
    queries: Int[Tensor, "queries"] | None = None
    queries_onwards: bool = False
    encoder: int = 0
    order: Int[Tensor, "window_tokens"] | None = None
    clip: tuple[int, int] | None = None

    @property
    def prompt(self) -> tuple[int, int]:
        """The row of the batch that it is in, and before the decoder the clip's number there."""
        return (self.row, 0) if self.clip is None else self.clip


@dataclass(frozen=True)
class Resolved:
    """An address, exactly: its parts, in every row of the batch."""

    address: Address
    parts: tuple[Part, ...]
    _cover: Callable[[], pd.DataFrame] = field(repr=False, compare=False)

    @cached_property
    def covered(self) -> pd.DataFrame:
        """What it covers, one row a stream and row of the batch.

        `row, stream, tokens, first, last, start_s, end_s`: how many tokens, from which to which
        (columns for text, numbers in the stream for sound), and the seconds that they stand for.
        """
        return self._cover()

    def __str__(self) -> str:
        tokens = self.address.key_tokens
        asked = "everything"
        if isinstance(tokens, Sound):
            end = "the end" if tokens.end is None else f"{tokens.end:.2f} s"
            asked = f"{tokens.start:.2f} s to {end} of clip {tokens.clip}"
        elif isinstance(tokens, Text):
            asked = "all text" if tokens.what is None else f"text {tokens.what!r}"
            asked = "all fillers" if isinstance(tokens, Filler) else asked
        lines: list[str] = []
        for each in self.covered.to_dict("records"):
            span = f"{each['stream']} {each['first']} to {each['last']}"
            seconds = (
                f" = {each['start_s']:.2f} to {each['end_s']:.2f} s"
                if each["start_s"] == each["start_s"]
                else ""
            )
            lines.append(f"row {each['row']}: {each['tokens']} tokens, {span}{seconds}")
        layers = sorted({part.layer for part in self.parts if part.layer is not None})
        where = f", layers {layers}" if layers else ""
        return f"{self.address.site}{where}; asked {asked}; got " + "; ".join(lines)


def resolve(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    address: Address,
    layout: TokenLayout | None = None,
) -> Resolved:
    """The exact tokens of `address` under the model's current route, in every row of `inputs`.

    A token's seconds say where its own samples are. What it knows is wider: Whisper attends over
    the clip's whole window (30 s), so a patched token is not a patched sound; `measures.leakage`
    measures the difference, and the site `waveform` patches sound itself.

    Raises:
        PalscopeError: the address is empty here, lies outside of the clip, or names layers or heads
            that the model does not have, or in which the tokens do not stand.
        PromptError: a text is not in the prompt, or more than once.
    """
    if address.site == "waveform":
        raise PalscopeError(
            "the waveform lies before the model's input: edit the clip by edit_waveform, and make "
            "the inputs from it."
        )
    layout = (model.layout(inputs) if layout is None else layout).on_host
    outside = SITES[address.site].tokens == "sound" or address.site == "connector_output"
    if outside and inputs.get("input_features") is None:
        raise PalscopeError(
            f"{address.site} lies before the decoder, but the clips come encoded (audio=): give "
            "input_features."
        )
    if SITES[address.site].tokens == "sound":
        return _before_the_decoder(model, inputs, address, layout)
    if address.site == "connector_output":
        return _connector_output(model, address, layout)
    return _in_the_decoder(model, address, layout)


# -- inside the decoder ---------------------------------------------------------------------------


def _in_the_decoder(model: HookedAudioModel, address: Address, layout: TokenLayout) -> Resolved:
    route = model.current_route
    if address.site.startswith("cross_") and model.audio_attention == "attn":
        raise PalscopeError(
            f"{address.site}: this model reads sound in its layers' only attention; its site is "
            f"{'head_output' if 'head' in address.site else 'attn_out'}."
        )
    layers = _checked("layer", address.layers, route.n_layers)
    heads = address.heads
    if heads is not None:
        _checked("head", heads, model.cfg.n_heads)
    rows = layout.stream.shape[0]
    chosen = [token_columns(model, address.key_tokens, layout, row) for row in range(rows)]
    readers = (
        [token_columns(model, address.queries, layout, row) for row in range(rows)]
        if address.site == "pattern"
        else None
    )
    onwards = address.key_tokens in (None, Text())
    parts: list[Part] = []
    for layer in layers:
        found: list[Part] = []
        for row in range(rows):
            found += _layer_parts(model, address, layout, layer, row, chosen[row], onwards)
        if readers is not None:
            read = [_read_by(model, part, layout, readers[part.row], address) for part in found]
            found = [part for part in read if part is not None]
        if not found and address.layers is not None:
            raise PalscopeError(
                f"{address.site}: none of the addressed tokens stands there in layer {layer} under "
                f"this route (audio streams there: {_levels(model, layer)})."
            )
        parts += found
    if not parts:
        raise PalscopeError(
            f"{address.site}: the addressed tokens stand there in no layer under this route:\n"
            f"{route}"
        )
    return Resolved(address, tuple(parts), lambda: _covered(layout, _used(parts)))


def _layer_parts(
    model: HookedAudioModel,
    address: Address,
    layout: TokenLayout,
    layer: int,
    row: int,
    chosen: Int[Tensor, "tokens"],
    onwards: bool,
) -> list[Part]:
    """The parts of one layer and row: tokens that run, and tokens that are keys only."""
    columns = layout.layer_columns(model.current_route, layer)
    running = _among(chosen, columns.running[row])
    memory = _among(chosen, columns.audio[row])
    block = f"blocks.{layer}"
    heads = address.heads
    if address.site == "pattern":
        # Each of a layer's attentions has its own; a key is read in one of them.
        own, crossed = (_among(chosen, each[row]) for each in (columns.keys, columns.crossed))
        both: tuple[tuple[TokenAxis, Tensor, bool], ...] = (
            ("pattern", own, onwards),
            ("cross_pattern", crossed, False),
        )
        parts = [
            Part(f"{block}.{_BLOCK[axis]}", axis, row, keys, on, layer, heads)
            for axis, keys, on in both
        ]
        return [part for part in parts if len(part.columns)]
    if address.site in ("audio_state", "audio_k", "audio_v"):
        letter = address.site[-1]
        audio = f"{block}.{model.audio_attention}"
        if letter in "kv":
            heads = _kv_heads(model, address)
            names = (f"{audio}.hook_audio_{letter}", f"{block}.attn.hook_{letter}")
        else:
            names = (f"{audio}.hook_audio_state", f"{block}.hook_resid_pre")
        parts = [
            Part(names[0], "memory", row, memory, False, layer, heads),
            Part(names[1], "running", row, running, False, layer, heads),
        ]
        return [part for part in parts if len(part.columns)]
    hook = f"{block}.{_BLOCK[address.site]}"
    if address.site.startswith("cross_") and not model.can_fire(hook):
        return []
    axis: TokenAxis = "running"
    if address.site == "mlp_out":
        running = _among(chosen, columns.fed[row])
        # Behind a norm of its own (Gemma, OLMo 2) what was fed stands among the others again.
        axis = "running" if hasattr(model.blocks[layer], "ln2_post") else "fed"
    return [Part(hook, axis, row, running, onwards, layer, heads)] if len(running) else []


def _read_by(
    model: HookedAudioModel,
    part: Part,
    layout: TokenLayout,
    readers: Int[Tensor, "tokens"],
    address: Address,
) -> Part | None:
    """The part with the queries that run in its layer; None when there are none."""
    assert part.layer is not None
    running = layout.layer_columns(model.current_route, part.layer).running[part.row]
    queries = _among(readers, running)
    if not len(queries):
        return None
    return replace(part, queries=queries, queries_onwards=address.queries == Text())


def token_columns(
    model: HookedAudioModel,
    tokens: Tokens | None,
    layout: TokenLayout,
    row: int,
) -> Int[Tensor, "tokens"]:
    """The columns of `tokens` in one row of the layout, in order.

    Raises `PalscopeError` or `PromptError` when there are none, or they cannot be told.
    """
    stream = layout.stream[row]
    if tokens is None:
        return layout.real[row].nonzero()[:, 0]
    if isinstance(tokens, Sound):
        return _sound_columns(tokens, layout, row)
    if isinstance(tokens, Filler):
        return (stream == FILLER).nonzero()[:, 0]
    if tokens.what is None:
        return torch.tensor(text_columns(layout, row), dtype=torch.long)
    if isinstance(tokens.what, str):
        return _string_columns(model, layout, row, tokens.what)
    given = (tokens.what,) if isinstance(tokens.what, int) else tokens.what
    columns = sorted(named_columns(layout, row, given))
    for column in columns:
        if (held := int(stream[column])) != TEXT:
            filler = "a filler; address all of them by Filler()"
            kind = filler if held == FILLER else "sound; address it by Sound(start, end)"
            raise PromptError(f"column {column} of row {row} is no text: it holds {kind}.")
    return torch.tensor(columns)


def _sound_columns(sound: Sound, layout: TokenLayout, row: int) -> Int[Tensor, "tokens"]:
    owned = [clip for clip, owner in enumerate(layout.clip_row) if owner == row]
    if sound.clip >= len(owned):
        raise PalscopeError(
            f"clip {sound.clip} does not exist: row {row} has {len(owned)} clip(s)."
        )
    # A clip's own fillers are silence behind it, which no second of it addresses.
    mine = (layout.clip[row] == owned[sound.clip]) & (layout.stream[row] >= 0)
    if sound.stream is not None:
        names = [stream.name for stream in layout.streams]
        if sound.stream not in names:
            raise PalscopeError(f"no stream {sound.stream!r}; there are: {', '.join(names)}.")
        mine &= layout.stream[row] == names.index(sound.stream)
    starts, ends = layout.seconds[row].unbind(-1)
    stretch = _stretch(sound, float(ends[mine].max()))
    return (mine & overlaps(starts, ends, *stretch)).nonzero()[:, 0]


def _stretch(sound: Sound, length: float) -> tuple[float, float]:
    """First and last second of `sound` in a clip of so many seconds.

    Raises `PalscopeError` when it lies outside; a clip's end may be given a little late.
    """
    end = length if sound.end is None else sound.end
    if sound.start >= length - TOUCH_S or end > length + _LATE_S:
        raise PalscopeError(
            f"{sound.start:.2f} to {end:.2f} s lies outside of clip {sound.clip}, which is "
            f"{length:.2f} s long."
        )
    return sound.start, end


def _string_columns(
    model: HookedAudioModel, layout: TokenLayout, row: int, wanted: str
) -> Int[Tensor, "tokens"]:
    """The text tokens that a string of the prompt covers; a token that it cuts counts whole."""
    tokenizer: Any = model.tokenizer
    places: list[int] = []
    text = ""
    for column in text_columns(layout, row):
        piece = tokenizer.decode([int(layout.ids[row, column])])
        text += piece
        places += [column] * len(piece)
    first = text.find(wanted)
    if first < 0:
        raise PromptError(f"{wanted!r} is not in the prompt's text: {text!r}.")
    if text.find(wanted, first + 1) >= 0:
        raise PromptError(
            f"{wanted!r} is more than once in the prompt's text; give columns of input_ids, or "
            "more of the text around it."
        )
    return torch.tensor(sorted(set(places[first : first + len(wanted)])))


def _kv_heads(model: HookedAudioModel, address: Address) -> tuple[int, ...] | None:
    """Places on the key-value axis of whole groups of query heads."""
    if address.heads is None:
        return None
    heads, shared = model.cfg.n_heads, getattr(model.cfg, "n_key_value_heads", None)
    group = heads // (shared or heads)
    places = sorted({head // group for head in address.heads})
    whole = {place * group + i for place in places for i in range(group)}
    if whole != set(address.heads):
        raise PalscopeError(
            f"query heads {sorted(whole)} share their keys and values: name all of them, or use "
            f"the sites head_output or pattern, which each head has for itself. Got heads "
            f"{list(address.heads)}."
        )
    return tuple(places)


# -- before the decoder ---------------------------------------------------------------------------


def _before_the_decoder(
    model: HookedAudioModel, inputs: Mapping[str, Any], address: Address, layout: TokenLayout
) -> Resolved:
    places = _encoder_places(model, address)
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
        start, end = _stretch(sound, length)
        told: set[tuple[int, TimeGrid]] = set()
        for part, grid in places:
            count = _tokens_of(model, grid, frames[clip])
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


def _tokens_of(model: HookedAudioModel, grid: TimeGrid, frames: int) -> int:
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


def _encoder_places(model: HookedAudioModel, address: Address) -> list[tuple[Part, TimeGrid]]:
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
    wanted = _checked("encoder layer", address.layers, deepest)
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


def _connector_output(model: HookedAudioModel, address: Address, layout: TokenLayout) -> Resolved:
    route = model.current_route
    sound = address.key_tokens
    assert isinstance(sound, Sound)
    parts: list[Part] = []
    used: set[tuple[int, int]] = set()
    for row in range(layout.stream.shape[0]):
        columns = _sound_columns(sound, layout, row)
        for index, stream in enumerate(layout.streams):
            mine = columns[layout.stream[row][columns] == index]
            hooks = [
                f"audio_projector_{stream.name}_{layer}.hook_in"
                for layer, cell in enumerate(route.cells(stream.name))
                if cell.symbol == "P"
            ]
            if any(cell.symbol in "kaFX" for cell in route.cells(stream.name)):
                hooks.append(f"audio_input_{stream.name}.hook_in")
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
    return Resolved(address, tuple(parts), lambda: _covered(layout, used))


# -- shared ---------------------------------------------------------------------------------------


def _checked(kind: str, given: tuple[int, ...] | None, count: int) -> tuple[int, ...]:
    if given is None:
        return tuple(range(count))
    if given[-1] >= count:
        raise PalscopeError(f"{kind} {given[-1]} does not exist; the last is {count - 1}.")
    return given


def _among(chosen: Int[Tensor, "tokens"], columns: Int[Tensor, "places"]) -> Tensor:
    return chosen[torch.isin(chosen, columns)]


def _levels(model: HookedAudioModel, layer: int) -> str:
    route = model.current_route
    return ", ".join(f"{s.name} {route.cell(s.name, layer).level.value}" for s in route.streams)


def _used(parts: Sequence[Part]) -> set[tuple[int, int]]:
    return {(part.row, int(column)) for part in parts for column in part.columns}


def _covered(layout: TokenLayout, used: set[tuple[int, int]]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    names = {kind: name for name, kind in layout.pathways.items()}
    for row in sorted({row for row, _ in used}):
        columns = torch.tensor(sorted(column for r, column in used if r == row))
        stream = layout.stream[row][columns]
        for index, name in names.items():
            mine = columns[stream == index]
            if not len(mine):
                continue
            numbers = mine if index < 0 else layout.token[row][mine]
            seconds = layout.seconds[row][mine]
            rows.append(
                {
                    "row": row,
                    "stream": name,
                    "tokens": len(mine),
                    "first": int(numbers[0]),
                    "last": int(numbers[-1]),
                    "start_s": float(seconds[0, 0]),
                    "end_s": float(seconds[-1, 1]),
                }
            )
    return pd.DataFrame(rows)
