"""The player: a clip's sound, waveform, spectrogram and attention on one axis of seconds."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import matplotlib
import numpy as np
import pandas as pd
import streamlit as st
from _component import component, remembered, state_of
from jaxtyping import Float
from matplotlib.colors import to_hex
from PIL import Image

from palscope._routing.display import colours
from palscope.audio import Waveform
from palscope.audio._compose import LabelledSpan
from palscope.audio._display import wav_bytes
from palscope.plots._axes import TIME
from palscope.plots._looks import AMOUNT, SIGNED
from palscope.plots._spectrogram import MelImage, mel_image

Stretch = tuple[float, float]

MOST_COLUMNS = 3000
"""Of the spectrogram: those of 30 s, each a frame of 10 ms as the encoder hears it."""
DECIBELS_PER_UNIT = 40
"""Whisper's log-mel features are log10 of power, divided by 4."""
SHOWN_DECIBELS = 80
"""Whisper cuts off what is further below a clip's loudest bin."""


@dataclass(frozen=True)
class Effects:
    """What cutting each stretch of a clip does to an answer.

    Attributes:
        table: `start_s, end_s, change`: seconds and nats, of at least one stretch.
        about: whose change it is, in words.
        title: of the strip.
    """

    table: pd.DataFrame
    about: str
    title: str = "effect on the answer"


_show = component("player", "player_time", "player_words", "player_picture", "player_hand")
_curves = component("curves")


def player(
    waveform: Waveform,
    digest: str,
    *,
    key: str,
    tokens: pd.DataFrame | None = None,
    effects: Effects | None = None,
    labels: Sequence[LabelledSpan] = (),
    frames: Sequence[Stretch] = (),
    selection: Stretch | None = None,
    first: Stretch | None = None,
    plays: bool = False,
) -> Stretch | None:
    """Show a clip that can be played, looked at and selected from.

    Args:
        waveform: the clip.
        digest: stands for its samples.
        key: unique on the page.
        tokens: the encoder's token grid: `stream, start_s, end_s`, as `TokenLayout.table` has them;
            rows without seconds (text) are left out.
        effects: of each stretch on the answer.
        labels: what sounds when, in order of time; a point has its start as its end.
        frames: stretches that differ from another clip.
        selection: first and last second, shown at first and whenever it changes. Giving back what
            this function returned is no change.
        first: what is selected in a clip that was not shown before, unless `selection` is new.
        plays: a new `selection` is played at once, which follows from a click.

    Returns:
        First and last second of what the visitor selected, or None; `selection` as it was given
        while the visitor has not changed it, even where it lies outside of this clip.

    Raises:
        AudioError: the clip is empty or not finite.
    """
    sound = _sound(digest, waveform)
    report = state_of(key, "selection")
    if report is not None:
        report = report[0], span_within(report[1], waveform.seconds)
    given = None if selection is None else (float(selection[0]), float(selection[1]))
    shown = remembered(key, sound["id"], given, report, leftover=first)
    data = {
        **sound,
        "key": key,
        "name": file_name(waveform.source),
        "tokens": token_edges(tokens),
        "labels": [{"text": s.label, "start": s.start, "end": s.end} for s in labels],
        "frames": [list(frame) for frame in frames],
        "effects": None if effects is None else effect_strip(effects),
        "timeTitle": TIME.label,
        "selection": span_within(shown.first, waveform.seconds),
        "revision": shown.revision,
        "plays": plays,
    }
    _show(key=key, data=data, on_selection_change=lambda: None)
    return shown.value


def show_curves(digest: str, curves: pd.DataFrame, title: str, *, key: str) -> None:
    """Draw curves over time in a player: its sound and all that is selected in it stay.

    Args:
        digest: of the clip that they belong to; a player that shows another draws none.
        curves: attention to each slice of time: `pathway, start_s, end_s, mass`.
        title: what is drawn.
        key: the player's.
    """
    data = {
        "key": key,
        "id": digest,
        "curves": curve_steps(curves),
        "curvesTitle": title,
    }
    with st.container(key=f"unseen curves of {key}"):
        _curves(key=f"curves of {key}", data=data)


@st.cache_data(max_entries=16, show_spinner=False)
def _sound(digest: str, _waveform: Waveform) -> dict[str, Any]:
    return sound_payload(digest, _waveform)


