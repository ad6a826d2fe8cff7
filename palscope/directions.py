"""Directions: what can be read from stored activations, what is used, and steering along it."""

from __future__ import annotations

from palscope._directions.direction import Direction, Steer
from palscope._directions.erasure import Eraser, decodable
from palscope._directions.examples import Examples, clip_examples
from palscope._directions.found import direction_scores, find_direction
from palscope._directions.probes import probe_scores

__all__ = [
    "Direction",
    "Eraser",
    "Examples",
    "Steer",
    "clip_examples",
    "decodable",
    "direction_scores",
    "find_direction",
    "probe_scores",
]
