"""Pairs: clean and corrupt clips for patching, matched in length and level, and their controls."""

from palscope.pairs._controls import control
from palscope.pairs._files import pair_from_files, read_pairs
from palscope.pairs._pair import Pair, Segment, matched, self_pair
from palscope.pairs._swaps import KINDS, bundled_corpus, bundled_pairs, swap_pairs

__all__ = [
    "KINDS",
    "Pair",
    "Segment",
    "bundled_corpus",
    "bundled_pairs",
    "control",
    "matched",
    "pair_from_files",
    "read_pairs",
    "self_pair",
    "swap_pairs",
]
