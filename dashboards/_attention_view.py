"""The main page: one question about one sound, and another route, model or sound beside it."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

import pandas as pd
import streamlit as st
from _address import (
    Seconds,
    address_selection,
    address_token,
    remember_selection,
    remember_token,
    token_moved,
)
from _answer_view import show_answers, show_lenses, show_steps
from _answers import (
    Ask,
    queries,
    token_grid,
)
from _edit_view import show_edits
from _edited import rival_of
from _effects_view import effects_for_player, show_effects
from _examples import show_examples
from _feature_effects_view import show_features
from _given import as_sentences, pick
from _mass_view import SELECTED, show_layers, show_maps, show_shares, show_words
from _models import OpenModel, cached_model
from _player import Effects, player, show_curves
from _route_view import choose_route
from _setup import Setup, choose_setup
from _sides import Side, head_name, of_head, plain, side_of

from palscope._beside import words_for
from palscope._routing import Route, route_to_text
from palscope.measures import over_time
from palscope.measures._columns import NO_SOUND
from palscope.plots._axes import SHARE_PER_TOKEN

ALL = "mean of all"


def view() -> None:
    st.title("Which second counts?")
    setup = choose_setup()
    if setup is None:
        return
    show_examples(setup.sound, transcribes=not setup.question)
    left, right = st.columns([3, 2], gap="large")
    with left:
        answers, edits, player = st.container(), st.container(), st.container()
    features, steps, lens, table = (st.container() for _ in range(4))
    opened = cached_model(setup.model)
    with table:
        route = choose_route(opened)
    asks = the_sides(setup, opened, route)
    with answers:
        given = show_answers(asks)
    first = next(iter(asks.values()))
    selection = address_selection(setup.sound.waveform.seconds, setup.sound.focus)
    rival = rival_of(first, setup.choices)
    with right:
        top = show_effects(first, selection, rival)
    with steps:
        show_steps(asks, given, setup)
    with lens:
        show_lenses(asks)
    offset = choose_query(asks)
    sides = [
        side_of(name, ask, given[name], min(offset, len(given[name].tokens)))
        for name, ask in asks.items()
    ]
    shares, layers = st.container(), st.container()
    show_heads(sides, top, selection)
    with player:
        show_sounds(sides, selection, effects_for_player(first, rival))
    with edits:
        show_edits(asks, selection, rival)
    with features:
        show_features(first, selection, rival)
    with shares:
        show_shares(sides, selection)
    with layers:
        show_layers(sides)
    show_command(first, offset)


@st.fragment
def show_heads(sides: list[Side], top: tuple[int, int] | None, selection: Seconds | None) -> None:
    """What follows from the chosen head. Another one runs and draws this alone."""
    with as_sentences():
        layer, head = choose_head(sides, top)
        show_attention(sides, layer, head)
        show_maps(sides, layer, head, selection)
        show_words(sides, layer, head)


def the_sides(setup: Setup, opened: OpenModel, route: Route) -> dict[str, Ask]:
    """What is asked, by the name of its side: one, or two that differ in one thing."""
    ask = Ask(opened, setup.sound, setup.question, opened.route)
    if setup.other_model is not None:
        other = cached_model(setup.other_model)
        return {
            opened.name: replace(ask, route=route),
            other.name: Ask(other, setup.sound, setup.question, other.route),
        }
    if setup.other_sound is not None:
        changed = replace(ask, route=route)
        return {
            setup.sound.name: changed,
            setup.other_sound.name: replace(changed, sound=setup.other_sound),
        }
    if route != opened.route:
        return {"as trained": ask, "changed route": replace(ask, route=route)}
    return {opened.name: ask}


def choose_query(asks: dict[str, Ask]) -> int:
    """The token whose attention is shown, counted from the prompt's last."""
    first = next(iter(asks.values()))
    tokens = queries(first)
    offsets = [*tokens]
    st.header("Where its attention goes")
    asked = st.session_state.get("token")
    if asked not in offsets or token_moved():
        asked = st.session_state["token"] = address_token(offsets)
    # Not bound to the address by Streamlit, which would write the token's text there.
    chosen: Any = st.pills(
        "Attention of the token",
        offsets,
        format_func=lambda offset: token_name(offset, tokens),
        key="token",
        required=True,
        help="A token attends to predict the next one. The prompt's last token predicts the "
        "answer's first.",
    )
    if chosen is None:
        st.stop()
    remember_token(chosen)
    return chosen


def token_name(offset: int, tokens: dict[int, str]) -> str:
    """A token of the prompt as it is, one of the answer in bold."""
    text = plain(tokens[offset])
    return f"**{text}**" if offset > 0 else text


