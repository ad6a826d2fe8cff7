"""Means over clips: mass by layer, and a layer × head map for each stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st
from _downloads import show

from palscope.measures import mean_band
from palscope.measures._columns import NO_SOUND
from palscope.plots import Caption, layer_head_map, mass_by_layer, shared_scale


def show_means(masses: Sequence[pd.DataFrame], name: str, caption: Caption) -> None:
    """Draw the means of tables from `by_pathway`, one a clip, and offer them as files.

    Args:
        masses: the tables.
        name: begins the files' names; unique on the page.
        caption: what every figure says.
    """
    layers = mean_band(masses, ["layer", "pathway"])
    show(mass_by_layer(layers, caption=caption), f"{name} mass by layer")
    heads: Any = mean_band(masses, ["layer", "head", "pathway"])
    pathways = [str(each) for each in heads["pathway"].unique() if each not in NO_SOUND]
    maps = shared_scale([layer_head_map(heads, each, caption=caption) for each in pathways])
    for column, pathway, figure in zip(
        st.columns(max(1, len(pathways))), pathways, maps, strict=False
    ):
        with column:
            show(figure, f"{name} layer by head {pathway}")
