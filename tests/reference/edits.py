"""What the reference can change, and where: a list of plain rules, gone through at every value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Token:
    """What stands in a column: a word (stream "text"), or a token of a clip and its seconds."""

    column: int
    stream: str
    number: int
    clip: int = -1
    start: float = float("nan")
    end: float = float("nan")


Which = Callable[[Token], bool]
Change = Callable[[Tensor, Sequence[Token], int], Tensor]
"""New values of old ones, `[tokens, ...]`, in a layer."""


def text(token: Token) -> bool:
    return token.stream == "text"


def sound(start: float, end: float, clip: int = 0, stream: str | None = None) -> Which:
    """Tokens over some of these seconds of a clip."""

    def chosen(token: Token) -> bool:
        mine = token.clip == clip and stream in (None, token.stream)
        return mine and max(token.start, start) < min(token.end, end) - 1e-9

    return chosen


@dataclass(frozen=True)
class Edit:
    """Change the values of some tokens at a site; None for every layer and head."""

    site: str
    which: Which
    change: Change
    layers: Sequence[int] | None = None
    heads: Sequence[int] | None = None


@dataclass(frozen=True)
class Cut:
    """Take away the edges from `queries` to `keys`, before the softmax."""

    queries: Which
    keys: Which
    layers: Sequence[int] | None = None
    heads: Sequence[int] | None = None


def name_of(token: Token) -> tuple[Any, ...]:
    """What a token is called in another run, too: where a clip may be longer, say."""
    if token.clip < 0:
        return token.stream, token.column
    return token.stream, token.clip, token.number


@dataclass
class Trace:
    """The edits that a run undergoes; `seen` holds what each token's values became, by site, layer.

    Values are `[tokens, ...]`, and `[tokens, heads, ...]` where there are heads.
    """

    edits: Sequence[Edit] = ()
    seen: dict[tuple[str, int], dict[tuple[Any, ...], Tensor]] = field(default_factory=dict)

    def __call__(self, site: str, layer: int, tokens: Sequence[Token], values: Tensor) -> Tensor:
        for edit in self.edits:
            at = [i for i, token in enumerate(tokens) if edit.which(token)]
            if edit.site != site or not at or layer not in (edit.layers or (layer,)):
                continue
            old = values[at]
            new = old.clone()
            heads = slice(None) if edit.heads is None else list(edit.heads)
            where = ... if edit.heads is None else (slice(None), heads)
            new[where] = edit.change(old[where], [tokens[i] for i in at], layer)
            values = values.index_copy(0, torch.tensor(at), new)
        held = self.seen.setdefault((site, layer), {})
        held |= {name_of(token): value for token, value in zip(tokens, values, strict=True)}
        return values

    def of(self, site: str, layer: int, tokens: Sequence[Token]) -> Tensor:
        """What stood at the tokens of the same names."""
        return torch.stack([self.seen[site, layer][name_of(token)] for token in tokens])
