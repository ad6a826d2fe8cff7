"""Circuits: by which way a second of sound gets to the word, and whether to believe it."""

from __future__ import annotations

import copy
import shlex
import time
from dataclasses import replace
from typing import Any

import streamlit as st
from _address import address_results, remember_results
from _circuit_node_view import cut_nodes, remember_cut, show_attribution, show_cut, show_node
from _circuit_runs import MOST_FEATURES, OTHERS, THIS, CircuitRequest, request_of
from _dictionaries import choose_dictionary, folder_of
from _downloads import WIDE, offer, on_dark, on_ground
from _duration import in_words, pace, told_while_running
from _given import as_sentences, pick, tell_dropped
from _interventions_view import choose_about

from palscope._beside import words_for
from palscope._palette import PALETTE
from palscope._routing import route_to_text
from palscope.plots import Figure
from palscope.plots._joined import Row
from palscope.plots._network import Nodes

ABOUT = (
    "A circuit is a part of the model that answers as all of it does while everything else hears "
    "the corrupt clip. Edges are scored by EAP-IG, which estimates what the answer loses without "
    "each; the largest make the circuit, and it is run on pairs that had no part in choosing it."
)
FIRST = 100
"""Edges of the circuit that is shown at first."""


def view() -> None:
    st.title("Circuits")
    about = choose_about()
    if about is None:
        return
    opened, route, chosen, pass_s = about
    st.markdown(ABOUT)
    pair = chosen.for_model(opened.model.processor)
    with st.spinner("Laying out the graph …"):
        asked = request_of(opened, route, pair, pass_s, own=chosen.own)
    chosen_by = choose_chooser(asked)
    made = None if chosen_by is None else choose_features(chosen_by)
    if made is None:
        return
    asked, dictionary = made
    graph = asked.graph
    st.caption(
        f"The graph: {len(graph.nodes):,} nodes at {len(graph.groups)} groups of positions, "
        f"{graph.n_edges:,} edges. {said_of_pairs(asked)}"
    )
    row = st.container(horizontal=True)
    row.button(
        f"Run: {in_words(asked.seconds)}",
        type="primary",
        key="run circuits",
        on_click=remember_results,
        args=(asked.written,),
        help="Scores take some 30 passes a pair, each circuit's run one.",
    )
    row.button("Stop", on_click=remember_results, args=("",), help="What is measured stays.")
    if address_results() == asked.written:
        measure(asked)
        show_circuit(asked, dictionary)
    elif address_results():
        st.caption("The address names results of other options; *Run* makes those of these.")


def choose_chooser(asked: CircuitRequest) -> CircuitRequest | None:
    """Who chooses the circuit, where there is a choice."""
    if not asked.others:
        return asked
    chooser = pick(
        st.segmented_control,
        "Chosen by",
        (OTHERS, THIS),
        key="chooser",
        what="chooser",
        default=OTHERS,
        required=True,
        help="By the other pairs' mean scores, and run on this pair; or by this pair's alone, and "
        "run on the others.",
    )
    return None if chooser is None else replace(asked, chooser=chooser)


def choose_features(asked: CircuitRequest) -> tuple[CircuitRequest, str] | None:
    """Whether latents of a dictionary are nodes, and of which; "" of none."""
    label, key = "Features of a dictionary as nodes", "feature nodes"
    asked_for = None if key in st.session_state else st.query_params.get(key)
    on = st.toggle(
        label,
        key=key,
        bind="query-params",
        help=f"At each stretch the {MOST_FEATURES} that the pairs' clips fire most otherwise; what "
        "they do not hold is a node, too.",
    )
    tell_dropped(key, label, asked_for, on)
    if not on:
        return asked, ""
    name = choose_dictionary(asked.mine)
    if name is None:
        return None
    with st.spinner("Finding the features that fire …"):
        return asked.with_features(name), name


def said_of_pairs(asked: CircuitRequest) -> str:
    """Who chooses, and who is held out."""
    if not asked.others:
        why = "two sounds of your own" if asked.own else f"{asked.mine.pair.name}"
        return (
            f"No other pair has the graph of {why}, so nothing can be held out: the circuit is run "
            "on the pair that chooses it."
        )
    names = ", ".join(each.pair.name for each in asked.others)
    if asked.chooser == OTHERS:
        return f"Chosen by the mean scores of {names}, and run on this pair, which has no say."
    return f"Chosen by this pair's scores alone, and run on {names}, which have no say."


def measure(asked: CircuitRequest) -> None:
    """Scores and runs, with a bar, where they are not remembered."""
    if asked.measured:
        return
    expected, began = asked.seconds, time.monotonic()
    with told_while_running(expected):
        asked.faithful()
    told = pace("circuits", asked.mine.opened.version)
    told.factor *= (time.monotonic() - began) / max(expected, 1e-3)


