"""How long an analysis will take: passes that it is made of, and one that was measured."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import streamlit as st
from _models import at_each_turn

TOLD_EVERY = 0.5
"""Seconds between what is said of a run."""


@dataclass
class Pace:
    """How much longer an analysis took than its passes say, when it last ran with this model."""

    factor: float = 1.0


@st.cache_resource(max_entries=64, show_spinner=False)
def pace(script: str, version: str) -> Pace:
    """Of an analysis with a checkpoint, on this machine, since the server was started."""
    return Pace()


def in_words(seconds: float) -> str:
    """No more exact than it is known.

    >>> [in_words(each) for each in (0.4, 7.2, 44, 130)]
    ['about 1 s', 'about 8 s', 'about 45 s', 'about 3 min']
    """
    if seconds <= 10:
        return f"about {max(1, math.ceil(seconds))} s"
    if seconds <= 90:
        return f"about {5 * math.ceil(seconds / 5)} s"
    return f"about {math.ceil(seconds / 60)} min"


@contextmanager
def told_while_running(expected: float | None) -> Generator[None]:
    """Within, a bar says how long it has been running, and how long it should.

    Args:
        expected: seconds; None where nobody knows.
    """
    began = told = time.monotonic()
    bar = st.progress(0.0, "Running …")

    def tell() -> None:
        nonlocal told
        now = time.monotonic()
        if now - told < TOLD_EVERY:
            return
        told, ran = now, now - began
        words = (
            "; how long it takes is not known" if expected is None else f" of {in_words(expected)}"
        )
        # Longer than it should take: the bar stands, the words go on.
        share = 0.0 if expected is None else min(ran / expected, 0.99)
        bar.progress(share, f"Running: {ran:.0f} s{words}")

    try:
        with at_each_turn(tell):
            yield
    finally:
        bar.empty()
