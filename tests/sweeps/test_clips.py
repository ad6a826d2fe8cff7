"""Sound files that a command line names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from palscope._sweeps.clips import SOUND_ENDINGS, sound_files
from palscope.audio import load_audio
from palscope.errors import AudioError


def test_folders_are_searched_for_sound(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.wav", "a.mp3", "deep/x.FLAC", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in sound_files(tmp_path)] == ["a.mp3", "b.wav", "x.FLAC"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(AudioError, match="empty holds no sound file"):
        sound_files(tmp_path / "empty")


CODECS = {".3gp": "aac", ".mkv": "flac", ".mka": "flac", ".wv": "wavpack"}
"""Where FFmpeg would take another by itself, or none."""
NO_WRITER = {".amr", ".sph", ".wma", ".snd", ".rf64"}
"""Of NIST and of AMR there is none; others are written under another ending, or not in mono."""


@pytest.mark.parametrize("ending", sorted(set(SOUND_ENDINGS) - NO_WRITER))
def test_what_ffmpeg_writes_under_an_ending_is_read(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x{ending}"
    with av.open(str(path), "w") as file:
        codec: Any = CODECS.get(ending, file.default_audio_codec)
        stream: Any = file.add_stream(codec, rate=48_000, layout="mono")
        tone = (8000 * np.sin(np.arange(48_000) / 20)).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48_000, 0
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            file.mux(packet)
    sound = load_audio(path)
    assert sound.seconds == pytest.approx(1, abs=0.1)
    assert sound.samples.std() == pytest.approx(8000 / 2**15 / 2**0.5, rel=0.1)
