"""Means over clips: mass by layer, and a layer × head map for each stream."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st
from _downloads import offer

from palscope.measures import mean_band
from palscope.measures._columns import NO_SOUND
from palscope.plots import _attention as screen
from palscope.plots import _paper as paper


def show_means(masses: Sequence[pd.DataFrame], name: str) -> None:
    """Draw the means of tables from `by_pathway`, one a clip, and offer them as files.

    Args:
        masses: the tables.
        name: begins the files' names; unique on the page.
    """
    layers = mean_band(masses, ["layer", "pathway"])
    figure = screen.mass_by_layer(layers)
    st.plotly_chart(figure, key=f"{name} layers")
    offer(
        f"{name} mass by layer",
        lambda figure=figure: figure,
        partial(paper.mass_by_layer, layers),
        lambda: layers,
    )
    heads: Any = mean_band(masses, ["layer", "head", "pathway"])
    pathways = [str(each) for each in heads["pathway"].unique() if each not in NO_SOUND]
    for column, pathway in zip(st.columns(max(1, len(pathways))), pathways, strict=False):
        with column:
            figure = screen.layer_head_map(heads, pathway).update_traces(zmax=1)
            st.plotly_chart(figure, key=f"{name} map {pathway}")
            offer(
                f"{name} layer by head {pathway}",
                lambda figure=figure: figure,
                partial(paper.layer_head_map, heads, pathway),
                lambda pathway=pathway: heads[heads["pathway"] == pathway],
            )
