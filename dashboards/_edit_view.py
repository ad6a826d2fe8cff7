"""The selection as an intervention: cut it, keep it alone, put other sound there, and see."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st
from _address import address_edits, remember_edits
from _answers import Ask, generated_answer
from _edited import (
    code_of,
    controls,
    edited,
)
from _edits import NOISE, SILENCE, AnyEdit, Edit, Kind, numbers
from _sounds import bundled_names
from streamlit.delta_generator import DeltaGenerator

from palscope._beside import words_for
from palscope._routing import route_to_text
from palscope.errors import PalscopeError

Selection = tuple[float, float] | None

STREAMS, LAYERS, HEADS = "cut streams", "cut layers", "cut heads"
"""Widgets that say where in the model a selection is meant."""


@st.fragment
def show_edits(asks: dict[str, Ask], selection: Selection, rival: str) -> None:
    """Buttons that act on the selection, what was done so far, and the answers under it."""
    ask = next(iter(asks.values()))
    show_buttons(ask, selection)
    try:
        edits = address_edits()
    except PalscopeError as error:
        st.error(str(error))
        return
    if not edits:
        return
    table = None
    try:
        for name, each in asks.items():
            show_new_answer(name if len(asks) > 1 else "", each, edits)
        if _cut(edits[-1]) is not None:
            table = told_controls(ask, edits, rival)
    except PalscopeError as error:
        st.error(str(error))
    with show_done(edits):
        if table is not None:
            show_controls(table)
        show_code(ask, edits, rival)


def choose_where(ask: Ask) -> None:
    """Widgets of the streams, layers and heads that are meant."""
    last = ask.route.n_layers - 1
    every = "All where none is chosen."
    st.pills("Streams", seen_streams(ask), selection_mode="multi", key=STREAMS, help=every)
    st.select_slider("Layers", range(last + 1), value=(0, last), key=LAYERS)
    st.multiselect(
        "Heads",
        range(ask.opened.model.cfg.n_heads),
        key=HEADS,
        placeholder="all",
        help=f"{every} A click on the map chooses a head and its layer.",
    )


def seen_streams(ask: Ask) -> list[str]:
    """Those that text sees somewhere."""
    return [stream.name for stream in ask.route.streams if ask.route.layers(stream.name)]


def forget_invalid(ask: Ask) -> None:
    """Forget what was chosen for another model or route, where this one does not have it."""
    heads, streams = ask.opened.model.cfg.n_heads, seen_streams(ask)
    keep_valid(STREAMS, lambda held: set(held) <= set(streams))
    keep_valid(LAYERS, lambda held: held[1] < ask.route.n_layers)
    keep_valid(HEADS, lambda held: all(head < heads for head in held))


def meant(ask: Ask) -> dict[str, Any]:
    """What the widgets of `choose_where` hold now: streams, layers and heads, none for all."""
    held = st.session_state
    streams, layers, heads = held.get(STREAMS), held.get(LAYERS), held.get(HEADS)
    some = layers is not None and tuple(layers) != (0, ask.route.n_layers - 1)
    return {
        "streams": tuple(streams or ()),
        "layers": tuple(range(layers[0], layers[1] + 1)) if some and layers else (),
        "heads": tuple(sorted(heads or ())),
    }


def where_in_words(ask: Ask) -> str:
    where = meant(ask)
    parts = [
        ", ".join(where["streams"]) or "all streams",
        f"layers {numbers(where['layers'])}" if where["layers"] else "all layers",
        f"heads {numbers(where['heads'])}" if where["heads"] else "all heads",
    ]
    return ", ".join(parts)


def keep_valid(key: str, holds: Any) -> None:
    """Forget what a widget holds where another model does not have it."""
    if key in st.session_state and not holds(st.session_state[key]):
        del st.session_state[key]


def show_buttons(ask: Ask, selection: Selection) -> None:
    """Cut, Keep only, Patch from, and where in the model."""
    none = selection is None
    start, end = selection or (0.0, 1.0)

    def add(kind: Kind) -> None:
        # What is chosen when the button is pressed, which may be later than when it was drawn.
        where = meant(ask)
        if kind in ("cut", "keep"):
            made = Edit(kind, start, end, **where)
        else:
            source: Any = st.session_state["patch source"]
            streams = where["streams"] if kind == "tokens" else ()
            made = Edit(kind, start, end, streams, source=source)
        remember_edits([*address_edits(), made])

    def patch() -> None:
        add("patch" if st.session_state["patch how"] == "sound" else "tokens")

    row = st.container(horizontal=True)
    row.button(
        "Cut",
        type="primary",
        disabled=none,
        on_click=add,
        args=("cut",),
        key="cut",
        help="Text no longer reads the selected seconds; the attention that is left sums to 1.",
    )
    row.button(
        "Keep only",
        disabled=none,
        on_click=add,
        args=("keep",),
        key="keep",
        help="Text reads nothing of the sound but the selection.",
    )
    with row.popover("Patch from …", disabled=none):
        clips = [name for names in bundled_names().values() for name in names]
        st.selectbox("Put into these seconds", [SILENCE, NOISE, *clips], key="patch source")
        st.radio(
            "as",
            ["sound", "tokens"],
            key="patch how",
            captions=[
                "samples are exchanged, and the whole clip is encoded anew",
                "tokens alone, of the other clip encoded apart: the rest of the sound stays as it "
                "was encoded",
            ],
        )
        st.button("Patch", on_click=patch, key="patch")
    forget_invalid(ask)
    with row.popover(f"in {where_in_words(ask)}"):
        choose_where(ask)


def show_done(edits: Sequence[AnyEdit]) -> DeltaGenerator:
    """What is in force, each to be taken back; gives the last row, which has room."""

    def take_back(number: int) -> None:
        remember_edits([each for i, each in enumerate(edits) if i != number])

    row = st.container()
    for number, each in enumerate(edits):
        row = st.container(horizontal=True, vertical_alignment="center")
        row.markdown(f":material/content_cut: {each}", width="content")
        row.button(
            "Take back",
            on_click=take_back,
            args=(number,),
            key=f"take back {number}",
            type="tertiary",
        )
    if len(edits) > 1:
        row.button("Take all back", on_click=remember_edits, args=([],), key="take all back")
    return row


def show_new_answer(name: str, ask: Ask, edits: Sequence[AnyEdit]) -> None:
    """The new answer beside the old one, and what became of the old one."""
    old = generated_answer(ask).text
    with st.spinner("Asking again …"):
        new = edited(ask, tuple(edits))
    verdict = "still" if new.text == old else "now"
    st.markdown(f"## {f'{name}: ' if name else ''}{shown(old)} → {shown(new.text)}")
    st.caption(
        f"The answer is {verdict} “{new.text}” (first token {100 * new.probability:.1f} %). "
        f"Log-probability of “{old}”: {new.before:.2f} → {new.after:.2f}, "
        f"**{new.change:+.2f} nats**."
    )


def shown(text: str) -> str:
    return f"**{text or '(nothing)'}**"


def told_controls(ask: Ask, edits: Sequence[AnyEdit], rival: str) -> pd.DataFrame:
    """The last cut beside the same cut of all other stretches of its length, in a sentence."""
    number, cut = len(edits) - 1, _cut(edits[-1])
    assert cut is not None
    with st.spinner("Cutting other stretches of that length …"):
        table: Any = controls(ask, tuple(edits), number, rival)
    changes: list[float] = table["change"].tolist()
    mine, others = changes[0], changes[1:]
    length = f"{cut.end - cut.start:.2f} s"
    text = f"The cut moves the {lead_in_words(ask, rival)} by **{mine:+.2f} nats**"
    if not others:
        st.caption(f"{text}; no other stretch of {length} shares no token with it.")
    elif len(others) == 1:
        st.caption(
            f"{text}; the one other stretch of {length} that shares no token with it, by "
            f"{others[0]:+.2f}."
        )
    else:
        st.caption(
            f"{text}; the {len(others)} other stretches of {length} that share no token with it, "
            f"by {min(others):+.2f} to {max(others):+.2f}."
        )
    return table


def lead_in_words(ask: Ask, rival: str) -> str:
    answer = generated_answer(ask).text
    return f"lead of “{answer}” over “{rival}”" if rival else f"log-probability of “{answer}”"


def show_controls(table: Any) -> None:
    """The cut, and the others."""
    with st.popover("Controls", icon=":material/rule:"):
        st.dataframe(
            pd.DataFrame(
                {
                    "seconds": [f"{r.start_s:.2f}–{r.end_s:.2f}" for r in table.itertuples()],
                    "what sounds": table["sounds"],
                    "change (nats)": table["change"].round(3),
                    "lead then (nats)": table["lead"].round(3),
                }
            ),
            hide_index=True,
            key="controls",
        )


def show_code(ask: Ask, edits: Sequence[AnyEdit], rival: str) -> None:
    """The same in Python, and of one cut from a script."""
    with st.popover("In Python", icon=":material/code:"):
        try:
            st.code(code_of(ask, tuple(edits)), language="python", wrap_lines=True)
        except PalscopeError as error:
            st.caption(str(error))
        if len(edits) == 1 and (cut := _cut(edits[0])) is not None:
            st.caption("The cut and its controls from a script:")
            st.code(command_of(ask, cut, rival), language="bash", wrap_lines=True)
        if not ask.sound.path:
            st.caption("CLIP.wav stands for this sound; *Save sound* under the picture stores it.")


def _cut(edit: AnyEdit) -> Edit | None:
    return edit if isinstance(edit, Edit) and edit.kind == "cut" else None


def command_of(ask: Ask, cut: Edit, rival: str) -> str:
    """The command line that gives the numbers of a cut and its controls."""
    words = [*words_for("attention_knockout"), "--model", ask.opened.name]
    words += ["--audio", ask.sound.path or "CLIP.wav"]
    words += ["--question", ask.question] if ask.question else []
    if ask.route != ask.opened.route:
        words += ["--route", route_to_text(ask.route)]
    words += ["--answer", generated_answer(ask).text]
    words += ["--other", rival] if rival else []
    words += ["--queries", "text", "--seconds", f"{cut.start:g}", f"{cut.end:g}"]
    for name in ("streams", "layers", "heads"):
        given: tuple[Any, ...] = getattr(cut, name)
        words += [f"--{name}", *map(str, given)] if given else []
    return shlex.join([*words, "--out", "runs/cut"])
