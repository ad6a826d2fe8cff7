"""Where the selection is read: heads, layers and seconds by what cutting them does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import streamlit as st
from _answers import Ask, once
from _downloads import offer, show
from _edit_view import HEADS, LAYERS, Selection, lead_in_words
from _edited import (
    effect_of_all,
    effects_of_heads,
    effects_of_seconds,
    fewest_layers,
    measured_seconds,
)
from _edits import numbers
from _figures import click_map
from _given import tell_dropped
from _player import Effects

from palscope.errors import PalscopeError
from palscope.interventions import Sound
from palscope.plots import head_effects_map
from palscope.plots._effects import effects_over_time

SECONDS = "cut seconds"
"""The switch that has every stretch of the clip cut."""

BY_NAME = "one head"
"""The widget that names one."""

SOLE = 0.5
"""Of what cutting all layers does: a head that does as much carries the answer by itself."""


def show_effects(ask: Ask, selection: Selection, rival: str) -> tuple[int, int] | None:
    """Layers and heads by what cutting them off from the selection does to the answer.

    Gives the layer and head that do most; None where text sees nothing of it.
    """
    sounds = (Sound(*selection),) if selection else (Sound(),)
    what = f"{selection[0]:.2f}–{selection[1]:.2f} s" if selection else "all of the sound"
    lead = lead_in_words(ask, rival)
    st.caption(f"Heads by effect: what cutting one off from {what} does to the {lead}")
    try:
        with st.spinner("One gradient, and a dozen cuts …"):
            table: Any = effects_of_heads(ask, rival, sounds)
    except PalscopeError as error:
        st.info(str(error))
        return None
    asked = f"{ask.caption.asked}, {what}, {lead}"
    caption = replace(ask.caption, asked=asked)
    key = ("map of effects", rival, sounds)
    figure = once(ask, key, lambda: head_effects_map(table, caption=caption))
    click_map(
        "map of effects",
        figure,
        chosen(),
        choose,
        "Layer by head map of what cutting a head off does to the answer",
        height=330,
        title=None,
        margin={"t": 24, "b": 36, "l": 40, "r": 0},
    )
    choose_by_name(table)
    say_who_carries_it(ask, table, sounds, rival)
    show_top(table)
    offer("map of effects", lambda: figure)
    show_seconds(ask, rival, lead)
    top = table.iloc[0]
    return int(top["layer"]), int(top["head"])


def choose_by_name(table: Any) -> None:
    """What a click on the map does, for the keyboard, and the map in words."""
    seen = table.dropna(subset=["mass"]).itertuples()
    told = {(row.layer, row.head): effect_in_words(row) for row in seen}
    st.session_state[BY_NAME] = chosen() if chosen() in told else None

    def take() -> None:
        named = st.session_state[BY_NAME]
        if named is None:
            mean_all()
        else:
            choose(*named)

    st.selectbox(
        "One head, the largest effect first",
        [*told],
        index=None,
        format_func=lambda head: told[head],
        key=BY_NAME,
        on_change=take,
        placeholder="Choose one head …",
        label_visibility="collapsed",
    )


def effect_in_words(row: Any) -> str:
    """A head of the table: its effect, or what that is estimated to be."""
    cut = row.effect == row.effect
    effect = f"{row.effect:+.2f} nats" if cut else f"about {row.estimate:+.2f} nats"
    return f"layer {row.layer}, head {row.head}: {effect}"


def mean_all() -> None:
    """Mean all layers and heads again."""
    st.session_state.pop(LAYERS, None)
    st.session_state[HEADS] = []


def choose(layer: int, head: int) -> None:
    """Mean this head alone, and look at it."""
    st.session_state[LAYERS], st.session_state[HEADS] = (layer, layer), [head]
    st.session_state["layer"], st.session_state["head"] = str(layer), str(head)


def chosen() -> tuple[int | None, int | None]:
    """The head that is meant, where it is one."""
    layers, heads = (st.session_state.get(key) for key in (LAYERS, HEADS))
    if layers and heads and layers[0] == layers[1] and len(heads) == 1:
        return layers[0], heads[0]
    return None, None


def say_who_carries_it(ask: Ask, table: Any, sounds: tuple[Sound, ...], rival: str) -> None:
    """Whether one head does it, and else the fewest neighbouring layers."""
    whole = effect_of_all(ask, rival, sounds)
    top = next(table.itertuples())
    share = top.effect / whole if whole else 0.0
    head = f"layer {top.layer}, head {top.head} ({top.effect:+.2f} nats)"
    if share >= SOLE:
        st.caption(f"One head carries it: {head} of {whole:+.2f} with all layers cut.")
        return
    st.caption(f"No single head carries it: the most is {head}, all layers together {whole:+.2f}.")
    asked = f"fewest {hash((ask.key, sounds, rival))}"
    if st.button("Find the fewest layers", key="fewest"):
        st.session_state[asked] = True
    if not st.session_state.get(asked):
        return
    with st.spinner("Cutting windows of layers …"):
        windows: Any = fewest_layers(ask, rival, sounds)
    if not len(windows):
        st.caption("Cutting it in all layers does nothing.")
        return
    first = windows.iloc[0]
    layers = (int(first["first_layer"]), int(first["last_layer"]))
    named = numbers(range(layers[0], layers[1] + 1))
    st.caption(
        f"Layer{'s' * (layers[0] != layers[1])} **{named}** alone: {first['effect']:+.2f} nats, "
        f"{100 * first['share']:.0f} % of all. Of fewer neighbouring layers none does half."
    )

    def take() -> None:
        st.session_state[LAYERS], st.session_state[HEADS] = layers, []

    st.button("Mean these layers", on_click=take, key="take window")


def show_seconds(ask: Ask, rival: str, lead: str) -> None:
    """Every stretch of the clip by what cutting it does."""
    with st.expander("Seconds by effect"):
        label = "Cut every stretch of the clip, one by one"
        asked = None if SECONDS in st.session_state else st.query_params.get(SECONDS)  # of a link
        wanted = st.toggle(label, key=SECONDS, bind="query-params")
        tell_dropped(SECONDS, label, asked, wanted)
        if not wanted:
            return
        with st.spinner("Cutting …"):
            table = effects_of_seconds(ask, rival)
        caption = replace(ask.caption, asked=f"{ask.caption.asked}, {lead}")
        figure = once(
            ask,
            ("figure of seconds", rival),
            lambda: effects_over_time(table, ask.sound.waveform, caption=caption),
        )
        show(figure, "seconds by effect")


def effects_for_player(ask: Ask, rival: str) -> Effects | None:
    """What `show_seconds` has measured; None while it is not asked for."""
    table = measured_seconds(ask, rival) if st.session_state.get(SECONDS) else None
    return None if table is None else Effects(table, lead_in_words(ask, rival))


def show_top(table: Any, count: int = 8) -> None:
    """The heads with the largest effects, attention mass beside."""
    top = table.dropna(subset=["effect"]).head(count)
    st.dataframe(
        pd.DataFrame(
            {
                "head": [f"{row.layer}.{row.head}" for row in top.itertuples()],
                "effect (nats)": top["effect"].round(2).to_numpy(),
                "estimated": top["estimate"].round(2).to_numpy(),
                "attention (%)": (100 * top["mass"]).round(1).to_numpy(),
            }
        ),
        hide_index=True,
        height=180,
        key="top heads",
    )
