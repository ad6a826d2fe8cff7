"""Of Whisper's vocabularies, what tells them apart and what old files leave out."""

from __future__ import annotations

TIMES = tuple(f"<|{step / 50:.2f}|>" for step in range(1501))
"""Words for times, behind all others."""

MULTILINGUAL = 51_865
"""Vocabularies below this size are of checkpoints that hear English alone."""
