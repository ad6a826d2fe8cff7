"""What stands between the tower of a published model and its decoder, in the connector's place."""

from __future__ import annotations

from torch import Tensor, nn

from palscope._published.family import PublishedFamily
from palscope._routing import CROSSED, FRAMES, Level, Route, Source, Stream
from palscope.audio._timegrid import TimeGrid
from palscope.errors import RouteError


class _Weightless(nn.Module):
    """What a published model has in the connector's place: its own tokens, as they are.

    Attributes:
        input_projectors: what the tokens of all clips pass on their way to the decoder.
    """

    streams: tuple[Stream, ...] = (FRAMES,)

    def __init__(self, grid: TimeGrid) -> None:
        super().__init__()
        self.grid = grid
        self.input_projectors = nn.ModuleDict({FRAMES.name: nn.Identity()})

    def project_input(self, stream: str, tokens: Tensor) -> Tensor:
        """The tokens themselves."""
        return self.input_projectors[stream](tokens)

    def project_layer(self, stream: str, layer: int, tokens: Tensor) -> Tensor:
        """Never called: `check_serves` refuses routes that need it."""
        raise NotImplementedError


class Unprojected(_Weightless):
    """The connector of a published model: tokens enter the decoder as its projector made them.

    It has no weights, so routes that project sound into single layers (LAL) are refused.
    """

    def published_route(self, layers: int) -> Route:
        """The way that sound takes in the published class."""
        return Route.plits(layers)

    def layer_projector(self, stream: str, layer: int) -> nn.Module:
        """Never called: `check_serves` refuses routes that need it."""
        raise NotImplementedError

    def check_serves(self, route: Route) -> None:
        """Check that published weights can run `route`. Raises `RouteError` when they cannot."""
        if route.streams != self.streams:
            raise RouteError(
                f"a published model has one stream, {FRAMES.name}; the route has "
                f"{', '.join(stream.name for stream in route.streams)}."
            )
        cells = route.cells(FRAMES.name)
        projected = [i for i, cell in enumerate(cells) if cell.source is Source.PROJECTED]
        if projected:
            raise RouteError(
                f"layers {projected} read projected sound, but a published model has no projector "
                "for single layers. Routes that need no training: full, carried keys (frozen from "
                "a layer on), attend, absent."
            )


class Crossing(_Weightless):
    """The connector of an encoder–decoder, whose layers all read what the encoder put out.

    It has no weights, so routes that let sound into the decoder's own sequence are refused.
    """

    def published_route(self, layers: int) -> Route:
        """The way that sound takes in the published class."""
        return Route.crossed(layers)

    def layer_projector(self, stream: str, layer: int) -> nn.Module:
        """What all layers' tokens pass, once."""
        return self.input_projectors[stream]

    def check_serves(self, route: Route) -> None:
        """Check that published weights can run `route`. Raises `RouteError` when they cannot."""
        if route.streams != self.streams:
            raise RouteError(
                f"an encoder–decoder has one stream, {FRAMES.name}; the route has "
                f"{', '.join(stream.name for stream in route.streams)}."
            )
        others = [
            layer
            for layer, cell in enumerate(route.cells(FRAMES.name))
            if cell.level is not Level.ABSENT and cell != CROSSED
        ]
        if others:
            raise RouteError(
                f"layers {others} take sound among the words, but this model's decoder has "
                "cross-attention for it: a layer crosses it (X) or does without it (absent)."
            )


def connector_of(family: PublishedFamily) -> Unprojected | Crossing:
    """The connector of a published class."""
    return Crossing(family.grid) if family.crosses else Unprojected(family.grid)
