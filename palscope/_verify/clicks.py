"""Time: a click at a known second changes most the token that stands for it, or a neighbour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from palscope._hooks import HookedAudioModel
from palscope._verify.results import Result, judged

SHARES = (0.07, 0.31, 0.52, 0.78, 0.96)
"""Where in the clip the clicks are."""
HITS = 4
"""Of five: a tower may hear one of them where another token listens harder."""
_BANG = 0.2
"""Where in the clip something is louder than all clicks."""
_CLICK_S = 0.01


class Click(NamedTuple):
    """What a click did.

    `second`: its middle; `held`: the first token that stands for it; `changed`: the one that
    changed most; `shares_seconds`: whether both stand for the same seconds; `off`: how many spans
    lie between them; `spread`: seconds of the tokens that changed at least half as much.
    """

    second: float
    held: int
    changed: int
    shares_seconds: bool
    off: int
    spread: float


@torch.no_grad()
def clicks(
    hooked: HookedAudioModel, seconds: float, question: str, phase: float = 0.5
) -> list[Click]:
    """Noise with a click at five places, beside the noise alone: what each changes.

    Tokens are those of the checkpoint's first stream, before the decoder.

    Args:
        seconds: of the noise.
        phase: where in its token's seconds the middle of a click is.
    """
    quiet: Any = _noise_with_a_bang(seconds, hooked.processor.sample_rate)
    inputs = hooked.inputs(question, quiet)
    layout = hooked.layout(inputs)
    spans = layout.seconds[(layout.stream == 0).cpu()]
    # Tokens may share their seconds: steps are counted between spans.
    starts, step = cast("tuple[Tensor, Tensor]", torch.unique(spans[:, 0], return_inverse=True))
    before = _tokens(hooked, inputs, len(spans))
    found: list[Click] = []
    for share in SHARES:
        at = share * seconds
        held = int(((spans[:, 0] <= at) & (spans[:, 1] > at)).int().argmax())
        start, end = float(starts[step[held]]), float(spans[held, 1])
        middle = start + phase * (end - start)
        clip = _with_burst(quiet, middle, hooked.processor.sample_rate, 5.0)
        after = _tokens(hooked, hooked.inputs(question, clip), len(spans))
        change = cast(Tensor, (after - before).norm(dim=1))
        most = int(change.argmax())
        off = int(step[most]) - int(step[held])
        wide: Any = spans[change >= change.max() / 2]
        spread: float = (wide[:, 1].max() - wide[:, 0].min()).item()
        same = bool(torch.equal(spans[most], spans[held]))
        found.append(Click(middle, held, most, same, off, spread))
    return found


def _noise_with_a_bang(seconds: float, rate: int) -> Float[np.ndarray, " samples"]:
    """Quiet noise, and in it a sound louder than all clicks.

    Many features are scaled by their loudest bin: without the bang a click would change silence.
    """
    return _with_burst(0.2 * _noise(seconds, 0, rate), _BANG * seconds, rate, 15.0)


def _with_burst(
    samples: Float[np.ndarray, " samples"], second: float, rate: int, loud: float
) -> Float[np.ndarray, " samples"]:
    """10 ms of noise, its middle at `second`."""
    clip = cast(Any, samples).copy()
    burst = loud * _noise(_CLICK_S, 1, rate)
    count = round(_CLICK_S * rate)
    first = min(max(0, round(second * rate) - count // 2), len(clip) - count)
    clip[first : first + count] += burst
    return clip


def in_time(found: Sequence[Click], needed: int = HITS) -> Result:
    """Whether clicks change most the tokens that stand for them, or their neighbours.

    Args:
        needed: how many of them.
    """
    near = sum(abs(click.off) <= 1 for click in found)
    exact = sum(click.shares_seconds for click in found)
    spread = sorted(click.spread for click in found)[len(found) // 2]
    says = (
        f"{near} of {len(found)} change most their second's token or a neighbour, {exact} of them "
        f"that token; half as much {1000 * spread:.0f} ms wide"
    )
    if near < needed:
        says += f"; steps off: {[click.off for click in found]}"
    return judged("click", near >= needed, says, clicks=[click._asdict() for click in found])


def _tokens(
    hooked: HookedAudioModel, inputs: Mapping[str, Tensor], count: int
) -> Float[Tensor, "tokens d"]:
    """The clip's, without those of the silence that fills its window."""
    return next(iter(hooked.encode_audio(inputs).streams.values()))[0][:count].double().cpu()


def _noise(seconds: float, seed: int, rate: int) -> Float[np.ndarray, " samples"]:
    samples = np.random.default_rng(seed).normal(size=round(seconds * rate))
    return (0.1 * samples).astype(np.float32)
