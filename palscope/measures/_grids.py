"""Grids for activation patching: which places are patched, each as a list of `GridCell`.

**What one layer means.** A cell of a grid by layers patches several neighbouring layers together,
and what that asks depends on the stream's level:

- Where a stream is *carried* (`full`, `attend`: PLITS, PAL's summary), its state at a layer is the
  state that all layers above go on with. Patching `audio_state` at layer L so changes what is read
  at L and above; a window adds only that the state is held at the source's within it.
- Where a stream is *projected* (LAL), each layer makes its state anew from the connector's tokens.
  Patching layer L changes what layer L reads, and nothing else. One layer of thirty often does
  little, not because it reads nothing but because twenty-nine others read the same sound.

So a map of single layers must not be compared between integrations. Two grids can be:

- `audio_state` in the layers *from L up* (`layers_from`): in both, layers below L hear the target's
  sound and the others the source's. It asks from which layer on the sound no longer matters.
- `audio_kv` (keys and values of audio tokens) in a *window* (`layer_windows`): in both, the window
  alone reads the source's sound. It asks which layers read. Under LAL it equals `audio_state` in
  that window. Audio tokens that run read each other too, so in PLITS what was read may go on
  through them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from palscope._routing import Level, Route, TokenLayout
from palscope._routing.layout import TEXT
from palscope._whole import whole_number
from palscope.audio._timegrid import TOUCH_S, TimeGrid
from palscope.errors import PalscopeError
from palscope.interventions import Address, Sound, Text
from palscope.interventions._address import SITES, SiteName, Tokens
from palscope.measures._patching import GridCell

LABELS = ("site", "stream", "layer", "last_layer", "head", "place", "start_s", "end_s")
"""Columns that name a cell of any grid; those that do not apply are missing.

`layer` to `last_layer` are patched together; `place` names seconds or text, and `start_s` and
`end_s` are its seconds.
"""

SOUND_SITES: tuple[SiteName, ...] = (
    "waveform",
    "encoder_output",
    "connector_output",
    "audio_state",
)
"""Sites that each hold all of the sound, from the clip itself to what the decoder reads."""

LAST = Text(-1)
"""The prompt's last token, which predicts the answer."""

Layers = tuple[int, ...]


def layer_windows(n_layers: int, width: int = 1) -> list[Layers]:
    """All layers in windows of `width` neighbours, none twice; the top one may be narrower."""
    return [tuple(range(at, min(at + width, n_layers))) for at in _starts(n_layers, width)]


def layers_from(n_layers: int, step: int = 1) -> list[Layers]:
    """Every `step`-th layer with all layers above it."""
    return [tuple(range(at, n_layers)) for at in _starts(n_layers, step)]


def _starts(n_layers: int, step: int) -> range:
    return range(0, n_layers, whole_number(step, "layers together", least=1))


def steps(seconds: float, step: float, stream: str | None = None) -> dict[str, Sound]:
    """A clip of so many seconds in equal steps, the last of which may be shorter.

    Raises:
        PalscopeError: `step` is not a positive number of seconds.
    """
    if not TOUCH_S < step < math.inf:
        raise PalscopeError(f"steps of {step:g} s; give a positive number of seconds.")
    grid = TimeGrid(step)
    edges: list[float] = grid.edges(grid.tokens(seconds), seconds).tolist()
    sounds = [Sound(start, end, stream) for start, end in itertools.pairwise(edges)]
    return dict(zip(stretch_names(edges), sounds, strict=True))


def stretch_names(edges: Sequence[float]) -> list[str]:
    """Names of the stretches between `edges` (seconds), no two alike."""
    decimals = 2
    while True:
        written = [f"{edge:.{decimals}f}" for edge in edges]
        if len(set(written)) == len(edges):
            return [f"{start} to {end} s" for start, end in itertools.pairwise(written)]
        decimals += 1


def text_places(layout: TokenLayout) -> dict[str, Text]:
    """The text that can have heard the clips of one prompt: behind them, and the last token."""
    columns = [int(i) for i in layout.real[0].nonzero()[:, 0]]
    sound = [i for i in columns if int(layout.stream[0, i]) >= 0]
    text = [i for i in columns[:-1] if int(layout.stream[0, i]) == TEXT]
    behind = tuple(i for i in text if not sound or i > sound[-1])
    return ({"text behind the clip": Text(behind)} if behind else {}) | {"last token": LAST}


