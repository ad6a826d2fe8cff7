"""One node of a circuit: its seconds are played, its attention shown; it can be cut, and why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st
from _circuit_runs import CircuitRequest, PairRuns, whole
from _dictionaries import units_of
from _edits import Edit, interventions
from _feature_links import offer_sounds
from _given import say, short
from _player import player, show_curves
from _sides import head_name, of_head
from _under_edits import other_sound

from palscope._circuits.attribution.export import graph_file
from palscope._circuits.attribution.graph import attribution_graph
from palscope._circuits.graph import Graph, Node
from palscope._circuits.groups import BELOW
from palscope.audio._compose import LabelledSpan
from palscope.errors import PalscopeError
from palscope.interventions import run_cells
from palscope.measures import attention_mass, over_time
from palscope.measures._metrics import answer_metrics
from palscope.plots._axes import SHARE_PER_TOKEN
from palscope.plots._tokens import token_strip

HEADS = ("head", "cross_head")
FEATURES = 12
"""Buttons, of a node that several features are joined to."""
QUERIES = 8
"""Tokens of a head's positions whose attention is shown, at most."""
CUT_CHARACTERS = 400
PLAYER = "circuit clip"


# -- what a node hears ----------------------------------------------------------------------------


def show_node(asked: CircuitRequest, members: Sequence[int], dictionary: str) -> None:
    """The node's seconds in a player that plays them, and the attention of a head.

    Args:
        dictionary: whose latents are nodes; "" of none.
    """
    graph, pair = asked.graph, asked.mine.pair
    nodes = [graph.nodes[each] for each in members]
    group = graph.groups[nodes[0].group]
    timed = group.start_s == group.start_s
    sound = nodes[0].kind == "sound" or group.stream in BELOW
    heads = [node for node in nodes if node.kind in HEADS]
    player(
        pair.clean,
        f"clean of {pair.digest}",
        key=PLAYER,
        labels=[LabelledSpan(s.name, s.start, s.end) for s in pair.segments],
        frames=[(s.start, s.end) for s in pair.segments if s.differs],
        selection=(group.start_s, group.end_s) if timed else None,
        plays=sound,
    )
    features = [str(node.feature) for node in nodes if node.feature is not None]
    units = units_of(dictionary) if dictionary and features else None
    if units is not None:
        row = st.container(horizontal=True)
        for feature in features[:FEATURES]:
            offer_sounds(row, units, feature)
    if not heads:
        return
    named = {_named(head): head for head in heads}
    chosen = next(iter(named))
    if len(named) > 1:
        chosen = st.selectbox("Attention of", list(named), key="of head") or chosen
    show_attention(asked.mine, named[chosen])


def _named(node: Node) -> str:
    crossed = "cross-attention " if node.kind == "cross_head" else ""
    return f"L{node.layer} {crossed}head {node.head}"


def show_attention(mine: PairRuns, node: Node) -> None:
    """A head's attention over time, in the player, and over the prompt."""
    mass: Any = mine.once(("attention", node.group), lambda: _mass(mine, node.group))
    chosen: Any = of_head(mass, node.layer, node.head)
    if any(stage.part == "cross" for stage in mine.graph.stages):  # two attentions in one table
        chosen = chosen[(chosen["clip"] >= 0) == (node.kind == "cross_head")]
    title = f"{SHARE_PER_TOKEN.label} ({head_name(node.layer, node.head)})"
    show_curves(f"clean of {mine.pair.digest}", over_time(chosen), title, key=PLAYER)
    where = mine.graph.groups[node.group].name
    st.caption(
        f"Attention over the clean clip's prompt: {head_name(node.layer, node.head)}, {where}"
    )
    st.html(token_strip(chosen).html)


