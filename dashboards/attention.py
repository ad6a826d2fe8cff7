"""The attention page: ask a model about a clip, and see where its answer listened.

streamlit run dashboards/attention.py
"""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st
from _figures import spectrogram, token_bars
from _parts import (
    MAX_MEGABYTES,
    MAX_SECONDS,
    QUESTIONS,
    Heard,
    OpenModel,
    bundled,
    demo_models,
    listen,
    open_model,
    playable,
    read_clip,
    route_text,
    route_words,
    spans,
    switched,
    top_tokens,
    version_of,
)

from palscope.audio import Waveform
from palscope.errors import PalscopeError
from palscope.measures import by_pathway
from palscope.plots import attention as plots
from palscope.routing import Level, Route

OTHER = "another …"
ORIGINAL, SWITCHED = "original", "switched"


def main() -> None:
    st.set_page_config(page_title="palscope · attention", page_icon="👂", layout="wide")
    st.title("Where does the answer listen?")
    try:
        page()
    except PalscopeError as error:
        st.error(str(error))
    except Exception as error:
        logging.getLogger("palscope").exception("the attention page failed")
        st.error(
            f"This should not have happened: {type(error).__name__}, {error}. The terminal that "
            "runs this page has the details; reloading the page starts afresh."
        )


def page() -> None:
    intro = st.container()
    name = choose_model()
    waveform, clip = choose_clip()
    question = choose_question()
    if name is None or waveform is None:
        return
    sound, answer = st.columns([3, 2], gap="large")
    with sound:  # shown while the model loads
        st.audio(playable(waveform), format="audio/wav")
        st.plotly_chart(spectrogram(waveform), key="spectrogram")
    with answer:
        version = version_of(name)
        opened = open_model(name, version)
        route = switch_pathways(opened, name)
        heard = {
            kind: listen(opened, version, clip, waveform, question, route_text(one))
            for kind, one in {ORIGINAL: opened.route, SWITCHED: route}.items()
            if kind == ORIGINAL or route != opened.route
        }
        show_answer(opened, question, heard)
    with intro:
        st.markdown(state(opened, name, route))
    show_shares(heard)
    show_layers(heard)
    show_heads(opened, waveform, heard)


# -- the sidebar --------------------------------------------------------------------------------


def choose_model() -> str | None:
    """The name or folder of a checkpoint; None while none is given."""
    chosen: Any = st.sidebar.selectbox(
        "Model",
        [*demo_models(), OTHER],
        key="model",
        help="The demo trio hears the same sound in three ways: PLITS puts audio tokens into the "
        "text, LAL only lets text read them, PAL does both.",
    )
    if chosen != OTHER:
        return chosen
    typed = st.sidebar.text_input(
        "Folder or hub id of a palscope checkpoint", key="folder", placeholder="runs/demo/pal"
    ).strip()
    if not typed:
        st.info("Give the folder of a checkpoint in the sidebar, under *Model*.")
        return None
    return typed


def choose_clip() -> tuple[Waveform | None, str]:
    """The sound to ask about, and a text that stands for it; (None, "") while none is given."""
    clips = bundled()
    chosen: Any = st.sidebar.selectbox("Clip", [*clips, OTHER], index=4, key="clip")
    if chosen != OTHER:
        row = clips[chosen]
        st.sidebar.caption(
            f"[{row['title']}]({row['source']}) by {row['author']}, {row['licence']} (ESC-10)"
        )
        data, name = Path(row["path"]).read_bytes(), chosen
    else:
        file = st.sidebar.file_uploader(
            "A sound file",
            type=["wav", "flac", "ogg", "mp3"],
            key="upload",
            help=f"Up to {MAX_SECONDS:g} s and {MAX_MEGABYTES} MB. It stays on this machine.",
        )
        if file is None:
            st.info("Choose a sound file in the sidebar, under *Clip*.")
            return None, ""
        data, name = file.getvalue(), file.name
    return read_clip(data, name), hashlib.sha256(data).hexdigest()


def choose_question() -> str:
    """The question: typed, or one of the examples."""

    def take_example() -> None:
        if st.session_state["example"]:
            st.session_state["question"] = st.session_state["example"]

    st.session_state.setdefault("question", QUESTIONS[0])
    question = st.sidebar.text_input("Question", key="question", max_chars=300)
    st.sidebar.selectbox(
        "Example questions",
        QUESTIONS,
        index=None,
        key="example",
        placeholder="or take an example …",
        on_change=take_example,
        label_visibility="collapsed",
    )
    return question


def switch_pathways(opened: OpenModel, name: str) -> Route:
    """The checkpoint's route with the streams and layers that the visitor leaves on."""
    st.sidebar.subheader("Switch pathways off")
    kept: dict[str, Any] = {}
    for stream in opened.route.streams:
        used = opened.route.layers(stream.name)
        key = f"{name} {opened.version} {stream.name}"
        on = st.sidebar.toggle(
            f"{stream.name} ({spans(used)})",
            value=True,
            key=f"on {key}",
            help="Off: no layer sees this stream. The text keeps its positions.",
        )
        layers: Any = used
        if on and opened.route.layers(stream.name, Level.KEYS):
            layers = st.sidebar.pills(
                f"Layers that read {stream.name}",
                used,
                selection_mode="multi",
                default=used,
                key=f"layers {key}",
                help="Click a layer to switch its LAL off or on again.",
            )
        kept[stream.name] = layers if on else ()
    return switched(opened.route, kept)