def sites_by_places(
    places: Mapping[str, Sound],
    *,
    stream: str | None = None,
    sites: Sequence[SiteName] = SOUND_SITES,
) -> list[GridCell]:
    """Each site × each stretch of sound, in all layers: how far does sound spread on its way?

    An encoder with global attention spreads a sound over all its tokens, so that a stretch of
    tokens may move the answer less than the same stretch of the `waveform` does, and silence more
    than nothing. `waveform` cells are for `input_patching`.

    Args:
        places: by name.
        stream: at the sites that have streams, this one alone.
        sites: of any kind that holds sound.
    """
    cells: list[GridCell] = []
    for site in sites:
        for name, sound in places.items():
            at = replace(sound, stream=stream) if SITES[site].tokens == "audio" else sound
            cells.append(GridCell((Address(site, at),), _labels(site=site, place=name, tokens=at)))
    return cells


def layers_by_places(
    route: Route,
    places: Mapping[str, Tokens],
    layers: Sequence[Layers],
    *,
    site: Literal["audio_state", "audio_kv"] = "audio_state",
) -> list[GridCell]:
    """Each group of layers × each stretch of sound or of text.

    Sound is patched at `site`; text, with `audio_state`, where a layer takes it in (`resid_pre`).
    Cells in which nothing stands (a stream that is absent there) are left out.

    Args:
        route: under which the cells will run.
        places: by name.
        layers: of `layer_windows` or `layers_from`; see above what they ask.
        site: `audio_kv` is keys and values together, for sound alone.
    """
    cells: list[GridCell] = []
    for group in layers:
        for name, tokens in places.items():
            if isinstance(tokens, Text):
                if site == "audio_kv":
                    raise PalscopeError("audio_kv holds sound only; leave text out.")
                sites: tuple[SiteName, ...] = ("resid_pre",)
                standing = group
            else:
                sites = ("audio_k", "audio_v") if site == "audio_kv" else ("audio_state",)
                standing = _standing(route, tokens.stream, group)
            if standing:
                addresses = tuple(Address(each, tokens, standing) for each in sites)
                shown = site if isinstance(tokens, Sound) else sites[0]
                labels = _labels(site=shown, place=name, tokens=tokens, layers=group)
                cells.append(GridCell(addresses, labels))
    return cells


def streams_by_layers(
    route: Route,
    layers: Sequence[Layers],
    *,
    site: Literal["audio_state", "audio_kv"] = "audio_state",
) -> list[GridCell]:
    """Each stream of the route × each group of layers, the whole clip: through which pathway?

    As `layers_by_places`, with a place for each stream.
    """
    places = {stream.name: Sound(stream=stream.name) for stream in route.streams}
    return layers_by_places(route, places, layers, site=site)


def layers_by_heads(
    n_layers: int, n_heads: int, tokens: Text = LAST, place: str = "last token"
) -> list[GridCell]:
    """Each query head of each layer: its output at `tokens`, called `place`.

    A head whose output at the last token carries the answer need not be the one that reads the
    sound: another may read it at an earlier word. `Text()` patches all text.
    """
    return [
        GridCell(
            (Address("head_output", tokens, (layer,), (head,)),),
            _labels(site="head_output", place=place, tokens=tokens, layers=(layer,), head=head),
        )
        for layer in range(n_layers)
        for head in range(n_heads)
    ]


def _standing(route: Route, stream: str | None, layers: Layers) -> Layers:
    """The layers among these that see the stream, or any of them."""
    names = [each.name for each in route.streams] if stream is None else [stream]
    return tuple(
        layer
        for layer in layers
        if any(route.cell(name, layer).level is not Level.ABSENT for name in names)
    )


def _labels(
    *,
    site: str,
    place: str,
    tokens: Tokens,
    layers: Layers | None = None,
    head: int | None = None,
) -> dict[str, Any]:
    sound = tokens if isinstance(tokens, Sound) else None
    return {
        "site": site,
        "stream": sound.stream if sound else None,
        "layer": layers[0] if layers else None,
        "last_layer": layers[-1] if layers else None,
        "head": head,
        "place": place,
        "start_s": sound.start if sound else None,
        "end_s": sound.end if sound else None,
    }
