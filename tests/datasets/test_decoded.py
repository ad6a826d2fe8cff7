"""Decoded sound is kept for the files, and for what decodes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from palscope.datasets import _decoded as decoded
from palscope.datasets._decoded import decode_once


def test_what_another_decoder_kept_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "clip.wav"
    soundfile.write(file, np.linspace(-0.5, 0.5, 1600), 16_000)
    mine = decode_once([file], tmp_path / "kept", progress=False)
    assert decode_once([file], tmp_path / "kept", progress=False).folder == mine.folder
    monkeypatch.setattr(decoded, "_decoders", lambda: "an older one")
    other = decode_once([file], tmp_path / "kept", progress=False)
    assert other.folder != mine.folder
    np.testing.assert_array_equal(other[str(file)], mine[str(file)])
