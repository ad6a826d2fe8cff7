"""Pairs: clean and corrupt clips for patching, matched in length and level, and their controls."""

from __future__ import annotations

from palscope.pairs._controls import control
from palscope.pairs._files import pair_from_files, read_pairs
from palscope.pairs._pair import Pair, matched
from palscope.pairs._swaps import bundled_pairs, swap_pairs

__all__ = [
    "Pair",
    "bundled_pairs",
    "control",
    "matched",
    "pair_from_files",
    "read_pairs",
    "swap_pairs",
]
