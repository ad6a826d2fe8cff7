"""An address, exactly: its tokens at each hook point, in each row of the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor

from palscope._routing import TokenLayout
from palscope.errors import PalscopeError
from palscope.interventions._address import Address, Filler, Sound, Text

TokenAxis = Literal[
    "running", "memory", "fed", "pattern", "cross_pattern", "passing", "clip_tokens", "mel"
]
"""How a hook point's tensor is laid out; `Places` knows each."""

OF_CLIPS = ("passing", "mel", "clip_tokens")
"""Layouts before the decoder, where a part's row is a clip of the batch."""


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
        heads: places on the axis behind the tokens, None for all: heads, or a dictionary's
            features.
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


def checked(kind: str, given: tuple[int, ...] | None, count: int) -> tuple[int, ...]:
    if given is None:
        return tuple(range(count))
    if given[-1] >= count:
        raise PalscopeError(f"{kind} {given[-1]} does not exist; the last is {count - 1}.")
    return given


def used_columns(parts: Sequence[Part]) -> set[tuple[int, int]]:
    return {(part.row, int(column)) for part in parts for column in part.columns}


def covered_by(layout: TokenLayout, used: set[tuple[int, int]]) -> pd.DataFrame:
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
