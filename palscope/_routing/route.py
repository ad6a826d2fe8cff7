"""The route: at which layer, at which level and from which source each audio stream takes part.

A route is the small table *streams × layers → level* that covers the three integrations of the PAL
paper (arXiv 2506.10423, sections 3.1 to 3.3) and the ablations around them. It is plain, frozen
data: it prints as a table, goes into a config, is compared and swept. Replacing a model's route is
how its injection layers are swapped at run time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from html import escape
from typing import Any, Literal

from palscope._whole import whole_number, whole_numbers
from palscope.errors import RouteError

FrameReaders = Literal["all", "text"]


class Level(str, Enum):
    """What a stream's tokens do in one decoder layer."""

    ABSENT = "absent"
    """The layer cannot see them."""
    KEYS = "keys"
    """Keys and values only: text reads them, they do not change (LAL)."""
    ATTEND = "attend"
    """They also query, but skip the feed-forward network (the audio-query ablation)."""
    FULL = "full"
    """Ordinary tokens of the sequence (PLITS)."""

    @property
    def runs(self) -> bool:
        """Whether the tokens stand in the layer's sequence and are changed by it."""
        return self in (Level.ATTEND, Level.FULL)


class Source(str, Enum):
    """Where a `keys` cell takes the stream's state from."""

    CARRIED = "carried"
    """The state left by the layer below; at the bottom, the connector's input projection."""
    PROJECTED = "projected"
    """A projector of this layer maps the connector's output into the layer's input space."""
    CROSSED = "crossed"
    """The encoder's output, read by an attention of the layer's own, apart from the text's."""


