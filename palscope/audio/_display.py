"""How a waveform shows in a notebook: a player above its mel spectrogram."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING

import numpy as np
import soundfile
from jaxtyping import Float

if TYPE_CHECKING:
    from palscope.audio._waveform import Waveform

# The page holds the sound itself, about 43 kB a second.
_SHOWN_SECONDS = 60
_COLUMNS = 1000


def waveform_html(waveform: Waveform) -> str:
    """Show a player and a mel spectrogram of at most the first minute, as one piece of HTML."""
    shown = waveform.samples[: _SHOWN_SECONDS * waveform.sample_rate]
    seconds = len(shown) / waveform.sample_rate
    cut = "" if len(shown) == len(waveform.samples) else f", first {_SHOWN_SECONDS} s shown"
    name = waveform.source.rsplit("/", 1)[-1]
    title = f"{name}: {waveform.seconds:.2f} s at {waveform.sample_rate} Hz{cut}"
    ticks = "".join(f"<span>{seconds * part / 4:.2f}</span>" for part in range(4))
    return (
        '<div style="max-width:640px">'
        f"<div>{html.escape(title)}</div>"
        '<audio controls style="width:100%;height:36px;margin:4px 0" '
        f'src="data:audio/wav;base64,{in_base64(wav_bytes(shown, waveform.sample_rate))}"></audio>'
        '<img alt="Mel spectrogram: time from left to right, 0 to 8 kHz upwards on the mel scale" '
        'style="display:block;width:100%;height:140px;margin:0" '
        f'src="data:image/png;base64,{in_base64(_mel_png(shown, waveform.sample_rate))}">'
        '<div style="display:flex;justify-content:space-between;font-size:11px">'
        f"{ticks}<span>{seconds:.2f} s</span></div></div>"
    )


def wav_bytes(samples: np.ndarray, rate: int) -> bytes:
    """A 16-bit WAV file of samples at full scale 1; what lies beyond it is clipped."""
    file = io.BytesIO()
    soundfile.write(file, np.clip(samples, -1, 1), rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _mel_png(samples: np.ndarray, rate: int) -> bytes:
    # Slow to import, and only a notebook needs them.
    from transformers import WhisperFeatureExtractor

    from palscope.audio._mel import log_mel
    from palscope.audio._waveform import load_audio

    extractor = WhisperFeatureExtractor()
    mono = load_audio(samples, native_rate=rate, sample_rate=extractor.sampling_rate)
    mel = log_mel(mono.samples, extractor).numpy()
    pooled = -(-mel.shape[1] // _COLUMNS)
    mel = np.stack([mel[:, at : at + pooled].mean(1) for at in range(0, mel.shape[1], pooled)], 1)
    return mel_png(mel)


def mel_png(
    mel: Float[np.ndarray, "mel columns"], low: float | None = None, high: float | None = None
) -> bytes:
    """Mel features as a PNG, one pixel a value; colours go from `low` to `high`, or all of it."""
    from matplotlib.image import imsave

    file = io.BytesIO()
    imsave(file, mel, origin="lower", cmap="cividis", vmin=low, vmax=high)
    return file.getvalue()


def in_base64(data: bytes) -> str:
    """Bytes as the text that a page holds them in."""
    return base64.b64encode(data).decode("ascii")
