"""Small indexes of units, of noise that a checkpoint heard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import palscope
from palscope.audio._display import wav_bytes
from palscope.features import (
    ActivationStore,
    LabelledClip,
    UnitIndex,
    UnitSource,
    collect_activations,
    index_units,
)
from palscope.interventions import Address, Text

HOOK = "audio_blocks.0.hook_out"


def index_of_noise(checkpoint: Path, folder: Path) -> UnitIndex:
    """Both ends of the dimensions, and beside them the dimensions, over eight clips in `folder`."""
    store, sounds = _heard(checkpoint, folder, Address("encoder_block", layers=(0,)))
    sources = [UnitSource.of_dimensions(store[HOOK], "ends"), UnitSource.of_rows(store[HOOK])]
    return index_units(sources, folder / "index", sounds=sounds)


def index_of_heads(checkpoint: Path, folder: Path) -> UnitIndex:
    """Heads that read the summary, and the same spread evenly, over the same clips."""
    store, sounds = _heard(checkpoint, folder, Address("pattern", queries=Text(-1)))
    rows = store["pattern.summary"]
    sources = [UnitSource.of_heads(rows), UnitSource.of_even_heads(rows)]
    return index_units(sources, folder / "index", sounds=sounds)


def _heard(
    checkpoint: Path, folder: Path, address: Address
) -> tuple[ActivationStore, dict[str, Any]]:
    drawn = np.random.default_rng(0)
    clips: list[LabelledClip] = []
    for number in range(8):
        path = folder / f"{number}.wav"
        path.write_bytes(wav_bytes(drawn.normal(0, 0.1, 8000), 16_000))
        about = {"label": "ab"[number % 2], "domain": "noise", "group": str(number)}
        about["question"] = "which digit is spoken first?"
        split = "train" if number < 4 else "validation"
        clips.append(LabelledClip(f"clip {number}", path, split=split, **about))
    store = collect_activations(palscope.load(checkpoint), clips, [address], folder / "store")
    return store, {clip.name: clip.sound for clip in clips}
