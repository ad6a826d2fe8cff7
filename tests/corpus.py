"""A small corpus of tones, one pitch a label, in place of real recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from palscope.datasets._manifest import Corpus
from palscope.datasets._questions import LABELS

SECONDS = {"sound": 5.0, "speech": 0.4, "music": 3.0}


def write_corpus(folder: Path) -> Path:
    """Two clips a label and split, written as WAV at 16 kHz, with their manifest."""
    lines = ["path,domain,label,split,group"]
    rate = 16_000
    for domain, labels in LABELS.items():
        for number, label in enumerate(labels):
            time = np.arange(round(SECONDS[domain] * rate)) / rate
            tone = 0.1 * np.sin(2 * np.pi * (200 + 40 * number) * time)
            for split, group in (("train", "ann"), ("train", "bob"), ("validation", "cid")):
                for take in range(2):
                    name = f"{domain}_{label.replace(' ', '_')}_{group}_{take}.wav"
                    sf.write(folder / name, tone, rate)
                    lines.append(f"{name},{domain},{label},{split},{group}")
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return manifest


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    return Corpus.open(write_corpus(folder), folder / "cache", progress=False)
