"""Augmentation of 16 kHz waveforms, so that the recording chain says nothing about the answer.

Each of the demo's domains was recorded in its own way: the spoken digits at 8 kHz, the music
rendered without noise, the environmental sounds padded with digital silence. Every change here is
therefore applied to all domains alike.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import soxr

from palscope.audio._compose import SAMPLE_RATE, LabelledSpan, Scene, level
from palscope.audio._waveform import Samples

# How often each change is made. 8 kHz, the chain of the spoken digits, is as likely as all the
# other band limits together.
P_SPEED = 0.5
P_BAND = 0.5
P_MU_LAW = 0.15
P_NOISE = 0.7
BAND_RATES = (8_000, 8_000, 8_000, 6_000, 11_025, 12_000)
MAX_PAUSE_S = 0.5
MAX_SECONDS = 6.0


def augment(scene: Scene, rng: np.random.Generator) -> Scene:
    """A random change of speed, band, codec, surrounding pause, noise and gain; times follow."""
    if rng.random() < P_SPEED:
        scene = change_speed(scene, rng.uniform(0.95, 1.05))
    samples = scene.samples
    if rng.random() < P_BAND:
        samples = limit_band(samples, BAND_RATES[rng.integers(len(BAND_RATES))])
    if rng.random() < P_MU_LAW:
        samples = mu_law(samples)
    pause = min(MAX_PAUSE_S, max(0.0, MAX_SECONDS - scene.seconds) / 2)
    scene = pad(
        Scene(samples, scene.spans), before=rng.uniform(0.0, pause), after=rng.uniform(0.0, pause)
    )
    samples = scene.samples
    if rng.random() < P_NOISE:
        samples = add_noise(samples, rng.uniform(15.0, 40.0), rng)
    samples = samples * np.float32(10 ** (rng.uniform(-12.0, 6.0) / 20))
    return Scene(samples.clip(-1.0, 1.0), scene.spans)


def change_speed(scene: Scene, factor: float) -> Scene:
    """Play faster by `factor` (pitch rises with it)."""
    samples = soxr.resample(scene.samples, SAMPLE_RATE * factor, SAMPLE_RATE, quality="LQ")
    spans = tuple(LabelledSpan(s.label, s.start / factor, s.end / factor) for s in scene.spans)
    return Scene(np.asarray(samples, dtype=np.float32), spans)


def limit_band(samples: Samples, rate: int) -> Samples:
    """Resample to `rate` Hz and back, which removes what lies above half of it."""
    narrow = soxr.resample(samples, SAMPLE_RATE, rate, quality="LQ")
    wide = soxr.resample(narrow, rate, SAMPLE_RATE, quality="LQ")
    out = np.zeros_like(samples)
    length = min(len(samples), len(wide))
    out[:length] = wide[:length]
    return out


def mu_law(samples: Samples, *, steps: int = 255) -> Samples:
    """The quantisation of telephone speech (ITU-T G.711's mu-law curve, 8 bits), at full scale."""
    peak = float(np.abs(samples).max(initial=0.0))
    if peak == 0:
        return samples
    scaled = samples / np.float32(peak)
    compressed = np.sign(scaled) * np.log1p(steps * np.abs(scaled)) / np.float32(np.log1p(steps))
    coarse = np.round(compressed * 127) / np.float32(127)
    expanded = np.sign(coarse) * np.expm1(np.abs(coarse) * np.float32(np.log1p(steps))) / steps
    return (expanded * np.float32(peak)).astype(np.float32)


def pad(scene: Scene, *, before: float, after: float) -> Scene:
    """Digital silence of so many seconds before and after."""
    front = round(before * SAMPLE_RATE)
    samples = np.zeros(front + len(scene.samples) + round(after * SAMPLE_RATE), dtype=np.float32)
    samples[front : front + len(scene.samples)] = scene.samples
    shift = front / SAMPLE_RATE
    return Scene(
        samples, tuple(LabelledSpan(s.label, s.start + shift, s.end + shift) for s in scene.spans)
    )


def add_noise(samples: Samples, snr_db: float, rng: np.random.Generator) -> Samples:
    """White or pink noise, `snr_db` dB below the sound's own level."""
    noise = _noise("pink" if rng.random() < 0.5 else "white")
    start = int(rng.integers(len(noise)))
    stretch = noise.take(np.arange(start, start + len(samples)), mode="wrap")
    return samples + stretch * np.float32(level(samples) * 10 ** (-snr_db / 20))


@cache
def _noise(colour: str) -> Samples:
    """Half a minute of noise of unit power.

    Drawn once: making it afresh would take most of the time of an example.
    """
    rng = np.random.default_rng(0)
    white = rng.standard_normal(2**19).astype(np.float32)
    if colour == "white":
        return white
    spectrum = np.fft.rfft(white)
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))  # power falls as 1/f
    spectrum[0] = 0.0
    pink = np.fft.irfft(spectrum).astype(np.float32)
    return pink / pink.std()
