"""Routes worth trying on a checkpoint, by name."""

from __future__ import annotations

from _models import serves

from palscope._hooks import HookedAudioModel
from palscope._routing import ATTEND, FULL, PROJECTED, Level, Route

DELAYED = 4
"""Layers that the paper's first version leaves without sound."""


def presets(model: HookedAudioModel, trained: Route) -> dict[str, Route]:
    """Routes that the checkpoint's weights can serve, none of them twice or equal to `trained`."""
    layers = trained.n_layers
    third = max(1, round(layers / 3))
    tries: dict[str, Route] = {}
    frames = next((s for s in trained.streams if s.name == "frames"), None)
    if frames is not None:
        cleared = trained.mute("frames")
        alone = {s.name for s in trained.streams} == {"frames"}
        others = "" if alone else ", the rest as trained"
        every = range(layers)
        tries |= {
            f"PLITS: frames full{others}": cleared.with_cell("frames", every, FULL),
            f"LAL in all layers{others}": cleared.with_cell("frames", every, PROJECTED),
            f"LAL in the first third{others}": cleared.with_cell("frames", range(third), PROJECTED),
            f"Audio queries without feed-forward{others}": cleared.with_cell(
                "frames", every, ATTEND
            ),
        }
        if layers > DELAYED:
            tries[f"LAL delayed, from layer {DELAYED}{others}"] = cleared.with_cell(
                "frames", range(DELAYED, layers), PROJECTED
            )
    for stream in trained.streams:
        used = trained.layers(stream.name)
        if any(cell.level.runs for cell in trained.cells(stream.name)):
            tries[f"{stream.name} frozen from layer {third}"] = trained.frozen_from(
                third, stream.name
            )
        kept = [layer for layer in used if layer >= DELAYED]
        if kept and trained.layers(stream.name, Level.KEYS):
            tries[f"{stream.name} as trained, but not below layer {DELAYED}"] = trained.keep(
                stream.name, kept
            )
        tries[f"{stream.name} muted"] = trained.mute(stream.name)
    silent = trained
    for stream in trained.streams:
        silent = silent.mute(stream.name)
    tries["no sound at all"] = silent
    found: dict[str, Route] = {}
    for name, route in tries.items():
        if route != trained and route not in found.values() and serves(model, route):
            found[name] = route
    return found