@st.fragment
def show_circuit(asked: CircuitRequest, dictionary: str) -> None:
    """The circuit of a size, and its nodes. A click or another size runs and draws this alone."""
    with as_sentences():
        cut = cut_nodes(asked.graph)
        size = choose_size(asked)
        if size is None:
            return
        with st.spinner("Running the circuits without it …"):
            figure, shown = asked.shown(size, cut)
        nodes = {str(node["name"]): node for node in shown.nodes if node["kind"] != "answer"}
        draw(figure, nodes)
        if cut:
            show_cut(asked, size, cut)
        node = choose_node(nodes)
        if node is not None:
            st.button(
                "Cut from the circuit",
                on_click=remember_cut,
                args=([*cut, *node["members"]],),
                key="cut node",
                help="Takes all edges from and into it out of the circuit, and tells what is left.",
            )
            show_node(asked, node["members"], dictionary)
        with st.expander("Table of edges"):
            parts = asked.parts(size, cut)
            edges = parts.edges["edge"].to_numpy()
            table = asked.graph.named(edges).assign(score=parts.edges["score"])
            st.dataframe(table.sort_values("score", key=abs, ascending=False), hide_index=True)
        show_attribution(asked)
        show_command(asked, dictionary)


def choose_size(asked: CircuitRequest) -> int | None:
    """How many edges, of those whose circuits were run."""
    sizes = [str(each) for each in asked.sizes]
    near = min(asked.sizes, key=lambda each: abs(each - FIRST))
    chosen = pick(
        st.select_slider,
        "Edges of the circuit",
        sizes,
        key="edges",
        what="size of a circuit",
        value=str(near),
    )
    return None if chosen is None else int(chosen)


def choose_node(nodes: dict[str, Row]) -> Row | None:
    """What a click on the figure does, for the keyboard too."""
    name = pick(
        st.selectbox,
        "Node",
        list(nodes),
        key="node",
        what="node of this circuit",
        index=None,
        placeholder="click on a node of the figure, or choose one",
        help="Of sound its seconds play, and of a feature in the encoder; of a head its attention "
        "is shown.",
    )
    return None if name is None else nodes[name]


def draw(figure: Figure, nodes: dict[str, Row]) -> None:
    """The figure, on which a click chooses a node; the chosen one is in a ring."""

    def clicked() -> None:
        points = st.session_state["circuit"]["selection"]["points"]
        named = [point["customdata"] for point in points if point.get("customdata")]
        if named and named[0][0] in nodes:
            st.session_state["node"] = named[0][0]

    drawn: Any = copy.deepcopy(on_ground(figure))
    ink = PALETTE["ink"][on_dark()]
    for trace in drawn.data:  # a click dims nothing
        if trace.type == "scatter" and "markers" in (trace.mode or ""):
            trace.update(selected={"marker": {"opacity": 1}}, unselected={"marker": {"opacity": 1}})
            trace.update(unselected={"textfont": {"color": ink}})
    place = _place(figure, st.session_state.get("node"))
    if place is not None:
        ring = {"symbol": "circle-open", "size": 22, "color": PALETTE["orange"][on_dark()]}
        drawn.add_scatter(
            x=[place[0]], y=[place[1]], mode="markers", marker=ring | {"line": {"width": 3}},
            hoverinfo="skip", showlegend=False, row=1, col=1,
        )  # fmt: skip
    with st.container(key=f"{WIDE} circuit"):
        alt = f"Circuit from seconds of sound to the answer: {figure.note}"
        st.plotly_chart(
            drawn, key="circuit", on_select=clicked, selection_mode="points", theme=None, alt=alt
        )
    offer("circuit", lambda: figure)


def _place(figure: Figure, name: Any) -> tuple[float, float] | None:
    for mark in figure.panels[0].marks:
        if isinstance(mark, Nodes) and name in mark.ids:
            at = mark.ids.index(name)
            return float(mark.x[at]), float(mark.y[at])
    return None


def show_command(asked: CircuitRequest, dictionary: str) -> None:
    """The command that does as much over many pairs."""
    words = [*words_for("circuits"), "--model", asked.mine.opened.name]
    if asked.mine.route != asked.mine.opened.route:
        words += ["--route", route_to_text(asked.mine.route)]
    words += ["--pairs", "PAIRS.csv"] if asked.own else ["--kind", asked.mine.pair.kind]
    if dictionary:
        words += ["--dictionary", str(folder_of(dictionary)), "--features", str(MOST_FEATURES)]
    st.caption("Over many pairs, in two halves, beside other methods, from a script:")
    st.code(shlex.join([*words, "--out", "runs/circuits"]), language="bash", wrap_lines=True)
