"""The attention page: ask a model about a clip, and see where its answer listened.

streamlit run dashboards/attention.py
"""

from __future__ import annotations

import hashlib
import logging
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
    name = choose_model()
    waveform, clip = choose_clip()
    question = choose_question()
    if name is None or waveform is None:
        return
    version = version_of(name)
    opened = open_model(name, version)
    route = switch_pathways(opened, name)

    heard = {ORIGINAL: listen(opened, version, clip, waveform, question, route_text(opened.route))}
    if route != opened.route:
        heard[SWITCHED] = listen(opened, version, clip, waveform, question, route_text(route))

    with st.expander(f"How {name} hears this clip", expanded=False):
        st.markdown(state(opened, route))
    show_answer(opened, waveform, question, heard)
    show_layers(heard)
    show_head(opened, waveform, heard)


# -- the sidebar --------------------------------------------------------------------------------


def choose_model() -> str | None:
    """The name or folder of a checkpoint; None while none is given."""
    chosen = st.sidebar.selectbox(
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
    chosen = st.sidebar.selectbox("Clip", [*clips, OTHER], index=4, key="clip")
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


def state(opened: OpenModel, route: Route) -> str:
    """What the model is and what is switched, in words."""
    seconds = opened.model.model.frame_seconds
    lines = [f"- {line}" for line in route_words(opened.route, seconds)]
    if route != opened.route:
        lines += ["", "Switched:", *(f"- {line}" for line in route_words(route, seconds))]
    return "\n".join(lines)


def show_answer(
    opened: OpenModel, waveform: Waveform, question: str, heard: dict[str, Heard]
) -> None:
    """The sound beside the answer, its top tokens, and the mass of each pathway."""
    sound, answer = st.columns([3, 2], gap="large")
    with sound:
        st.audio(waveform.samples, sample_rate=waveform.sample_rate)
        st.plotly_chart(spectrogram(waveform), key="spectrogram")
    with answer:
        for column, (name, one) in zip(st.columns(len(heard)), heard.items(), strict=True):
            column.metric(
                "Answer" if len(heard) == 1 else f"Answer, {name}",
                one.answer or "(nothing)",
                help=f"The greedy answer to “{question}”.",
            )
        st.plotly_chart(token_bars(top_tokens(opened, heard)), key="tokens")
    st.subheader("How much of the answer's attention goes where")
    shares = {name: pathway_shares(one) for name, one in heard.items()}
    for column, pathway in zip(
        st.columns(len(shares[ORIGINAL])), shares[ORIGINAL].index, strict=True
    ):
        original = shares[ORIGINAL][pathway]
        now = shares[list(shares)[-1]][pathway]
        column.metric(
            str(pathway),
            f"{100 * now:.1f} %",
            None if len(heard) == 1 else f"{100 * (now - original):+.1f} points",
            delta_color="off",
            help="Share of the attention of the prompt's last token, which predicts the first "
            "token of the answer: mean over all layers and heads, 0 where a layer cannot see it.",
        )


def pathway_shares(one: Heard) -> pd.Series:
    """Mass of each pathway, averaged over layers and heads."""
    return by_pathway(one.mass).groupby("pathway", observed=False)["mass"].mean()


def show_layers(heard: dict[str, Heard]) -> None:
    """Mass by layer and pathway, one figure a route."""
    for column, (name, one) in zip(st.columns(len(heard)), heard.items(), strict=True):
        with column:
            if len(heard) > 1:
                st.markdown(f"**{name}**")
            st.plotly_chart(plots.mass_by_layer(one.mass), key=f"layers {name}")


def show_head(opened: OpenModel, waveform: Waveform, heard: dict[str, Heard]) -> None:
    """The layer × head map, and a chosen head's attention over time above the spectrogram."""
    st.subheader("Which head listens when")
    streams = [stream.name for stream in opened.route.streams]
    stream_box, layer_box, head_box = st.columns(3)
    pathway = stream_box.selectbox("Stream of the map", streams, key=f"map {opened.version}")
    each = by_pathway(heard[ORIGINAL].mass)
    of_stream = each[each["pathway"] == pathway]
    top = of_stream.loc[of_stream["mass"].idxmax()]
    layers, heads = sorted(each["layer"].unique()), sorted(each["head"].unique())
    about = f"{opened.version} {pathway}"
    layer = layer_box.selectbox(
        "Layer",
        layers,
        index=layers.index(top["layer"]),
        key=f"layer {about}",
        help="At first: where one head gives this stream most of its attention.",
    )
    head = head_box.selectbox("Head", heads, index=heads.index(top["head"]), key=f"head {about}")
    for column, (name, one) in zip(st.columns(len(heard)), heard.items(), strict=True):
        mass = one.mass
        with column:
            if len(heard) > 1:
                st.markdown(f"**{name}**")
            st.plotly_chart(plots.layer_head_map(mass, pathway), key=f"map {name}")
            chosen = mass[(mass["layer"] == layer) & (mass["head"] == head)]
            st.markdown(f"Layer {layer}, head {head}")
            st.plotly_chart(plots.time_over_spectrogram(chosen, waveform), key=f"time {name}")


main()
