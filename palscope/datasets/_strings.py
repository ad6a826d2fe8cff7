"""Strings of spoken words: single words of one speaker, one behind the other, their times known."""

from __future__ import annotations

import numpy as np

from palscope.audio._compose import SAMPLE_RATE, LabelledSpan, Scene, at_level, join, trim
from palscope.datasets._manifest import Clip, Corpus, ManifestError

PAUSE_S = (0.1, 0.3)
"""Shortest and longest silence between two words, and before the first and behind the last."""

_LEVEL = 0.05


def spoken_strings(
    corpus: Corpus, *, n: int, words: tuple[int, int] = (3, 5), seed: int, split: str | None = None
) -> list[Scene]:
    """`n` strings of different words, each string one speaker's where the manifest names speakers.

    Words are trimmed to where they sound, equally loud, and parted by silence of `PAUSE_S`.

    Args:
        corpus: of clips of single words, domain `speech`; their labels are the words.
        n: how many.
        words: fewest and most of a string.
        seed: of all draws; the first of them are the same for a smaller `n`.
        split: clips of this split alone; None: of any.

    Raises:
        ManifestError: there are no such clips, or no speaker has so many words.
        AudioError: a clip cannot be decoded.
    """
    voices: dict[str, dict[str, list[Clip]]] = {}
    for label, clips in corpus.by_label("speech", split).items():
        for clip in clips:
            voices.setdefault(clip.group, {}).setdefault(label, []).append(clip)
    able = sorted(voice for voice, said in voices.items() if len(said) >= words[1])
    if not able:
        raise ManifestError(
            f"no speaker (column group) of the manifest says {words[1]} different words; strings "
            "are made of clips of domain speech, whose labels are the words."
        )
    rng = np.random.default_rng(seed)
    return [_string(voices[able[rng.integers(len(able))]], words, corpus, rng) for _ in range(n)]


def _string(
    said: dict[str, list[Clip]], words: tuple[int, int], corpus: Corpus, rng: np.random.Generator
) -> Scene:
    count = int(rng.integers(words[0], words[1] + 1))
    places: list[int] = rng.permutation(len(said))[:count].tolist()
    labels = [sorted(said)[place] for place in places]
    parts = [_word(label, said[label], corpus, rng) for label in labels]
    quiet = Scene(np.zeros(0, dtype=np.float32), ())
    return join([quiet, *parts, quiet], rng.uniform(*PAUSE_S, count + 1).tolist())


def _word(label: str, clips: list[Clip], corpus: Corpus, rng: np.random.Generator) -> Scene:
    clip = clips[rng.integers(len(clips))]
    samples = at_level(trim(corpus.waveforms[clip]), _LEVEL)
    return Scene(samples, (LabelledSpan(label, 0.0, len(samples) / SAMPLE_RATE),))
