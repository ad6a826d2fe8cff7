"""Routes that differ in where audio enters the decoder, for sweeps of injection depth.

The PAL paper's versions disagree about depth: the first (June 2025) lets audio in late, skipping
four layers, the third (February 2026) in the first third of the layers (section 3.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from palscope._routing.route import ATTEND, FULL, KEYS, Route, RouteCell
from palscope.errors import RouteError

SKIPPED = 4
"""Layers without audio in the paper's first version."""
NO_AUDIO = "no audio"
"""Name and family of the control: every stream absent, the text's positions as they were."""


@dataclass(frozen=True)
class Placement:
    """A route, named by the layers that audio has: `LAL 0-9` has the first ten.

    Attributes:
        name: the same for the same route.
        family: the sweep that it is a point of; one route may stand in several.
        route: what to take.
        layers: in how many layers the stream that the sweep is about takes part.
        first_layer: the lowest of them.
    """

    name: str
    family: str
    route: Route
    layers: int
    first_layer: int


def first_layers(n_layers: int, share: float) -> range:
    """The lowest `share` of `n_layers` layers, rounded to whole layers, at least one."""
    return range(max(1, round(n_layers * share)))


def no_audio(route: Route) -> Placement:
    """The control: `route` with every stream absent."""
    for stream in route.streams:
        route = route.mute(stream.name)
    return Placement(NO_AUDIO, NO_AUDIO, route, 0, 0)


# -- one checkpoint, rerouted ---------------------------------------------------------------------


def rerouted_depths(route: Route) -> list[Placement]:
    """The depths at which a checkpoint that was trained on `route` can be given audio.

    LAL, and what an encoder–decoder crosses: first layers, from a layer upwards, a window that
    slides. PAL: LAL in the first of the
    layers that have it, with and without the summary; the summary from a layer upwards. PLITS:
    frozen from a layer upwards. For each the route itself, and the control without audio.

    Raises:
        RouteError: `route` is none of these.
    """
    frames = {cell.symbol for cell in route.cells("frames")} - {"."}
    names = [stream.name for stream in route.streams]
    if frames == {"F"} and names == ["frames"]:
        found = _plits_depths(route)
    elif frames in ({"P"}, {"X"}) and names == ["frames"]:
        found = _key_depths(route, "LAL" if frames == {"P"} else "crossed")
    elif frames == {"P"} and names == ["frames", "summary"]:
        found = _pal_depths(route)
    else:
        raise RouteError(
            "no sweep of depth for this route; expected PLITS, LAL, PAL or an encoder–decoder's, "
            f"got:\n{route}"
        )
    return once([*found, no_audio(route)])


def _key_depths(route: Route, kind: str) -> list[Placement]:
    has, n = route.layers("frames"), route.n_layers
    bottom = [first_layers(len(has), share) for share in (1 / 4, 1 / 3, 1 / 2, 3 / 4, 1)]
    starts = [0, SKIPPED, *(round(n * share) for share in (1 / 4, 1 / 3, 1 / 2, 2 / 3, 5 / 6))]
    top = [range(start, len(has)) for start in (*starts, n - 2, n - 1) if 0 <= start < len(has)]
    width = max(1, round(len(has) / 4))
    last = len(has) - width
    windows = [range(at, at + width) for at in (*range(0, last, max(1, width // 2)), last)]

    def kept(places: Sequence[int], family: str) -> Placement:
        layers = [has[place] for place in places]
        name = f"{kind} {_span(layers)}"
        return Placement(
            name, f"{kind}, {family}", route.keep("frames", layers), len(layers), layers[0]
        )

    return [
        *(kept(places, "first layers") for places in bottom),
        *(kept(places, "from a layer upwards") for places in top),
        *(kept(places, f"window of {width}") for places in windows),
    ]


def _pal_depths(route: Route) -> list[Placement]:
    has, n = route.layers("frames"), route.n_layers
    found: list[Placement] = []
    for share in (0, 1 / 5, 1 / 2, 4 / 5, 1):
        layers = has[: round(len(has) * share)]
        split = route.keep("frames", layers)
        name = f"PAL {_span(layers)}"
        found.append(Placement(name, "PAL, summary and LAL in the first", split, len(layers), 0))
        if layers:
            without = split.mute("summary")
            name += ", no summary"
            found.append(Placement(name, "PAL, LAL in the first alone", without, len(layers), 0))
    starts = (0, SKIPPED, *(round(n * share) for share in (1 / 3, 1 / 2, 2 / 3, 5 / 6)))
    for start in (each for each in starts if each < n):
        name = f"PAL {_span(has)}" + (f", summary from {start}" if start else "")
        late = route.mute("summary", range(start))
        family = "PAL, summary from a layer upwards"
        found.append(Placement(name, family, late, n - start, start))
    return found


def _plits_depths(route: Route) -> list[Placement]:
    n = route.n_layers
    frozen = [round(n * share) for share in (0, 1 / 4, 1 / 3, 1 / 2, 3 / 4)]
    family = "PLITS, frozen above the first"
    return [
        *(
            Placement(f"PLITS frozen from {layer}", family, route.frozen_from(layer), layer, 0)
            for layer in frozen
            if layer < n
        ),
        Placement(f"PLITS {_span(range(n))}", family, route, n, 0),
    ]


LEVELS: dict[str, RouteCell] = {"full": FULL, "queries": ATTEND, "keys": KEYS}
"""What the audio-query ablation compares: carried tokens that attend and pass the feed-forward
network, attend alone, or are only read."""


def rerouted_queries(route: Route) -> list[Placement]:
    """The audio-query ablation on one checkpoint: its carried stream at each level.

    In all layers, and in the first third alone (absent above). A checkpoint without an input
    projector for that stream (LAL) cannot serve them: `model.check_route` says so.
    """
    names = [stream.name for stream in route.streams]
    stream = "summary" if "summary" in names else "frames"
    found: list[Placement] = []
    for layers in (range(route.n_layers), first_layers(route.n_layers, 1 / 3)):
        for level, cell in LEVELS.items():
            levelled = route.keep(stream, ()).with_cell(stream, layers, cell)
            name = f"{stream} {level} {_span(layers)}"
            family = f"{stream}: {level}"
            found.append(Placement(name, family, levelled, len(layers), layers[0]))
    return once([*found, no_audio(route)])


def once(placements: Iterable[Placement]) -> list[Placement]:
    """Each family's different routes: in a small decoder a quarter and a third may be one layer."""
    return list({(each.family, each.name): each for each in placements}.values())


def _span(layers: Sequence[int]) -> str:
    return f"{layers[0]}-{layers[-1]}" if layers else "none"
