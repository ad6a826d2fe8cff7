"""Which columns of a prompt the tokens of an address are."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from palscope._hooks import HookedAudioModel
from palscope._routing import TokenLayout
from palscope._routing.layout import FILLER, TEXT
from palscope._routing.row_columns import named_columns, text_columns
from palscope.audio._timegrid import TOUCH_S, overlaps
from palscope.errors import PalscopeError, PromptError
from palscope.interventions._address import Filler, Sound, Tokens

_LATE_S = 0.1
"""A stretch may end so much behind its clip: features and tokens round a clip's length."""


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
        return sound_columns(tokens, layout, row)
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


def sound_columns(sound: Sound, layout: TokenLayout, row: int) -> Int[Tensor, "tokens"]:
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
    first, last = stretch(sound, float(ends[mine].max()))
    return (mine & overlaps(starts, ends, first, last)).nonzero()[:, 0]


def stretch(sound: Sound, length: float) -> tuple[float, float]:
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
