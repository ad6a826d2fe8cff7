"""The logit lens as a table: what the answer would be, had the decoder ended earlier."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from _answers import Ask, generated_answer, once, visible, with_answer
from _figures import shaded_cell, shaded_table

from palscope.measures import logit_lens

UNITS = ("per cent", "nats")


def show_lens(ask: Ask, key: str) -> None:
    """The likeliest next word after every layer, at the tokens that predict the answer."""
    unit: Any = st.segmented_control(
        "Probabilities in", UNITS, default=UNITS[0], key=key, required=True
    )
    st.html(lens_table(once(ask, "lens", lambda: answer_lens(ask)), nats=unit == "nats"))
    st.caption(
        "The state after each layer, through the final norm and the unembedding. A column is a "
        "token, and what it predicts; the last layer's words are the answer."
    )


def answer_lens(ask: Ask) -> pd.DataFrame:
    """`logit_lens` of the tokens that predict the answer's: the prompt's last, and its own."""
    inputs, prompt = with_answer(ask)
    count = len(generated_answer(ask).tokens)
    with ask.opened.model.route(ask.route):
        return logit_lens(
            ask.opened.model, inputs, tokens=range(prompt - 1, prompt - 1 + count), top_k=1
        )


def lens_table(table: pd.DataFrame, *, nats: bool) -> str:
    """An HTML table: a column a token, a row a layer, the last one on top.

    Args:
        table: of `logit_lens`, one entry a token and layer.
        nats: log-probabilities in place of per cent.
    """
    whole: Any = table
    columns: list[int] = sorted(whole["column"].unique())
    tokens = whole.drop_duplicates("column").set_index("column")["token"]
    rows: dict[str, list[str]] = {}
    depths = whole[["site", "layer"]].drop_duplicates().itertuples(index=False)
    for site, layer in reversed([*depths]):
        name = "before layer 0" if site == "resid_pre" else f"after {layer}"
        here = whole[(whole["site"] == site) & (whole["layer"] == layer)].set_index("column")
        there = set(here.index)
        rows[name] = [_cell(here.loc[c], nats) if c in there else "<td></td>" for c in columns]
    named = [f"{visible(tokens[c])} →" for c in columns]
    return shaded_table("logit lens: likeliest word by layer and token", "layer", named, rows)


def _cell(row: Any, nats: bool) -> str:
    share = float(np.exp(row["logprob"]))
    number = f"{row['logprob']:.2f}" if nats else f"{100 * share:.1f} %"
    return shaded_cell(visible(row["entry"]), share, number)
