"""Leakage: how far a change of one stretch of sound moves the tokens before and after it.

An encoder with global attention tells every token of every sound, so patching tokens is not
patching sound. Here the waveform is changed in one window, and at every depth each token says how
much it moved, by its distance from the window: the receptive field, measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from palscope._hooks import HookedAudioModel
from palscope._routing import Level
from palscope.audio import Waveform, load_audio
from palscope.audio._timegrid import TimeGrid, overlaps
from palscope.errors import AudioError, PalscopeError
from palscope.interventions import Address, Sound, edit_waveform, resolve
from palscope.interventions._address import SiteName
from palscope.interventions._before_decoder import encoder_grid
from palscope.interventions._capture import capture_parts
from palscope.interventions._parts import Part

How = Literal["noise", "silence"]

DEPTH = ["depth", "site", "layer", "stream"]
"""Columns that name one depth of one stream."""


def changed_window(
    waveform: Waveform, start_s: float, end_s: float, *, how: How = "noise", seed: int = 0
) -> Waveform:
    """`waveform` with other sound from `start_s` to `end_s`.

    Args:
        how: "noise", white and as loud (RMS) as what it replaces; or "silence", digital zero.
        seed: of the noise.

    Raises:
        PalscopeError: the window is empty.
        AudioError: it does not lie in the clip, or would stay as it is.
    """

    def other(old: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " samples"]:
        new = np.zeros_like(old)
        if how == "noise":
            noise = np.random.default_rng(seed).standard_normal(len(old))
            new = noise * np.sqrt(np.square(old, dtype=np.float64).mean())
        if np.array_equal(new.astype(np.float32), old):
            raise AudioError(
                f"{start_s:g} to {end_s:g} s of {waveform.source} is silent already, and so "
                f"{how} in its place changes nothing; choose a window that holds sound."
            )
        return new

    changed = edit_waveform(waveform, Sound(start_s, end_s), other)
    return replace(changed, source=f"{waveform.source}, {start_s:g} to {end_s:g} s {how}")


def leakage(
    model: HookedAudioModel,
    waveform: Waveform,
    start_s: float,
    end_s: float,
    *,
    how: How = "noise",
    question: str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """How much each token moves when one window of the waveform is changed.

    Follows the model's current route: a stream is measured where it runs (the residual stream
    after each layer) or is read (the state that a layer makes keys and values of).

    Whisper's log-mel of a window of 30 s ends 80 dB below its loudest bin. A change that moves that
    bin moves this floor, and with it every bin at the floor, however far: such a change is no
    measure of what the encoder spreads. `floor_moved_db` tells.

    Args:
        waveform: one clip, at most as long as the encoder hears at once.
        start_s: start of the window, seconds from the clip's start.
        end_s: its end.
        how: as in `changed_window`.
        question: "What is heard?" by default; of a transcriber what it begins with.
        seed: as in `changed_window`.

    Returns:
        One row a (depth, token): `depth` counts upwards from the mel spectrogram; `site` is "mel",
        "encoder_input" (after the convolutions), "encoder_block", "encoder_output" (the features
        that the connector reads), "connector_output", "audio_state" (LAL: what a layer reads) or
        "resid_post"; `layer` of the encoder or decoder, -1 where there is none; `stream`, "frames"
        or "summary" from the connector on, else ""; `token`; `token_start_s, token_end_s`;
        `offset_s`, its middle less the window's; `beyond_s`, how far its span goes beyond the
        window, 0 where it does not; `overlaps` the window; `change`, the L2 norm of the token's
        change over that of the token; `floor_moved_db`, by how much the clip's loudest mel bin
        moved (dB), NaN of an encoder whose features have no such floor.

    Raises:
        AudioError: as `changed_window`; or the clip is longer than the encoder's window.
        PalscopeError: the model has several encoders.
    """
    encoder = model.model.encoder
    if len(encoder.parts) > 1:
        raise PalscopeError(
            "leakage follows one encoder's tokens; this model has several. Measure a model with "
            "each of them alone."
        )
    clip = load_audio(waveform, sample_rate=model.processor.sample_rate)
    longest = encoder.window * model.model.seconds_per_frame
    if clip.seconds > longest:
        raise AudioError(
            f"{waveform.source} lasts {clip.seconds:.1f} s, but the encoder hears {longest:g} s "
            "at once, and nothing leaks from one such window into the next; cut the clip."
        )
    if question is None:
        asked = model.processor.takes_questions
        question = "What is heard?" if asked else model.processor.any_question
    changed = changed_window(clip, start_s, end_s, how=how, seed=seed)
    before, after = (_states(model, question, sound) for sound in (clip, changed))
    unit = encoder.floor_db
    moved = float(after[0].state.max() - before[0].state.max())
    floor = float("nan") if unit is None else moved * unit
    parts: list[pd.DataFrame] = []
    for depth, (old, new) in enumerate(zip(before, after, strict=True)):
        difference = (new.state - old.state).norm(dim=-1)
        change = cast(Any, difference / old.state.norm(dim=-1).clamp(min=1e-12)).cpu().numpy()
        parts.append(
            pd.DataFrame(
                {
                    "depth": depth,
                    "site": old.site,
                    "layer": old.layer,
                    "stream": old.stream,
                    "token": np.arange(len(change)),
                    "token_start_s": old.spans[:, 0],
                    "token_end_s": old.spans[:, 1],
                    "offset_s": old.spans.mean(1) - (start_s + end_s) / 2,
                    "beyond_s": np.maximum(old.spans[:, 1] - end_s, start_s - old.spans[:, 0]),
                    "overlaps": overlaps(old.spans[:, 0], old.spans[:, 1], start_s, end_s),
                    "change": change,
                }
            )
        )
    table = pd.concat(parts, ignore_index=True)
    table["beyond_s"] = table["beyond_s"].clip(lower=0)
    table["floor_moved_db"] = floor
    return table


def receptive_field(table: pd.DataFrame) -> pd.DataFrame:
    """How far a change of the window spreads, at each depth.

    Widths are seconds beyond the window, on the side that reaches further. They end where tokens
    end: none is less than what a token that overlaps the window's edge stands for beyond it.

    Args:
        table: from `leakage`.

    Returns:
        One row a (depth, site, layer, stream): `inside`, the mean change of tokens that overlap the
        window, and `outside`, of all others; `leaked`, the share of all change that lies outside;
        `within50_s` and `within90_s`, the least width that holds 50 % and 90 % of the change;
        `half_maximum_s`, the width in which, without a gap, tokens change at least half as much as
        the most; `reach_s`, up to the farthest token that moves at all; `floor_moved_db`. Shares
        and their widths are NaN where nothing moves (sound below the mel spectrogram's floor).
    """
    whole: Any = table
    rows: list[dict[str, Any]] = []
    for name, tokens in whole.groupby(DEPTH, sort=True):
        ordered = tokens.sort_values("beyond_s", kind="stable")
        change = ordered["change"].to_numpy(np.float64)
        beyond = ordered["beyond_s"].to_numpy()
        inside = ordered["overlaps"].to_numpy()
        total = float(change.sum()) or np.nan  # what moves nothing has no width
        half, most = (_width(beyond, change / total, share) for share in (0.5, 0.9))
        rows.append(
            dict(zip(DEPTH, name, strict=True))
            | {
                "inside": change[inside].mean(),
                "outside": change[~inside].mean() if not inside.all() else np.nan,
                "leaked": change[~inside].sum() / total,
                "within50_s": half,
                "within90_s": most,
                "half_maximum_s": _half_maximum(tokens),
                "reach_s": beyond[change > 0].max(initial=0.0),
                "floor_moved_db": tokens["floor_moved_db"].iloc[0],
            }
        )
    return pd.DataFrame(rows)


def leakage_profile(table: pd.DataFrame, step: float = 0.1) -> pd.DataFrame:
    """Change by time from the window, as a share of the change inside it, at each depth.

    Args:
        table: from `leakage`.
        step: seconds; tokens are averaged over steps of time from the window's middle, or as many
            of these as a token is long.

    Returns:
        `depth, site, layer, stream, offset_s, relative`: `offset_s` is the middle of a step,
        `relative` 1 where tokens change as much as those that overlap the window.
    """
    whole: Any = table
    inside = whole[whole["overlaps"]].groupby(DEPTH)["change"].mean().rename("inside")
    length = (whole["token_end_s"] - whole["token_start_s"]).groupby(whole["depth"]).max()
    # Whole steps, so that clips of which the end cuts a token have the same ones.
    steps = whole["depth"].map(np.ceil(length / step - 1e-6).clip(lower=1) * step)
    # Adding 0 turns the -0.0 of the step before the middle into the step of the middle.
    binned = whole.assign(offset_s=(np.round(whole["offset_s"] / steps) * steps).round(3) + 0.0)
    means = binned.groupby([*DEPTH, "offset_s"])["change"].mean().reset_index()
    joined = means.merge(inside.reset_index(), on=DEPTH)
    joined["relative"] = joined.pop("change") / joined.pop("inside")
    return joined


@dataclass(frozen=True)
class _Depth:
    """States of one stream of tokens at one depth, and the seconds that they stand for."""

    site: str
    layer: int
    stream: str
    state: Float[Tensor, "tokens width"]
    spans: Float[np.ndarray, "tokens 2"]


def _states(model: HookedAudioModel, question: str, waveform: Waveform) -> list[_Depth]:
    """States of one clip at every depth, bottom first."""
    inputs = model.inputs(question, waveform)
    places = list(_places(model, inputs))
    captured = capture_parts(model, inputs, [part for *_, part, _ in places])
    mel = inputs["input_features"][0, :, : int(inputs["feature_lengths"][0])].T
    spans = TimeGrid(model.model.seconds_per_frame).spans(len(mel))
    # Some classes give the silence behind a clip tokens, too.
    end = max(waveform.seconds, model.model.seconds_covered(len(mel)))
    found = [_Depth("mel", -1, "", mel, spans)]
    for (site, layer, stream, _, spans), state in zip(places, captured, strict=True):
        found.append(_Depth(site, layer, stream, state.float(), np.minimum(spans, end)))
    return found


_Place = tuple[str, int, str, Part, Float[np.ndarray, "tokens 2"]]
"""Site, layer and stream of a depth, its tokens, and the seconds that they stand for."""


def _places(model: HookedAudioModel, inputs: Mapping[str, Any]) -> Iterator[_Place]:
    """Every depth above the mel spectrogram."""
    layout = model.layout(inputs)

    def parts(address: Address) -> list[Part]:
        return list(resolve(model, inputs, address, layout).parts)

    def within(site: str, layer: int, part: Part) -> _Place:
        spans = encoder_grid(model, part).spans(int(part.columns.max()) + 1)
        return site, layer, "", part, spans

    if model.model.encoder.blocks:
        blocks = parts(Address("encoder_block"))
        first = blocks[0].hook.removesuffix("hook_out")
        yield within("encoder_input", -1, replace(blocks[0], hook=f"{first}hook_in"))
        for number, part in enumerate(blocks):
            yield within("encoder_block", number, part)
    (part,) = parts(Address("encoder_output"))
    yield within("encoder_output", -1, part)

    def of_stream(site: SiteName, layer: int, name: str) -> _Place:
        layers = None if layer < 0 else (layer,)
        part = parts(Address(site, Sound(stream=name), layers))[0]
        mine = layout.stream[0] == layout.stream_index(name)
        return site, layer, name, part, layout.seconds[0][mine.cpu()].numpy()

    route = model.current_route
    for stream in route.streams:
        if any(cell.level is not Level.ABSENT for cell in route.cells(stream.name)):
            yield of_stream("connector_output", -1, stream.name)
    for layer in range(route.n_layers):
        for name in route.streams_at(layer, Level.KEYS):
            yield of_stream("audio_state", layer, name)
        for name in route.streams_at(layer, Level.ATTEND, Level.FULL):
            yield of_stream("resid_post", layer, name)


def _width(
    beyond: Float[np.ndarray, "tokens"], shares: Float[np.ndarray, "tokens"], held: float
) -> float:
    """The least of `beyond`, which ascends, up to which `shares` sum to `held`."""
    enough = (np.cumsum(shares) >= held - 1e-9).nonzero()[0]
    return float(beyond[enough[0]]) if len(enough) else float("nan")


def _half_maximum(tokens: Any) -> float:
    """Seconds beyond the window to which tokens, without a gap, change half as much as the most."""
    loud = (tokens["change"] >= tokens["change"].max() / 2) & (tokens["change"] > 0)
    widths = [0.0]
    for side in (-1, 1):
        outwards = tokens[np.sign(tokens["offset_s"]) == side].sort_values("beyond_s")
        unbroken = loud[outwards.index].cummin()
        widths += outwards.loc[unbroken, "beyond_s"].tolist()
    return max(widths)
