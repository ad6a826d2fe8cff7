"""A small index of units, of noise that a checkpoint heard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import palscope
from palscope.audio._display import wav_bytes
from palscope.features import (
    LabelledClip,
    UnitIndex,
    UnitSource,
    collect_activations,
    index_units,
)
from palscope.interventions import Address

HOOK = "audio_blocks.0.hook_out"


def index_of_noise(checkpoint: Path, folder: Path) -> UnitIndex:
    """Both ends of the dimensions, and beside them the dimensions, over eight clips in `folder`."""
    drawn = np.random.default_rng(0)
    clips: list[LabelledClip] = []
    for number in range(8):
        path = folder / f"{number}.wav"
        path.write_bytes(wav_bytes(drawn.normal(0, 0.1, 8000), 16_000))
        about = {"label": "ab"[number % 2], "domain": "noise", "group": str(number)}
        split = "train" if number < 4 else "validation"
        clips.append(LabelledClip(f"clip {number}", path, split=split, **about))
    model = palscope.load(checkpoint)
    store = collect_activations(
        model, clips, [Address("encoder_block", layers=(0,))], folder / "store"
    )
    sources = [UnitSource.of_dimensions(store[HOOK], "ends"), UnitSource.of_rows(store[HOOK])]
    sounds: dict[str, Any] = {clip.name: clip.sound for clip in clips}
    return index_units(sources, folder / "index", sounds=sounds)
