"""Sound files made for tests: known samples, written by libsndfile or by PyAV's encoders."""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np
import soundfile

# Written by libsndfile: container, subtype, and how far samples may be off (0: not at all).
PCM = {
    "wav": ("WAV", "PCM_16", 2.0**-15),
    "wav u8": ("WAV", "PCM_U8", 2.0**-7),
    "wav 24": ("WAV", "PCM_24", 2.0**-23),
    "wav float": ("WAV", "FLOAT", 0.0),
    "wav double": ("WAV", "DOUBLE", 0.0),
    "wavex": ("WAVEX", "PCM_16", 2.0**-15),
    "rf64": ("RF64", "PCM_24", 2.0**-23),
    "w64": ("W64", "PCM_16", 2.0**-15),
    "flac": ("FLAC", "PCM_16", 2.0**-15),
    "flac 24": ("FLAC", "PCM_24", 2.0**-23),
    "aiff": ("AIFF", "PCM_16", 2.0**-15),
    "aiff float": ("AIFF", "FLOAT", 0.0),
    "au": ("AU", "FLOAT", 0.0),
    "caf": ("CAF", "PCM_24", 2.0**-23),
    "caf alac": ("CAF", "ALAC_16", 2.0**-15),
    "sphere": ("NIST", "PCM_16", 2.0**-15),
}
# Written by libsndfile or, for a tuple of four, by PyAV: container, encoder, options.
LOSSY: dict[str, tuple[Any, ...]] = {
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mu-law": ("WAV", "ULAW"),
    "adpcm": ("WAV", "MS_ADPCM"),
    "mp3 no header": ("mp3", "libmp3lame", {"write_xing": "0", "id3v2_version": "0"}, {}),
    "mp3 vbr no header": (
        *("mp3", "libmp3lame", {"write_xing": "0", "id3v2_version": "0"}),
        {"global_quality": "590", "flags": "+qscale"},
    ),
    "m4a": ("mp4", "aac", {}, {}),
    "m4a fragments": ("mp4", "aac", {"movflags": "frag_keyframe+empty_moov"}, {}),
    "aac": ("adts", "aac", {}, {}),
    "webm": ("webm", "libopus", {}, {}),
    "webm live": ("webm", "libopus", {"live": "1"}, {}),
}


def chirp(rate: int, seconds: float, channels: int = 1) -> np.ndarray:
    """`[samples, channels]`: a rising tone, and a burst each quarter of a second."""
    times = np.arange(round(rate * seconds)) / rate
    samples = 0.2 * np.sin(2 * np.pi * (200 + 300 * times / max(seconds, 0.1)) * times)
    noise = np.random.default_rng(0).normal(0, 0.1, len(times))
    samples += noise * (times % 0.25 < 0.05)
    return np.stack([samples * 0.9**channel for channel in range(channels)], axis=1)


def encode(samples: np.ndarray, rate: int, kind: str) -> bytes:
    """The bytes of a file; `kind` is one of `PCM` or `LOSSY`."""
    how: tuple[Any, ...] = PCM[kind] if kind in PCM else LOSSY[kind]
    if len(how) == 4:
        return _by_pyav(samples, rate, *how)
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=how[0], subtype=how[1])
    return file.getvalue()


def _by_pyav(
    samples: np.ndarray, rate: int, form: str, codec: str, muxing: dict[str, str], coding: Any
) -> bytes:
    file = io.BytesIO()
    layout = {1: "mono", 2: "stereo"}[samples.shape[1]]
    with av.open(file, "w", format=form, container_options=muxing) as container:
        stream: Any = container.add_stream(codec, rate=rate, options=coding)
        stream.layout = layout
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples.T.astype(np.float32)), format="fltp", layout=layout
        )
        frame.sample_rate, frame.pts = rate, 0
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return file.getvalue()


def lag(heard: np.ndarray, true: np.ndarray) -> int:
    """By how many samples `heard` comes late, by the peak of their correlation."""
    size = 2 * max(len(heard), len(true))
    spectrum = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(true, size))
    at = int(np.fft.irfft(spectrum).argmax())
    return at if at < size // 2 else at - size
