"""A made-up table of attention mass: three layers, two heads, a clip of one second."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from palscope.audio import Waveform


@pytest.fixture
def table() -> pd.DataFrame:
    """Layer 1 sees no frames; head 1 of layer 2 looks at 0.4 to 0.5 s alone."""
    rows = []
    for layer in range(3):
        for head in range(2):
            frames = np.full(10, 0.04) if layer != 1 else np.zeros(0)
            if (layer, head) == (2, 1):
                frames = np.eye(10)[4]
            summary = np.full(4, 0.05 if frames.sum() < 0.9 else 0)
            for i, mass in enumerate(frames):
                rows.append((layer, head, "frames", i, 0, i / 10, (i + 1) / 10, mass))
            for i, mass in enumerate(summary):
                rows.append((layer, head, "summary", i, 0, 0.3 * i, min(0.3 * i + 0.3, 1), mass))
            rest = 1 - frames.sum() - summary.sum()
            rows.append((layer, head, "text", 20, -1, np.nan, np.nan, rest))
    names = ["layer", "head", "pathway", "key", "clip", "start_s", "end_s", "mass"]
    made = pd.DataFrame(rows, columns=names)
    made.insert(0, "row", 0)
    made.insert(1, "query", 30)
    made["pathway"] = pd.Categorical(made["pathway"], categories=["text", "frames", "summary"])
    return made


@pytest.fixture
def waveform() -> Waveform:
    """One second of 1 kHz."""
    times = np.arange(16_000) / 16_000
    return Waveform((0.3 * np.sin(2000 * np.pi * times)).astype(np.float32), 16_000, "tone")
