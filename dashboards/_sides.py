"""One side of a comparison: what is asked, answered and attended to, and its figures."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st
from _answers import (
    Ask,
    Attended,
    GeneratedAnswer,
    attended,
    once,
)


@dataclass(frozen=True)
class Side:
    """One side of the comparison, and what the visitor looks at in it."""

    name: str
    ask: Ask
    answer: GeneratedAnswer
    attended: Attended
    offset: int

    @property
    def mass(self) -> pd.DataFrame:
        """Mass of each key."""
        return self.attended.keys

    @property
    def pathways(self) -> pd.DataFrame:
        """Mass of each pathway."""
        return self.attended.pathways


def side_of(name: str, ask: Ask, answer: GeneratedAnswer, offset: int) -> Side:
    return Side(name, ask, answer, attended(ask, offset), offset)


def once_of_sides(sides: list[Side], key: Any, make: Callable[[], Any]) -> Any:
    """What follows from all sides, made once; `key` tells it from their others."""
    whole = (key, tuple((*side.ask.key, side.offset) for side in sides))
    return once(sides[0].ask, whole, make)


def of_head(mass: Any, layer: int | None, head: int | None) -> pd.DataFrame:
    """The rows of the chosen layer and head; all of them where none is chosen."""
    if layer is not None:
        mass = mass[mass["layer"] == layer]
    return mass if head is None else mass[mass["head"] == head]


def head_name(layer: int | None, head: int | None) -> str:
    return (
        f"{'all layers' if layer is None else f'layer {layer}'}, "
        f"{'all heads' if head is None else f'head {head}'}"
    )


def title(side: Side, sides: list[Side]) -> None:
    if len(sides) > 1:
        st.markdown(f"**{plain(side.name)}**")


def plain(text: str) -> str:
    """Text for Markdown that shows as it is."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text)  # of no others Markdown takes the backslash
