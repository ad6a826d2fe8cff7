"""Routes that differ in where audio enters the decoder, for sweeps of injection depth.

The PAL paper's versions disagree about depth: the first (June 2025) lets audio in late, skipping
four layers, the third (February 2026) in the first third of the layers (section 3.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from palscope.routing.route import Route

SKIPPED = 4
"""Layers without audio in the paper's first version."""


@dataclass(frozen=True)
class Placement:
    """A route with a name that says which layers audio has: `LAL 0-9` has the first ten.

    `family` is the sweep that it is a point of. One route may stand in several.
    """

    name: str
    family: str
    route: Route


def first_layers(n_layers: int, share: float) -> range:
    """The lowest `share` of `n_layers` layers, rounded to whole layers, at least one."""
    return range(max(1, round(n_layers * share)))


def lal_at(n_layers: int, layers: Sequence[int], family: str) -> Placement:
    """LAL in these neighbouring layers and no others."""
    return Placement(f"LAL {_span(layers)}", family, Route.lal(n_layers, layers))


def pal_at(n_layers: int, layers: Sequence[int], family: str) -> Placement:
    """PAL: LAL in these neighbouring layers, the summary in all."""
    return Placement(f"PAL {_span(layers)}", family, Route.pal(n_layers, layers))


def queries_at(n_layers: int, layers: Sequence[int], family: str) -> Placement:
    """Frames that attend in these neighbouring layers, their state carried, and are absent above.

    LAL with audio queries: like LAL's they skip the feed-forward network; unlike LAL's they read.
    """
    route = Route.lal(n_layers, layers).with_audio_queries()
    return Placement(f"queries {_span(layers)}", family, route)


def trained_depths(n_layers: int) -> list[Placement]:
    """The depths to train a connector each for: LAL and PAL from the first quarter upwards."""
    lal = [first_layers(n_layers, share) for share in (1 / 4, 1 / 3, 1 / 2, 1)]
    pal = [first_layers(n_layers, share) for share in (1 / 4, 1 / 3, 1 / 2, 3 / 4)]
    late = range(min(SKIPPED, n_layers - 1), n_layers)
    placements = [lal_at(n_layers, layers, "LAL, first layers") for layers in lal]
    placements += [lal_at(n_layers, late, "LAL, starting late")]
    return once([*placements, *(pal_at(n_layers, layers, "PAL, split") for layers in pal)])


def trained_queries(n_layers: int) -> list[Placement]:
    """LAL with and without audio queries, in all layers and in the first third."""
    spans = [range(n_layers), first_layers(n_layers, 1 / 3)]
    placements = [lal_at(n_layers, layers, "LAL") for layers in spans]
    return once(
        [*placements, *(queries_at(n_layers, layers, "LAL with audio queries") for layers in spans)]
    )


def once(placements: Iterable[Placement]) -> list[Placement]:
    """Each family's different routes: in a small decoder a quarter and a third may be one layer."""
    return list({(each.family, each.name): each for each in placements}.values())


def _span(layers: Sequence[int]) -> str:
    return f"{layers[0]}-{layers[-1]}"
