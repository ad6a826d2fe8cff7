"""The attribution graph of one run: its strongest nodes and edges, and the answer by seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from palscope._circuits.attribution.flow import Answer, Wanted, flow_of
from palscope._circuits.attribution.held import held_stages
from palscope._circuits.attribution.neurons import main_neurons, taken_apart
from palscope._circuits.attribution.pruned import Part, influence_of, most_influential
from palscope._circuits.attribution.seconds import by_layer
from palscope._circuits.attribution.tables import (
    edges_table,
    layers_table,
    nodes_table,
    seconds_table,
)
from palscope._circuits.graph import Graph
from palscope._circuits.local import check_adds_up
from palscope._circuits.observed import FINAL, observe
from palscope._circuits.writes import writes_of
from palscope._hooks import HookedAudioModel
from palscope._whole import whole_number
from palscope.errors import PalscopeError
from palscope.measures._metrics import Answers

FINE, COARSE = 1e-3, 0.3
"""How far sums may miss, as a share of the sum of sizes: in float32, and in coarser numbers."""


@dataclass(frozen=True, eq=False)
class AttributionGraph:
    """Where the answer of one run came from, with attention, norms' scales and gates held.

    All numbers are nats of `value`: of a node what passes it on its way to the answer, of an edge
    what passes from node to node. What enters a node sums to it, and so does what leaves it. They
    are told against zero, not against another clip, and say nothing of why heads looked where they
    did.

    Attributes:
        model: its name; `heads`, how many query heads an attention of it has.
        value: the answer's logit less the other's, or the only answer's logit, as the model gave
            it.
        answer: the two in words: "'seven' over 'three'"; `answer_id` is the first one's token, and
            `probability` what the model gave it.
        nodes: `node` (a number), `kind` ("sound", "text", "head", "cross_head", "mlp", "neuron",
            "bias", "answer"), `name`, `layer`, `head`, `neuron` (-1 where there is none), `group`
            (of positions), `nats`, `shown` (nats that enter by edges of this graph) and
            `influence`. Of a network with neurons in the graph "mlp" is the rest. Of "sound" that
            enters one layer alone, `layer` is that layer.
        edges: `source, target` (numbers of nodes), `nats`, `influence`, the strongest first.
        seconds: see `by_seconds`.
        layers: `source, layer, nats`: each stretch of sound by the layer in which text reads it.
        nodes_kept: the share of all nodes' influence that nodes of this graph have.
        edges_kept: the share of all edges' influence that its edges have.
        added_up: the largest difference, over all nodes of the run, of a node and the sum of what
            enters it, as a share of the sum of its sizes.
    """

    graph: Graph
    model: str
    heads: int
    value: float
    answer: str
    answer_id: int
    probability: float
    nodes: pd.DataFrame
    edges: pd.DataFrame
    seconds: pd.DataFrame = field(repr=False)
    layers: pd.DataFrame = field(repr=False)
    nodes_kept: float
    edges_kept: float
    added_up: float

    def by_seconds(self) -> pd.DataFrame:
        """The answer as a sum over stretches of sound, text and biases.

        Returns:
            `source`, `stream` ("text" of text, "" of biases), `start_s, end_s` (NaN but of sound),
            `nats`, which sum to `value`; `share` of it; `first_layer, last_layer`, the shortest run
            of layers in which text reads three quarters of a stretch's part (-1 but of sound). A
            layer reads what heads of it carry out of the columns of sound, however it came there:
            what a summary read of the frames counts where text reads the summary.
        """
        return self.seconds

    def __str__(self) -> str:
        all_of_it: Any = self.seconds
        sound = all_of_it[all_of_it["first_layer"] >= 0]
        most = sound.loc[(sound["nats"] * np.sign(self.value)).idxmax()]
        first, last = most["first_layer"], most["last_layer"]
        layers = f"layer {first}" if first == last else f"layers {first} to {last}"
        heard = float(sound["nats"].sum())
        return (
            f"Of {self.value:+.1f} nats for {self.answer}, {most['nats']:.1f} come from "
            f"{most['source']}, by way of {layers}; {heard:.1f} from all of the sound, "
            f"{self.value - heard:.1f} from text and biases."
        )


def attribution_graph(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    graph: Graph,
    *,
    answers: Answers,
    nodes: int = 60,
    neurons: int = 20,
    edges: int = 200,
) -> AttributionGraph:
    """Where the answer about one prompt came from: one run, no other clip.

    Held as they were in the run: attention patterns, the scales of norms, the gates of gated
    feed-forward networks, and in networks without gates each neuron's ratio of output and input. A
    neuron whose input is 0 puts out nothing, and is held at that. All that is left is linear, and
    all of it is in the graph. What sound does by moving attention or by opening a gate is not: for
    that, exchange it (edges' exact effects).

    Args:
        inputs: of one prompt, the answers' common beginning behind it (`answers.behind`).
        graph: of it.
        answers: the deciding tokens; of a single answer its logit is explained.
        nodes: how many nodes are kept, by influence, whole networks among them.
        neurons: how many neurons stand apart from their networks' nodes.
        edges: how many edges are kept, by influence.

    Raises:
        PalscopeError: what nodes write does not add up in this family; its networks are of a kind
            that is not known (mixtures of experts), or its weights quantised; the graph is of
            another prompt, or has features; nothing passes from sources to the answer.
    """
    nodes, edges = whole_number(nodes, "nodes", least=1), whole_number(edges, "edges", least=1)
    neurons = whole_number(neurons, "neurons", least=0)
    check_adds_up(model)
    if graph.features:
        raise PalscopeError(
            "an attribution graph takes networks apart into neurons, not into a dictionary's "
            "features: give the graph without them, pair_graph(model, pair)."
        )
    width = model.layout(inputs).width
    if width != graph.layout.width:
        raise PalscopeError(
            f"the graph is of a prompt of {graph.layout.width} columns, these inputs have {width}: "
            "give the inputs that it was made of, with the answers' common beginning behind them "
            "(answers.behind)."
        )
    run = observe(model, inputs, graph, answers)
    held = held_stages(model, graph, run)
    writes = writes_of(model, graph, run)
    answer = Answer.of(model, answers, run)
    wanted = Wanted.of(graph, held, answer)
    flow = flow_of(graph, held, answer, wanted, writes)
    added_up = float(flow.missing(graph).max())
    _check_added_up(added_up, str(run.values[FINAL].dtype))
    influence = influence_of(graph, flow)
    kept = most_influential(influence, nodes)
    networks = [node for node in kept if graph.nodes[node].kind == "mlp"]
    apart = main_neurons(graph, held, wanted, influence, networks, neurons)
    found = taken_apart(graph, held, answer, wanted, writes, apart, kept)
    part = Part.of(graph, flow, influence, kept, apart, found)
    shown, stays = part.strongest(graph, edges)
    if not shown.any():
        raise PalscopeError(
            f"no path from sound or text to the answer is left of {nodes} nodes and {edges} edges; "
            "keep more of both."
        )
    read = by_layer(graph, held, wanted, writes)
    others = np.delete(np.flatnonzero(stays), np.searchsorted(np.flatnonzero(stays), len(kept) - 1))
    return AttributionGraph(
        graph,
        str(model.cfg.model_name),
        model.cfg.n_heads,
        answer.value,
        _in_words(model, answers),
        answers.clean,
        answer.probability,
        nodes_table(graph, part, shown, stays),
        edges_table(part, shown),
        seconds_table(graph, flow, answer.value, read),
        layers_table(graph, read),
        float(part.influence[others].sum()) / part.of_nodes,
        float(part.edge_influence[shown].sum()) / part.of_edges,
        added_up,
    )


def _check_added_up(added_up: float, dtype: str) -> None:
    allowed = FINE if dtype in ("torch.float32", "torch.float64") else COARSE
    if not added_up <= allowed:
        raise PalscopeError(
            f"what enters nodes of this model misses them by {added_up:.2g} of the sum of sizes; "
            f"in {dtype} {allowed:g} is allowed. Something in its layers is not known here, so its "
            "attributions would not be true."
        )


def _in_words(model: HookedAudioModel, answers: Answers) -> str:
    ids = [answers.clean] if answers.corrupt is None else [answers.clean, answers.corrupt]
    tokenizer: Any = model.tokenizer
    return " over ".join(repr(str(tokenizer.decode([each]))) for each in ids)
