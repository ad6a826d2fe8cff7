"""A row of examples in which something happens, each one click."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st
from _address import remember_edits
from _edit_view import HEADS, LAYERS, STREAMS
from _mass_view import SELECTED
from _models import demo_models
from _sounds import ChosenSound

from palscope._models.finding import DEMO


@dataclass(frozen=True)
class Example:
    """A view: clip with its own question, seconds, and where in the model they are meant.

    `token` is whose attention is shown, `shown` what the map of heads shows of it. `model` is None
    for that which is open.
    """

    name: str
    clip: str
    model: str | None = DEMO[0]
    seconds: str = ""
    token: int = 0
    shown: str = ""
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


OF_TRANSCRIBERS = (
    Example(
        "Which heads hear “seven”?",
        "three, seven, one",
        model=None,
        token=2,
        shown=SELECTED,
        try_this="The map shows what each head gives to *seven*, whose seconds are selected, while "
        "the chosen token is read. The one before “7” predicts it. Select another word's seconds "
        "and the token before it: the same heads listen.",
    ),
)
"""Of Whisper and others that take no question."""


def show_examples(sound: ChosenSound, *, transcribes: bool) -> None:
    """The row, and one sentence what to press where one of them is open."""
    if not transcribes and DEMO[0] not in demo_models():
        return
    examples = OF_TRANSCRIBERS if transcribes else EXAMPLES
    row = st.container(horizontal=True, vertical_alignment="center")
    for each in examples:
        row.button(each.name, on_click=take, args=(each,), key=f"example {each.name}")
    # What the sentence says is so of the first of the demo's models, or of transcribers.
    told = examples if transcribes or st.session_state.get("model") == DEMO[0] else ()
    shown = next((each for each in told if each.clip == sound.name), None)
    if shown is not None:
        row.markdown(shown.try_this, width=460)


def take(example: Example) -> None:
    """Show the example from its beginning."""
    state = st.session_state
    state["clip"], state["question"] = example.clip, ""
    if example.model is not None:
        state["model"] = example.model
    state["candidates"], state["against"] = "", "another route"
    for name in ("seconds", "route", "token"):
        st.query_params.pop(name, None)
    if example.seconds:
        st.query_params["seconds"] = example.seconds
    if example.token:
        st.query_params["token"] = str(example.token)
    if example.shown:
        state["stream"] = example.shown
    remember_edits([])
    state[STREAMS], state[HEADS] = list(example.streams), []
    state.pop(LAYERS, None)
    if example.layers is not None:
        state[LAYERS] = example.layers