def choose_head(sides: list[Side], top: tuple[int, int] | None) -> tuple[int | None, int | None]:
    """Layer and head to look at, None for the mean over all; a click on a map sets them.

    At first it is `top`, or the head that gives one stream most where none has an effect.
    """
    each: Any = sides[0].pathways
    if top is None:
        sound = each[~each["pathway"].isin(NO_SOUND)]
        most = sound.loc[sound["mass"].idxmax()]
        top = int(most["layer"]), int(most["head"])
    layers = [ALL, *(str(i) for i in sorted(each["layer"].unique()))]
    heads = [ALL, *(str(i) for i in sorted(each["head"].unique()))]
    st.header("Which head listens when")
    one, two, three = st.columns(3)
    boxes: list[Any] = [
        pick(
            box.selectbox,
            label,
            options,
            key=key,
            what=key,
            index=options.index(str(value)),
            help="Set at first to the head without which the answer changes most. A click on a "
            "map chooses a head.",
        )
        for box, label, options, key, value in (
            (one, "Layer", layers, "layer", top[0]),
            (two, "Head", heads, "head", top[1]),
        )
    ]
    streams = [s.name for s in sides[0].ask.opened.model.model.streams]
    of_top = each[(each["layer"] == top[0]) & (each["head"] == top[1])].set_index("pathway")["mass"]
    shown = pick(
        three.selectbox,
        "Map shows attention to",
        [*streams, "text", SELECTED],
        key="stream",
        what="stream",
        index=streams.index(str(of_top.reindex(streams).fillna(-1).idxmax())),
        help="A stream of the sound, the text, or the seconds selected in the player.",
    )
    if None in (*boxes, shown):
        st.stop()  # nothing stands in place of what is not here
    layer, head = (None if value == ALL else int(value) for value in boxes)
    return layer, head


def show_attention(sides: list[Side], layer: int | None, head: int | None) -> None:
    """The chosen head's attention over time, drawn in the players above."""
    curves = [over_time(of_head(side.mass, layer, head)) for side in sides]
    title = f"{SHARE_PER_TOKEN.label} ({head_name(layer, head)})"
    if two_sounds(sides):
        for number, (side, curve) in enumerate(zip(sides, curves, strict=True)):
            show_curves(side.ask.sound.digest, curve, title, key=f"player {number}")
        return
    marks = ["", f", {sides[-1].name}"]
    named = [
        curve.assign(pathway=curve["pathway"].astype(str) + mark)
        for curve, mark in zip(curves, marks, strict=False)
    ]
    together = pd.concat(named, ignore_index=True)
    show_curves(sides[0].ask.sound.digest, together, title, key="player 0")


def two_sounds(sides: list[Side]) -> bool:
    """Whether the sides differ in their sound."""
    return len({side.ask.sound.digest for side in sides}) > 1


def show_sounds(sides: list[Side], selection: Seconds | None, effects: Effects | None) -> None:
    """The player, and the stretch selected in it.

    `effects` are those of the first side.
    """
    st.caption(
        "The sound, and the attention to it of the head chosen below. Drag to select seconds, "
        "click to move, space to play."
    )
    if two_sounds(sides):  # the stretch selected in one is shown in the other too
        for number, (column, side) in enumerate(zip(st.columns(2), sides, strict=True)):
            with column:
                st.markdown(f"**{plain(side.name)}**")
                mine = None if number else effects
                one_player(side, f"player {number}", selection, mine)
        return
    if effects is not None and len(sides) > 1:
        effects = replace(effects, title=f"{effects.title}, {sides[0].name}")
    one_player(sides[0], "player 0", selection, effects)


def one_player(side: Side, key: str, before: Seconds | None, effects: Effects | None) -> None:
    """One player; what is selected in it counts on the whole page."""
    ask = side.ask
    chosen = player(
        ask.sound.waveform,
        ask.sound.digest,
        key=key,
        tokens=token_grid(ask),
        effects=effects,
        labels=ask.sound.spans,
        selection=before,
        first=ask.sound.focus,
    )
    for each in ask.sound.told:
        st.warning(plain(each))
    if ask.sound.note:
        st.caption(ask.sound.note)
    if chosen != before:
        remember_selection(chosen, ask.sound.focus)
        st.rerun()  # what stands above has been drawn with the seconds before


def show_command(ask: Ask, offset: int) -> None:
    """The command line that gives the first side's numbers."""
    with st.expander("The same from a script"):
        audio = ask.sound.path or "CLIP.wav"
        words = [*words_for("attention_mass"), "--model", ask.opened.name]
        words += ["--audio", audio, *(["--question", ask.question] if ask.question else [])]
        if ask.route != ask.opened.route:
            words += ["--route", route_to_text(ask.route)]
        if offset:
            words += ["--token", str(offset)]
        st.code(shlex.join([*words, "--out", "runs/mass"]), language="bash", wrap_lines=True)
        if not ask.sound.path:
            st.caption("CLIP.wav stands for this sound; *Save sound* under the picture stores it.")
