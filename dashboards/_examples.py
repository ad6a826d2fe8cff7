"""A row of examples in which something happens, each one click."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st
from _address import remember_edits
from _edit_view import HEADS, LAYERS, STREAMS
from _models import demo_models
from _sounds import ChosenSound

from palscope._models.finding import DEMO


@dataclass(frozen=True)
class Example:
    """A view: model, clip with its own question, seconds, and where in the model they are meant."""

    name: str
    clip: str
    seconds: str = ""
    streams: tuple[str, ...] = ()
    layers: tuple[int, int] | None = None
    try_this: str = ""


EXAMPLES = (
    Example(
        "Second digit",
        "three, seven, one",
        try_this="Press **Cut**: without *seven* the model answers “one”. Cut *three* or *one* "
        "instead, and it still answers “seven”.",
    ),
    Example(
        "Dog or rain first?",
        "dog, then rain",
        seconds="0.92-2.92",
        streams=("summary",),
        layers=(20, 25),
        try_this="The model errs: it says “rain”. Press **Cut**: without the rain in layers 20 to "
        "25 of the summary it says “dog”.",
    ),
    Example(
        "Last of four",
        "nine, two, five, four",
        try_this="Press **Keep only**: *four* alone is not the last of four, but is it enough?",
    ),
)


def show_examples(sound: ChosenSound) -> None:
    """The row, and one sentence what to press where one of them is open."""
    if DEMO[0] not in demo_models():
        return
    row = st.container(horizontal=True, vertical_alignment="center")
    for each in EXAMPLES:
        row.button(each.name, on_click=take, args=(each,), key=f"example {each.name}")
    # What the sentence says is so of the first of the demo's models.
    told = EXAMPLES if st.session_state.get("model") == DEMO[0] else ()
    shown = next((each for each in told if each.clip == sound.name), None)
    if shown is not None:
        row.markdown(shown.try_this, width=460)


def take(example: Example) -> None:
    """Show the example from its beginning."""
    state = st.session_state
    state["model"], state["clip"], state["question"] = DEMO[0], example.clip, ""
    state["candidates"], state["against"] = "", "another route"
    for name in ("seconds", "route", "token"):
        st.query_params.pop(name, None)
    if example.seconds:
        st.query_params["seconds"] = example.seconds
    remember_edits([])
    state[STREAMS], state[HEADS] = list(example.streams), []
    state.pop(LAYERS, None)
    if example.layers is not None:
        state[LAYERS] = example.layers
