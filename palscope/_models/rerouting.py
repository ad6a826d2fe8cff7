"""What a model is made to do for the length of a block: another route, cut edges, recorders.

Blocks take turns (`palscope._models.turns`): no thread's or task's block changes another's calls.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from typing import Any

from torch import nn

from palscope._models.decoder import check_crosses, check_keys_are_there
from palscope._models.masks import EdgeCut
from palscope._models.recording import AttentionRecorder, Recording
from palscope._models.turns import Turns
from palscope._routing import Route, TokenLayout
from palscope._whole import whole_numbers
from palscope.errors import HookError, RouteError


class Rerouting(nn.Module):
    """Mixed into a model: its route, and its blocks."""

    turns: Turns
    audio_taps: nn.ModuleList
    connector: Any
    text_config: Any
    _route: Route

    @property
    def route(self) -> Route:
        """The route that forward passes of this context take."""
        return (self._route, *self.turns.values("route"))[-1]

    @route.setter
    def route(self, route: Route) -> None:
        self.check_route(route)
        if self.turns.values("route"):
            raise RouteError(
                "a route is set within a block that has its own, which would go on hiding it. "
                "Leave the block first, or open another in it."
            )
        with self.turns.passing():
            self._route = route

    def check_route(self, route: Route) -> None:
        """Check that the weights can serve `route`. Raises `RouteError` when they cannot."""
        if route.n_layers != len(self.audio_taps):
            raise RouteError(
                f"the route has {route.n_layers} layers, this decoder {len(self.audio_taps)}."
            )
        check_crosses(self.text_config, route)
        self.connector.check_serves(route)
        check_keys_are_there(self.text_config, route)

    @contextmanager
    def routed(self, route: Route) -> Generator[Route, None, None]:
        """Take `route` within the block, errors or not.

        Passes of other threads and tasks take theirs.

        Raises:
            RouteError: the weights cannot serve it.
        """
        self.check_route(route)
        with self.turns.block("route", route):
            yield route

    @contextmanager
    def cutting(self, *cuts: EdgeCut) -> Generator[None, None, None]:
        """Within the block, attention does not use the edges that `cuts` name (or those before)."""
        with self.turns.block("cut edges", cuts):
            yield

    @property
    def current_cuts(self) -> tuple[EdgeCut, ...]:
        """The edges that attention does not use now."""
        return tuple(cut for cuts in self.turns.values("cut edges") for cut in cuts)

    @contextmanager
    def expecting(self, check: Callable[[TokenLayout], None]) -> Generator[None, None, None]:
        """Within the block, `check` gets every call's layout, before anything is computed.

        It raises where the block was not made for such a call.
        """
        with self.turns.block("expected inputs", check):
            yield

    @property
    def is_watched(self) -> bool:
        """Whether someone is being shown what attention is computed from."""
        return bool(self.turns.values("recorded attention"))

    @contextmanager
    def recording_attention(
        self, recorder: AttentionRecorder, layers: Collection[int] | None = None
    ) -> Generator[None, None, None]:
        """Within the block, `recorder` is shown what each layer's attention was computed from.

        Attention runs as it does unwatched, fused where it is fused, so no result changes.

        Args:
            layers: those to record; all by default.

        Raises:
            HookError: nothing was called within the block, or attention of a layer is computed by
                TransformerLens, because something inside it is hooked.
        """
        wanted = range(len(self.audio_taps)) if layers is None else whole_numbers(layers, "layers")
        recording = Recording(recorder, wanted)
        with self.turns.block("recorded attention", recording):
            yield
        if not recording.fired:
            raise HookError(
                "the recorder saw no layer: was the model called within the block, and is there "
                f"a layer among {list(recording.layers)}?"
            )

    def _check_expected(self, layout: TokenLayout) -> None:
        for check in self.turns.values("expected inputs"):
            check(layout)
