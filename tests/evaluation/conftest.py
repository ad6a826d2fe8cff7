"""A manifest of tones and a model that hears their pitch: right by construction."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from palscope.evaluation._ranking import ChoiceQuestion

RATE = 16_000


def pitch(label: str) -> int:
    """Hz, one for each label, far enough apart to be told by zero crossings."""
    return 200 + 10 * (zlib.crc32(label.encode()) % 727)


@dataclass
class Hearing:
    """Gives the choice nearest to the clip's pitch the highest log-probability."""

    asked: list[ChoiceQuestion] = field(default_factory=list[ChoiceQuestion])

    def choice_logprobs(self, asked: list[ChoiceQuestion]) -> list[list[float]]:
        self.asked += asked
        return [
            [-abs(self.hertz(each) - pitch(choice)) for choice in each.choices] for each in asked
        ]

    def answer(self, asked: list[ChoiceQuestion]) -> list[str]:
        rows = [
            [-abs(self.hertz(each) - pitch(choice)) for choice in each.choices] for each in asked
        ]
        return [
            f" {each.choices[int(np.argmax(row))]}\n" for each, row in zip(asked, rows, strict=True)
        ]

    @staticmethod
    def hertz(each: ChoiceQuestion) -> float:
        samples = each.waveforms[0]
        spectrum = np.abs(np.fft.rfft(samples))
        return float(np.argmax(spectrum) * RATE / len(samples))


Maker = Callable[..., Path]


@pytest.fixture
def make_manifest(tmp_path: Path) -> Maker:
    """Writes tones of one second, a row each, and returns the manifest's path."""

    def make(rows: list[tuple[str, str]], *, splits: list[str] | None = None) -> Path:
        lines = ["path,domain,label" + (",split" if splits else "")]
        for number, (domain, label) in enumerate(rows):
            name = f"{number}.wav"
            tone = 0.2 * np.sin(2 * np.pi * pitch(label.lower()) * np.arange(RATE) / RATE)
            sf.write(tmp_path / name, tone, RATE)
            lines.append(f"{name},{domain},{label}" + (f",{splits[number]}" if splits else ""))
        path = tmp_path / "manifest.csv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return make


@pytest.fixture
def hearing() -> Hearing:
    return Hearing()