@dataclass(frozen=True)
class Stream:
    """A set of audio tokens of one clip: every `ratio` frame tokens make one token of it."""

    name: str
    ratio: int = 1

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise RouteError(f"stream name {self.name!r} is no identifier; use e.g. 'frames'.")
        ratio = whole_number(self.ratio, f"stream {self.name!r}: ratio", least=1, error=RouteError)
        object.__setattr__(self, "ratio", ratio)

    def tokens(self, frames: int) -> int:
        """Number of this stream's tokens for a clip of `frames` frame tokens."""
        return -(-frames // self.ratio)


FRAMES = Stream("frames", 1)
SUMMARY = Stream("summary", 3)  # The paper's r = 3 (section 3.3, Eq. 5).


@dataclass(frozen=True)
class RouteCell:
    """One cell of the table: a stream in one layer."""

    level: Level = Level.ABSENT
    source: Source = Source.CARRIED

    def __post_init__(self) -> None:
        object.__setattr__(self, "level", Level(self.level))
        object.__setattr__(self, "source", Source(self.source))
        if self.source is not Source.CARRIED and self.level is not Level.KEYS:
            raise RouteError(
                f"level {self.level.value!r} cannot be {self.source.value}: only 'keys' takes its "
                "state from elsewhere; 'attend' and 'full' carry the state of the layer below."
            )

    @property
    def symbol(self) -> str:
        """One character for tables.

        `.` absent; keys: `k` carried, `P` projected, `X` crossed; `a` attend; `F` full.
        """
        if self.level is Level.KEYS:
            return {Source.CARRIED: "k", Source.PROJECTED: "P", Source.CROSSED: "X"}[self.source]
        return {Level.ABSENT: ".", Level.ATTEND: "a", Level.FULL: "F"}[self.level]


SYMBOL_COLOURS = {
    ".": "#8080801f",
    "k": "#9ecae1",
    "P": "#4a98cf",
    "X": "#7fc8b4",
    "a": "#fdae6b",
    "F": "#f07f3c",
}
"""CSS colour of a cell by its symbol: blue and green are only read, orange also reads.

Black text is readable on all but absent, which lets a light or dark page through.
"""

_LEGEND = "F full, a attend, P projected keys, k carried keys, . absent"
_CROSSED = "X keys of an attention of their own, . absent"

ABSENT = RouteCell()
KEYS = RouteCell(Level.KEYS, Source.CARRIED)
PROJECTED = RouteCell(Level.KEYS, Source.PROJECTED)
CROSSED = RouteCell(Level.KEYS, Source.CROSSED)
ATTEND = RouteCell(Level.ATTEND)
FULL = RouteCell(Level.FULL)


@dataclass(frozen=True)
class Route:
    """Streams × layers → level.

    `rows` holds, for each stream, one cell for each of `n_layers` decoder layers. `frame_readers`
    says who may read `frames` tokens: `"all"` queries, or `"text"` alone; the paper does not say
    whether summary queries may, so `"all"` is palscope's default.
    """

    n_layers: int
    rows: tuple[tuple[Stream, tuple[RouteCell, ...]], ...]
    frame_readers: FrameReaders = "all"

    def __post_init__(self) -> None:
        n_layers = whole_number(self.n_layers, "n_layers", least=1, error=RouteError)
        object.__setattr__(self, "n_layers", n_layers)
        if self.frame_readers not in ("all", "text"):
            raise RouteError(f"frame_readers is {self.frame_readers!r}; expected 'all' or 'text'.")
        # Lists would compare unequal to the same route from a config, and could not be hashed.
        rows = tuple((stream, tuple(cells)) for stream, cells in self.rows)
        object.__setattr__(self, "rows", rows)
        names = [stream.name for stream, _ in self.rows]
        if len(set(names)) != len(names):
            raise RouteError(f"a stream stands twice in the route: {names}.")
        for stream, cells in self.rows:
            if len(cells) != self.n_layers:
                raise RouteError(
                    f"stream {stream.name!r} has {len(cells)} cells for {self.n_layers} layers; "
                    "give one cell a layer."
                )

    # -- the paper's integrations ---------------------------------------------------------------

    @classmethod
    def plits(cls, n_layers: int) -> Route:
        """Audio tokens in the text sequence, at every layer (paper, section 3.1)."""
        return cls(n_layers, ((FRAMES, (FULL,) * n_layers),))

    @classmethod
    def lal(cls, n_layers: int, layers: Iterable[int] | None = None) -> Route:
        """Audio as keys and values only, in `layers` (all by default; paper, section 3.2)."""
        route = cls(n_layers, ((FRAMES, (ABSENT,) * n_layers),))
        return route.with_cell("frames", range(n_layers) if layers is None else layers, PROJECTED)

    @classmethod
    def pal(
        cls, n_layers: int, layers: Iterable[int] | None = None, summary: Stream = SUMMARY
    ) -> Route:
        """LAL in the first third of the layers, and a summary through PLITS (section 3.3)."""
        first_third = range(max(1, round(n_layers / 3)))
        lal = cls.lal(n_layers, first_third if layers is None else layers)
        return replace(lal, rows=(*lal.rows, (summary, (FULL,) * n_layers)))

    @classmethod
    def crossed(cls, n_layers: int, layers: Iterable[int] | None = None) -> Route:
        """Audio read by cross-attention, in `layers` (all by default): encoder–decoders.

        As in LAL, it is keys and values only; but a layer reads it in an attention of its own,
        whose weights sum to 1 over audio alone. A layer where it is absent skips that attention.
        """
        route = cls(n_layers, ((FRAMES, (ABSENT,) * n_layers),))
        return route.with_cell("frames", range(n_layers) if layers is None else layers, CROSSED)

    # -- reading --------------------------------------------------------------------------------

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams, in the order of the rows."""
        return tuple(stream for stream, _ in self.rows)

    def cells(self, stream: str) -> tuple[RouteCell, ...]:
        """All cells of one stream, bottom layer first."""
        for candidate, cells in self.rows:
            if candidate.name == stream:
                return cells
        known = ", ".join(s.name for s in self.streams) or "none"
        raise RouteError(f"the route has no stream {stream!r}; it has: {known}.")

    def cell(self, stream: str, layer: int) -> RouteCell:
        """The cell of one stream at one layer."""
        return self.cells(stream)[self._checked_layer(layer)]

    def streams_at(self, layer: int, *levels: Level) -> tuple[str, ...]:
        """Names of the streams whose level at `layer` is one of `levels`."""
        layer = self._checked_layer(layer)
        return tuple(s.name for s, cells in self.rows if cells[layer].level in levels)

    def crosses(self, layer: int) -> bool:
        """Whether `layer` reads audio in an attention of its own."""
        layer = self._checked_layer(layer)
        return any(cells[layer].source is Source.CROSSED for _, cells in self.rows)

    def layers(self, stream: str, *levels: Level) -> tuple[int, ...]:
        """Layers at which `stream` has one of `levels` (any but absent when none is given)."""
        wanted = levels or (Level.KEYS, Level.ATTEND, Level.FULL)
        return tuple(i for i, cell in enumerate(self.cells(stream)) if cell.level in wanted)

    # -- changing: each returns a new route --------------------------------------------------------

    def with_cell(self, stream: str, layers: Iterable[int], cell: RouteCell) -> Route:
        """This route with `cell` at `layers` of `stream`."""
        chosen = self._checked_layers(layers)
        old = self.cells(stream)
        new = tuple(cell if i in chosen else c for i, c in enumerate(old))
        return replace(self, rows=tuple((s, new if s.name == stream else c) for s, c in self.rows))

    def mute(self, stream: str, layers: Iterable[int] | None = None) -> Route:
        """This route with `stream` absent at `layers` (all by default)."""
        return self.with_cell(stream, range(self.n_layers) if layers is None else layers, ABSENT)

    def keep(self, stream: str, layers: Iterable[int]) -> Route:
        """This route with `stream` absent everywhere but at `layers`."""
        kept = self._checked_layers(layers)
        return self.mute(stream, (i for i in range(self.n_layers) if i not in kept))

    def frozen_from(self, layer: int, stream: str = "frames") -> Route:
        """This route with `stream`'s tokens turned into unchanging keys from `layer` upwards.

        Tokens that ran below stay as the layer below left them (PLITS frozen from layer L).
        """
        layer = self._checked_layer(layer)
        return self.with_cell(stream, (i for i in self.layers(stream) if i >= layer), KEYS)

    def with_audio_queries(self, stream: str = "frames") -> Route:
        """This route with `attend` wherever `stream` was seen: the audio-query ablation."""
        return self.with_cell(stream, self.layers(stream), ATTEND)

    # -- plain data -----------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for a JSON config; `from_dict` gives the same route back."""
        return {
            "n_layers": self.n_layers,
            "frame_readers": self.frame_readers,
            "streams": [
                {
                    "name": stream.name,
                    "ratio": stream.ratio,
                    "levels": [cell.level.value for cell in cells],
                    "sources": [cell.source.value for cell in cells],
                }
                for stream, cells in self.rows
            ],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Route:
        """A route from what `to_dict` gave.

        Raises:
            RouteError: a field is missing or has an unknown value.
        """
        try:
            rows = tuple(
                (
                    Stream(row["name"], row["ratio"]),
                    tuple(
                        RouteCell(Level(level), Source(source))
                        for level, source in zip(row["levels"], row["sources"], strict=True)
                    ),
                )
                for row in data["streams"]
            )
            return cls(data["n_layers"], rows, data["frame_readers"])
        except RouteError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RouteError(
                f"not a route: {error!r}. Expected what Route.to_dict() writes."
            ) from error

    def __str__(self) -> str:
        width = max((len(s.name) for s in self.streams), default=0)
        lines = [f"{s.name:>{width}} {''.join(c.symbol for c in cells)}" for s, cells in self.rows]
        return "\n".join([*lines, f"({self.n_layers} layers, bottom first: {self._legend})"])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{i}</th>" for i in range(self.n_layers))
        body = "".join(
            f"<tr><th>{escape(stream.name)}</th>"
            + "".join(
                f'<td title="layer {i}: {c.level.value}, {c.source.value}" style="'
                f"background:{SYMBOL_COLOURS[c.symbol]};"
                # Coloured cells are light enough for black in either theme.
                f"color:{'inherit' if c.level is Level.ABSENT else '#000'};"
                f'text-align:center;padding:1px 4px">{c.symbol}</td>'
                for i, c in enumerate(cells)
            )
            + "</tr>"
            for stream, cells in self.rows
        )
        table = f'<table style="color:inherit"><tr><th>layer</th>{head}</tr>{body}</table>'
        return f'<div style="overflow-x:auto">{table}{self._legend}</div>'

    @property
    def _legend(self) -> str:
        """What the symbols mean; a model has one kind of attention for audio, and so one legend."""
        crossed = any(cell.source is Source.CROSSED for _, cells in self.rows for cell in cells)
        return _CROSSED if crossed else _LEGEND

    def _checked_layer(self, layer: int) -> int:
        layer = whole_number(layer, "layer", error=RouteError)
        if not 0 <= layer < self.n_layers:
            raise RouteError(f"layer {layer} is not in 0 to {self.n_layers - 1}.")
        return layer

    def _checked_layers(self, layers: Iterable[int]) -> set[int]:
        numbers = whole_numbers(layers, "layers", error=RouteError)
        return {self._checked_layer(layer) for layer in numbers}
