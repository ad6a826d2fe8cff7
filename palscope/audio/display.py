"""How a waveform shows in a notebook: a player above its mel spectrogram."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING

import numpy as np
import soundfile

if TYPE_CHECKING:
    from palscope.audio.waveform import Waveform

# The page holds the sound itself, about 43 kB a second.
_SHOWN_SECONDS = 60


def waveform_html(waveform: Waveform) -> str:
    """Show a player and a mel spectrogram of at most the first minute, as one piece of HTML."""
    shown = waveform.samples[: _SHOWN_SECONDS * waveform.sample_rate]
    cut = "" if len(shown) == len(waveform.samples) else f", first {_SHOWN_SECONDS} s shown"
    title = f"{waveform.source}: {waveform.seconds:.2f} s at {waveform.sample_rate} Hz{cut}"
    return (
        f"<div><div>{html.escape(title)}</div>"
        f'<audio controls src="data:audio/wav;base64,{_base64(_wav(shown, waveform.sample_rate))}">'
        "</audio><br>"
        f'<img alt="mel spectrogram" style="width:640px;height:160px" '
        f'src="data:image/png;base64,{_base64(_mel_png(shown, waveform.sample_rate))}"></div>'
    )


def _wav(samples: np.ndarray, rate: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.clip(samples, -1, 1), rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _mel_png(samples: np.ndarray, rate: int) -> bytes:
    # Both are slow to import, and only a notebook needs them.
    from matplotlib.image import imsave
    from transformers import WhisperFeatureExtractor

    from palscope.audio.mel import log_mel
    from palscope.audio.waveform import load_audio

    extractor = WhisperFeatureExtractor()
    mono = load_audio(samples, native_rate=rate, sample_rate=extractor.sampling_rate)
    file = io.BytesIO()
    imsave(file, log_mel(mono.samples, extractor).numpy(), origin="lower", cmap="magma")
    return file.getvalue()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
