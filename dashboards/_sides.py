"""Both clips of a pair asked for the same candidates: what each candidate is to each clip."""

from __future__ import annotations

import pandas as pd

from palscope.pairs import Pair
from palscope.plots._choices import OTHER, REST, RIGHT

SIDES = ("clean", "corrupt")


def with_roles(table: pd.DataFrame, pair: Pair) -> pd.DataFrame:
    """`table` (columns `side, choice`) with `clip`, a name for each side, and each `role`."""
    answers = dict(zip(SIDES, (pair.clean_answer, pair.corrupt_answer), strict=True))
    named = {side: f"{side} clip (“{answer}”)" for side, answer in answers.items()}
    roles = [
        RIGHT if choice == answers[side] else OTHER if choice in answers.values() else REST
        for side, choice in zip(table["side"], table["choice"], strict=True)
    ]
    return table.assign(clip=table["side"].map(named.__getitem__), role=roles)