def _mass(mine: PairRuns, group: int) -> pd.DataFrame:
    """Attention of the tokens of a group, their mean where they are several."""
    columns = mine.graph.groups[group].columns
    queries = columns[:: -(-len(columns) // QUERIES)]
    model, inputs = mine.opened.model, mine.answers.behind(mine.inputs[0])
    return attention_mass(model, inputs, queries=list(queries)).assign(query=queries[-1])


# -- what it is good for --------------------------------------------------------------------------


def cut_nodes(graph: Graph) -> tuple[int, ...]:
    """Nodes that the address says are cut; none, and a sentence, where it names others."""
    written = st.query_params.get("without", "")
    if not written:
        return ()
    parts = written.split(".")[:CUT_CHARACTERS]
    known = [int(each) for each in parts if each.isdecimal() and len(each) < 8]
    if len(known) == len(parts) and all(each < len(graph.nodes) - 1 for each in known):
        return tuple(sorted(set(known)))
    say(f"There are no nodes “{short(written)}” in this graph, so none are cut.")
    return ()


def remember_cut(nodes: Sequence[int]) -> None:
    """Write cut nodes into the address."""
    if nodes:
        st.query_params["without"] = ".".join(map(str, sorted(set(nodes))))
    else:
        st.query_params.pop("without", None)


def show_cut(asked: CircuitRequest, size: int, cut: tuple[int, ...]) -> None:
    """What is left of the answer without the nodes that were cut."""
    graph = asked.graph
    row = st.container(horizontal=True, vertical_alignment="center")
    names = ", ".join(graph.name(node) for node in cut[:4])
    more = f" and {len(cut) - 4} more" if len(cut) > 4 else ""
    row.markdown(f":material/content_cut: {names}{more}", width="content")
    row.button("Take back", on_click=remember_cut, args=([],), key="take cut back", type="tertiary")
    before, after = (_mean_faithful(asked, size, each) for each in ((), cut))
    where = "held-out pairs" if asked.held_out else "this pair"
    mine = asked.mine
    circuits = [mine.metric(asked.circuit(size, each)) for each in ((), cut)]
    shown = [
        (f"Faithfulness, {where}", before, after, ""),
        ("Circuit", circuits[0], circuits[1], " nats"),
        ("Whole model", mine.ends[1], mine.metric(whole(graph, cut)), " nats"),
    ]
    reason = ""
    try:
        plain, lead = mine.once(("cut", cut), lambda: _cut_lead(mine, cut))
        shown.append(("Whole model, reading cut", plain, lead, " nats"))
    except PalscopeError as error:
        reason = str(error)
    for column, (label, old, new, unit) in zip(st.columns(len(shown)), shown, strict=True):
        told = f"{old:.2f}{unit} with the nodes."
        change = f"{new - old:+.2f}{unit}"
        column.metric(label, f"{new:.2f}{unit}", change, delta_color="off", help=told)
    pair = mine.pair
    st.caption(
        f"Lead of “{pair.clean_answer}” over “{pair.corrupt_answer}” on the clean clip. *Circuit* "
        "and *Whole model*: all edges from and into the nodes carry the corrupt clip's values. "
        "*Reading cut*: text no longer reads the node's seconds, or the head reads no sound, and "
        f"attention that is left sums to 1, as *Cut* on the attention page. {reason}"
    )


def _mean_faithful(asked: CircuitRequest, size: int, cut: tuple[int, ...]) -> float:
    """On held-out pairs; on the pair itself where none is."""
    table: Any = asked.faithful(cut)
    here = table[table["edges"] == size]
    return float(here.loc[here["held_out"] == bool(asked.held_out), "faithful"].mean())


def _cut_lead(mine: PairRuns, cut: Sequence[int]) -> tuple[float, float]:
    """The whole model's metric, plain and with the nodes' reading of sound cut.

    Raises:
        PalscopeError: none of them reads sound into text.
    """
    edits = [edit for node in cut if (edit := edit_of(mine, node)) is not None]
    if not edits:
        raise PalscopeError(
            "Networks, features and text are not what text reads: nothing of theirs is cut."
        )
    model, answers, pair = mine.opened.model, mine.answers, mine.pair
    inputs = answers.behind(mine.inputs[0])
    made = interventions(edits, model, inputs, pair.clean, pair.question, other_sound)
    logits = run_cells(model, inputs, [[], made])
    lead = answer_metrics(logits, answers, logits[0])[answers.metric].tolist()
    return lead[0], lead[1]


def edit_of(mine: PairRuns, number: int) -> Edit | None:
    """What *Cut* does to a node: to its seconds, or to a head's reading of all sound."""
    node = mine.graph.nodes[number]
    group = mine.graph.groups[node.group]
    layers = () if node.layer is None else (node.layer,)
    if node.kind == "sound" and group.stream is not None and group.start_s == group.start_s:
        return Edit("cut", group.start_s, group.end_s, (group.stream,), layers)
    if node.kind in HEADS and node.head is not None and group.stream is None:
        return Edit("cut", 0.0, mine.pair.clean.seconds, (), layers, (node.head,))
    return None


# -- without another clip -------------------------------------------------------------------------


def show_attribution(asked: CircuitRequest) -> None:
    """The attribution graph of the clean run, in a sentence and as a file."""
    if not st.toggle(
        "Attribution graph of the clean clip alone",
        key="attribution graph",
        help="Where the answer came from with attention, norms and gates held: one run, no other "
        "clip, and not the circuit above. Its file is in circuit-tracer's form.",
    ):
        return
    mine = asked.mine.bare

    def make() -> Any:
        inputs = mine.answers.behind(mine.inputs[0])
        return attribution_graph(mine.opened.model, inputs, mine.graph, answers=mine.answers)

    try:
        with st.spinner("Taking the answer apart …"):
            found = mine.once("attribution", make)
    except PalscopeError as error:
        st.info(str(error))
        return
    st.caption(f"Clean clip alone, not the circuit above: {found}")
    name = f"{mine.pair.name}_clean"
    st.download_button(
        "JSON (circuit-tracer's form)",
        lambda: json.dumps(graph_file(found, name)).encode(),
        f"{name}.json",
        "application/json",
        key="download attribution graph",
        on_click="ignore",
    )