def sound_payload(digest: str, waveform: Waveform) -> dict[str, Any]:
    """What the browser gets of a clip whose samples `digest` stands for.

    Its WAV file (which clips at full scale, 1) and spectrogram in base64, `peak` of the WAV's
    samples, `left` and `right` edge of the spectrogram in seconds.
    """
    image = mel_image(waveform, columns=MOST_COLUMNS)
    return {
        "id": digest,
        "seconds": waveform.seconds,
        "wav": base64.b64encode(wav_bytes(waveform.samples, waveform.sample_rate)).decode("ascii"),
        "rate": waveform.sample_rate,
        "peak": min(float(np.abs(waveform.samples).max()), 1.0),
        "picture": base64.b64encode(spectrogram_png(image)).decode("ascii"),
        "left": image.first - image.step / 2,
        "right": image.first + (image.values.shape[1] - 0.5) * image.step,
        "ticks": [(tick + 0.5) / len(image.values) for tick in image.ticks],
        "tickLabels": image.tick_labels,
        "scale": [to_hex(colour) for colour in _colours()[::15]],
        "decibels": SHOWN_DECIBELS,
    }


def file_name(source: str) -> str:
    """A plain name to save a sound under, from where it came from.

    >>> file_name("clips/dog_4-182395-A.ogg")
    'dog-4-182395-A.wav'
    """
    plain = re.sub(r"[^A-Za-z0-9]+", "-", Path(source).stem).strip("-")
    return f"{plain or 'sound'}.wav"


def spectrogram_png(image: MelImage) -> bytes:
    """A log-mel spectrogram as a PNG, one pixel a value, low frequencies at the bottom."""
    top = float(image.values.max())
    if np.ptp(image.values) < 1e-6:  # silence has no loudest bin to compare with
        top += SHOWN_DECIBELS / DECIBELS_PER_UNIT
    height = 1 + (image.values - top) * DECIBELS_PER_UNIT / SHOWN_DECIBELS
    levels = np.round(255 * np.clip(height, 0, 1)).astype(np.uint8)
    picture = Image.fromarray(levels[::-1])
    picture.putpalette(np.round(255 * _colours()).astype(np.uint8).tobytes())
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()


def token_edges(tokens: pd.DataFrame | None) -> list[dict[str, Any]]:
    """For each stream: its name, and `start` and `end` in seconds of each of its tokens."""
    if tokens is None:
        return []
    timed: Any = tokens.dropna(subset=["start_s", "end_s"])
    timed = timed[timed["end_s"] > timed["start_s"]].sort_values("start_s")
    return [
        {
            "stream": str(stream),
            "start": rows["start_s"].astype(float).tolist(),
            "end": rows["end_s"].astype(float).tolist(),
        }
        for stream, rows in timed.groupby("stream", sort=False, observed=True)
    ]


def curve_steps(curves: pd.DataFrame) -> list[dict[str, Any]]:
    """For each pathway: name, colour, and `start`, `end` and `mass` of each slice."""
    known: Any = curves.dropna(subset=["start_s", "end_s", "mass"]).sort_values("start_s")
    palette = colours(known["pathway"])
    return [
        {
            "pathway": str(pathway),
            "colour": palette[cast(str, pathway)],
            "start": rows["start_s"].astype(float).round(4).tolist(),
            "end": rows["end_s"].astype(float).round(4).tolist(),
            "mass": [float(f"{mass:.4g}") for mass in rows["mass"]],
        }
        for pathway, rows in known.groupby("pathway", sort=False, observed=True)
    ]


def effect_strip(effects: Effects) -> dict[str, Any]:
    """Title, `start`, `end`, `change` and colour of each stretch, the scale of the colours.

    `most` (nats) is the scale's end; white is 0.
    """
    known: Any = effects.table.sort_values("start_s")
    change = known["change"].to_numpy(float)
    most = float(np.abs(change).max())
    signed = matplotlib.colormaps[SIGNED]
    return {
        "title": effects.title,
        "about": effects.about,
        "start": known["start_s"].astype(float).round(4).tolist(),
        "end": known["end_s"].astype(float).round(4).tolist(),
        "change": [float(f"{each:.4g}") for each in change],
        "colour": [to_hex(signed(0.5 + 0.5 * each / (most or 1))) for each in change],
        "most": most,
        "scale": [to_hex(signed(place)) for place in np.linspace(0, 1, 17)],
    }


def span_within(span: Any, seconds: float) -> Stretch | None:
    """`span` cut to the clip; None where it is no span, or nothing of it lies in the clip."""
    try:
        start, end = (float(edge) for edge in span)
    except (TypeError, ValueError):
        return None
    if not (math.isfinite(start) and math.isfinite(end)):
        return None
    start, end = max(start, 0.0), min(end, seconds)
    return (round(start, 4), round(end, 4)) if start < end else None


def _colours() -> Float[np.ndarray, "256 3"]:
    return matplotlib.colormaps[AMOUNT](np.arange(256))[:, :3]