# -- the page -----------------------------------------------------------------------------------


def state(opened: OpenModel, name: str, route: Route) -> str:
    """What the model is, and what is switched, in words."""
    seconds = opened.model.model.frame_seconds
    lines = [
        f"How **{name}** takes in the sound, layer by layer:",
        *(f"- {line}" for line in route_words(opened.route, seconds)),
    ]
    if route != opened.route:
        lines += ["", "Switched:", *(f"- {line}" for line in route_words(route, seconds))]
    return "\n".join(lines)


def show_answer(opened: OpenModel, question: str, heard: dict[str, Heard]) -> None:
    """The answer under each route, and the probabilities of its first token."""
    for column, (kind, one) in zip(st.columns(len(heard)), heard.items(), strict=True):
        column.caption(
            "Answer" if len(heard) == 1 else f"Answer, {kind}",
            help=f"The model's likeliest words (greedy decoding) after: {plain(question)}",
        )
        column.markdown(f"#### {plain(one.answer) or '(nothing)'}")
    tokens = top_tokens(opened, heard, count=6 if len(heard) == 1 else 4)
    st.plotly_chart(token_bars(tokens), key="tokens")


def show_shares(heard: dict[str, Heard]) -> None:
    """The mass of each pathway, with its change."""
    st.subheader("Where the answer's attention goes")
    st.caption(
        "Attention of the prompt's last token, from which the model takes the first token of its "
        "answer; mean over heads. Text is everything that is no sound: question and chat marks."
    )
    shares = {kind: pathway_shares(one) for kind, one in heard.items()}
    original, now = shares[ORIGINAL], list(shares.values())[-1]
    for column, pathway in zip(st.columns(len(original)), original.index, strict=True):
        column.metric(
            str(pathway),
            f"{100 * now[pathway]:.1f} %",
            None if len(heard) == 1 else f"{100 * (now - original)[pathway]:+.1f} points",
            delta_color="off",
            help="Mean over all layers and heads; a layer that cannot see the stream counts as 0.",
        )


def pathway_shares(one: Heard) -> pd.Series:
    """Mass of each pathway, averaged over layers and heads."""
    grouped: Any = by_pathway(one.mass).groupby("pathway", observed=False)
    return grouped["mass"].mean()


def show_layers(heard: dict[str, Heard]) -> None:
    """Mass by layer and pathway, one figure a route, on the same scale."""
    for column, (kind, one) in zip(st.columns(len(heard)), heard.items(), strict=True):
        figure = plots.mass_by_layer(one.mass).update_yaxes(range=[0, 1.02])
        with column:
            if len(heard) > 1:
                st.markdown(f"**{kind}**")
            st.plotly_chart(figure, key=f"layers {kind}")


def show_heads(opened: OpenModel, waveform: Waveform, heard: dict[str, Heard]) -> None:
    """The layer × head map beside a chosen head's attention over time above the spectrogram."""
    st.subheader("Which head listens when")
    streams = [stream.name for stream in opened.route.streams]
    stream_box, layer_box, head_box = st.columns(3)
    pathway: Any = stream_box.selectbox("Stream of the map", streams, key=f"map {opened.version}")
    each: Any = by_pathway(heard[ORIGINAL].mass)
    of_stream = each[each["pathway"] == pathway]
    top = of_stream.loc[of_stream["mass"].idxmax()]
    layers, heads = sorted(each["layer"].unique()), sorted(each["head"].unique())
    about = f"{opened.version} {pathway}"
    layer = layer_box.selectbox(
        "Layer",
        layers,
        index=layers.index(top["layer"]),
        key=f"layer {about}",
        help="Set at first to the head that gave this stream most on the first clip.",
    )
    head = head_box.selectbox("Head", heads, index=heads.index(top["head"]), key=f"head {about}")
    chosen: dict[str, Any] = {
        kind: one.mass[(one.mass["layer"] == layer) & (one.mass["head"] == head)]
        for kind, one in heard.items()
    }
    highest = max(rows.loc[rows["clip"] >= 0, "mass"].max() for rows in chosen.values())
    for kind, one in heard.items():
        if len(heard) > 1:
            st.markdown(f"**{kind}**")
        left, right = st.columns(2)
        with left:
            st.caption(f"Each head's attention to {pathway}")
            figure = plots.layer_head_map(one.mass, pathway).update_traces(zmax=1)
            st.plotly_chart(figure, key=f"map {kind}")
        with right:
            st.caption(f"Layer {layer}, head {head}: attention to each audio token")
            figure = plots.time_over_spectrogram(chosen[kind], waveform)
            if highest > 0:  # not where this layer sees no sound
                figure.update_yaxes(range=[0, 1.05 * highest], row=1, col=1)
            st.plotly_chart(figure, key=f"time {kind}")


def plain(text: str) -> str:
    """Text for Markdown that shows as it is."""
    return re.sub(r"([^\w\s])", r"\\\1", text)


main()
