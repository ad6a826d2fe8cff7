"""From a hook point to the site that it belongs to, and how its tensor is laid out."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from palscope._hooks import HookedAudioModel
from palscope.errors import PalscopeError
from palscope.interventions._address import Address, SiteName, Sound
from palscope.interventions._before_decoder import encoder_places, stream_hooks
from palscope.interventions._parts import Part
from palscope.interventions._resolve import block_place

_STREAM = re.compile(r"audio_(projector_(?P<stream>\w+)_\d+|input_(?P<entry>\w+))\.hook_in")

_AUDIO: tuple[SiteName, ...] = ("audio_state", "audio_k", "audio_v")
_RUNNING: tuple[SiteName, ...] = (
    *("resid_pre", "resid_post", "attn_out", "mlp_in", "mlp_out", "head_output"),
    *("cross_out", "cross_head_output"),
)


@dataclass(frozen=True)
class HookPlace:
    """A site's hook points.

    Attributes:
        address: of the site, without tokens.
        parts: hook points with their layout, of no tokens yet: several where a stream enters
            several projectors, which all take the same.
    """

    address: Address
    parts: tuple[Part, ...]


def place_of(model: HookedAudioModel, hook: str) -> HookPlace:
    """The site of a hook point.

    Raises `HookError` where it does not exist or cannot fire under the current route, and
    `PalscopeError` where it is of no site that has a vector for each token.
    """
    model.hook_point(hook)
    place = _in_the_decoder(model, hook) or _of_a_stream(model, hook) or _in_encoder(model, hook)
    if place is None:
        raise PalscopeError(f"{hook} belongs to no site of Address that has rows of tokens.")
    return place


def _in_the_decoder(model: HookedAudioModel, hook: str) -> HookPlace | None:
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", hook)
    if found is None:
        return None
    layer, inside = int(found[1]), found[2]
    none = torch.empty(0, dtype=torch.long)
    for site in _AUDIO:
        letter = site.removeprefix("audio_")
        if inside == f"{model.audio_attention}.hook_audio_{letter}":
            part = Part(hook, "memory", 0, none, layer=layer)
            return HookPlace(Address(site, layers=(layer,)), (part,))
        if inside == f"attn.hook_{letter}":  # of sound that runs
            part = Part(hook, "running", 0, none, layer=layer)
            return HookPlace(Address(site, layers=(layer,)), (part,))
    for site in _RUNNING:
        name, axis = block_place(model, site, layer)
        if name == hook:
            address = Address(site, layers=(layer,))
            return HookPlace(address, (Part(hook, axis, 0, none, layer=layer),))
    return None


def _of_a_stream(model: HookedAudioModel, hook: str) -> HookPlace | None:
    found = _STREAM.fullmatch(hook)
    if found is None:
        return None
    stream = found["stream"] or found["entry"]
    none = torch.empty(0, dtype=torch.long)
    hooks = stream_hooks(model.current_route, stream)
    parts = tuple(Part(each, "clip_tokens", 0, none) for each in hooks)
    return HookPlace(Address("connector_output", Sound(stream=stream)), parts)


def _in_encoder(model: HookedAudioModel, hook: str) -> HookPlace | None:
    site: SiteName = "encoder_output"
    if hook.endswith(".mlp_out.hook_in"):
        site = "encoder_neurons"
    elif hook.endswith(".hook_out"):
        site = "encoder_block"
    for part, _ in encoder_places(model, Address(site)):
        if part.hook == hook:
            layers = None if part.layer is None else (part.layer,)
            return HookPlace(Address(site, layers=layers), (part,))
    return None
