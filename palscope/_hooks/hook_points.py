"""Hook points: which of them a name or a function stands for, and which can fire.

TransformerLens takes hooks that no call reaches: under another route, above the layer at which a
call stops, on a name that a function does not match. A function stands for those that it
matches and that can fire; there must be one.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, cast

from transformer_lens.hook_points import HookPoint

from palscope._hooks.added import hook_site
from palscope._hooks.attention import ATTENTIONS, AUDIO_HOOKS
from palscope._hooks.turns import BridgeInTurns
from palscope._models.families import family_of, key_layer
from palscope._routing import Level
from palscope.errors import HookError

if TYPE_CHECKING:
    from palscope._models.audio_model import AudioLanguageModel

AUDIO_PARTS = ("audio_",)
"""Prefix of the hook points of the encoder and the connector."""

HookName = str | Callable[[str], bool]
"""The name of a hook point, or a function that says of each name whether it is meant."""


class HookPointsBridge(BridgeInTurns):
    """A bridge that knows which of its hook points a call reaches."""

    model: AudioLanguageModel
    _unreached: frozenset[str] = frozenset()

    @property
    def audio_attention(self) -> str:
        """Name of the attention in each layer that reads audio: the only one, or the second."""
        crossing = family_of(self.model.text_config).crossing is not None
        return ATTENTIONS[1] if crossing else ATTENTIONS[0]

    def attentions(self, layer: int) -> dict[str, Any]:
        """The attentions that a layer runs under the current route, by their names in it."""
        block: Any = cast(Any, self).blocks[layer]
        found = {name: getattr(block, name) for name in ATTENTIONS if hasattr(block, name)}
        if not self.model.route.crosses(layer):
            found.pop("cross_attn", None)
        return found

    def can_fire(self, name: str) -> bool:
        """Whether the hook point `name` fires under the current route."""
        point = self.hook_dict.get(name)
        return point is not None and self._why_unreached(point.name or name) is None

    def hook_point(self, name: str) -> HookPoint:
        """The hook point `name`, or that of which it is an alias.

        Raises `HookError` when it does not exist, or cannot fire under the current route.
        """
        return self.find_hook_points([name])[name]

    def find_hook_points(self, names: Collection[str]) -> dict[str, HookPoint]:
        """The hook points of these names. Raises `HookError` as `hook_point`."""
        known = self.hook_dict  # TransformerLens makes it anew each time it is asked
        for name in names:
            self._check_name(name, known)
        return {name: known[name] for name in names}

    def hook_names(
        self,
        place: HookName,
        known: Mapping[str, HookPoint] | None = None,
        stop_at_layer: int | None = None,
    ) -> list[str]:
        """The hook points that `place` stands for, each by one name.

        Args:
            place: a name, or a function of names: of those that it matches, those that can fire.
            known: `hook_dict`, which TransformerLens makes anew each time it is asked.
            stop_at_layer: the layer before which the call stops.

        Raises:
            HookError: there is none, or it cannot fire.
        """
        known = self.hook_dict if known is None else known
        if isinstance(place, str):
            self._check_name(place, known, stop_at_layer)
            return [place]
        matched = {point.name or name: name for name, point in known.items() if place(name)}
        if not matched:
            raise HookError(
                "the function matches no hook point: it is asked of each name in hook_dict, such "
                f"as {next(iter(known))!r}."
            )
        reasons = {name: self._why_unreached(name, stop_at_layer) for name in matched}
        found = [name for name, reason in reasons.items() if reason is None]
        if not found:
            name, reason = next(iter(reasons.items()))
            raise HookError(
                f"none of the {len(matched)} hook points that the function matches can fire; "
                f"{name!r}: {reason}."
            )
        return found

    def wanted(
        self,
        names: Any,
        known: Mapping[str, HookPoint],
        stop_at_layer: int | None = None,
        sliced: bool = False,
    ) -> list[str]:
        """The names that a `names_filter` stands for, aliases as such."""
        if names is None or callable(names):
            matched = [name for name in known if names is None or names(name)]
            if names is not None:
                self.hook_names(cast(HookName, names), known, stop_at_layer)
            found = [
                name
                for name in matched
                if self._why_unreached(known[name].name or name, stop_at_layer) is None
            ]
            return [name for name in found if not (sliced and names is None and of_audio(name))]
        found = [names] if isinstance(names, str) else [str(name) for name in names]
        for name in found:
            self._check_name(name, known, stop_at_layer)
            if sliced and of_audio(known[name].name or name):
                raise HookError(
                    f"pos_slice counts the tokens that run in a layer, but {name!r} holds sound's. "
                    "Cache it whole and take what layout(inputs) says of its columns."
                )
        return found

    def _check_name(
        self,
        name: str,
        known: Mapping[str, HookPoint] | None = None,
        stop_at_layer: int | None = None,
    ) -> None:
        known = self.hook_dict if known is None else known
        if name not in known:
            near = difflib.get_close_matches(name, list(known), n=4, cutoff=0.4)
            raise HookError(f"no hook point {name!r}; nearest: {', '.join(near) or 'none'}.")
        reason = self._why_unreached(known[name].name or name, stop_at_layer)
        if reason is not None:
            near = [
                n for n in difflib.get_close_matches(name, list(known), n=12) if self.can_fire(n)
            ]
            raise HookError(
                f"hook point {name!r} cannot fire: {reason}. Nearest that can: "
                f"{', '.join(near[:4]) or 'none'}."
            )

    def _why_unreached(self, name: str, stop_at_layer: int | None = None) -> str | None:
        """Why nothing passes the hook point `name` under the current route; None when it does."""
        name = hook_site(name)
        flag = self._gated_hook_reason(name)
        if flag is not None:
            return f"{flag} is False; call set_{flag}(True) first"
        if name in self._unreached:
            return "this architecture's forward never passes it"
        return self._why_above(name, stop_at_layer) or self._why_unrouted(name)

    def _why_above(self, name: str, stop_at_layer: int | None) -> str | None:
        """Why a call that stops before a layer does not reach `name`."""
        if stop_at_layer is None:
            return None
        layers = len(self.model.audio_taps)
        stop = stop_at_layer + layers if stop_at_layer < 0 else stop_at_layer
        first, *rest = name.split(".")
        below = int(rest[0]) < stop if first == "blocks" else first not in ("ln_final", "unembed")
        return None if below or stop >= layers else f"the call stops before layer {stop}"

    def _why_unrouted(self, name: str) -> str | None:
        """Why the current route does not reach `name`."""
        parts = name.split(".")
        route = self.model.route
        if parts[-1] in AUDIO_HOOKS:
            layer = int(parts[1])
            source = key_layer(self.model.text_config, layer)
            if source != layer:
                return f"layer {layer} has no keys of its own; it reads those of layer {source}"
            if route.streams_at(layer, Level.KEYS):
                return None
            having = [
                i
                for i in range(route.n_layers)
                if route.streams_at(i, Level.KEYS) and key_layer(self.model.text_config, i) == i
            ]
            return (
                f"layer {layer} reads no audio as keys under this route; layers that do: {having}"
            )
        if parts[0] == "blocks" and parts[2] in ("cross_attn", "ln_cross"):
            layer = int(parts[1])
            if not route.crosses(layer):
                having = [i for i in range(route.n_layers) if route.crosses(i)]
                return f"layer {layer} crosses no audio under this route; layers that do: {having}"
        if parts[0].startswith("audio_projector_"):
            stream, layer = parts[0].removeprefix("audio_projector_").rsplit("_", 1)
            if route.cell(stream, int(layer)).symbol != "P":
                return f"the route does not use the projector of stream {stream} at layer {layer}"
        if parts[0].startswith("audio_input_"):
            stream = parts[0].removeprefix("audio_input_")
            if not any(cell.symbol in "kaFX" for cell in route.cells(stream)):
                return f"the route carries stream {stream} in no layer"
        return None


def of_audio(name: str) -> bool:
    """Whether a hook point holds sound's tokens, apart from those that run in the decoder."""
    return name.startswith(AUDIO_PARTS) or hook_site(name).endswith(AUDIO_HOOKS)
