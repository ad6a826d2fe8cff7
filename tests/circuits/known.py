"""Planted circuits whose true edges and seconds are known: written down before any score was seen.

Each is a model of `tests.planted`, or one with a few roles more, and a pair: a clip with class A at
0.5 to 0.6 s, and one with class B there. What is true follows from the weights: the class stands in
values alone, so that keys and queries are the same in both runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from palscope._circuits.build import run_graph
from palscope._circuits.graph import Graph, Kind, Slot
from palscope._circuits.groups import position_groups
from palscope._models.families import raw
from tests import planted
from tests.planted import Planted, plant

AT_TOKEN, LATER_TOKEN, N_TOKENS, STRETCH_S = 5, 10, 12, 0.3
SECONDS, LATER = (0.3, 0.6), (0.9, 1.2)
"""The stretches of 0.3 s that hold the event, in either stream, and the second one of `order`."""

Place = Literal["frames", "summary", "later", "relay", "last"]
"""A stream's stretch that holds the event, frames of the later one, the relay word, the last token.
"""

End = tuple[Kind, Place, int | None, int | None]
"""Kind, place, layer and head of a node."""


@dataclass(frozen=True)
class Known:
    """A planted circuit.

    Attributes:
        edges: source, target and slot of each true edge.
        readers: heads (layer, head) whose output differs between the runs and moves the answer.
        sign: of what each of `readers` does for A.
        later: whether the other event follows, marked by the channel that is a nuisance elsewhere.
    """

    name: str
    planted: Planted
    edges: tuple[tuple[End, End, Slot], ...]
    readers: dict[tuple[int, int], int]
    later: bool = False

    @property
    def seconds(self) -> list[tuple[float, float]]:
        """The stretches in which the two clips differ."""
        return [SECONDS, LATER] if self.later else [SECONDS]

    def inputs(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The clean and the corrupt prompt."""
        a, b = (self.planted.inputs(kind, AT_TOKEN, N_TOKENS) for kind in ("A", "B"))
        if self.later:
            per_frame = self.planted.model.processor.features_per_frame
            assert per_frame is not None
            at = slice(LATER_TOKEN * per_frame, (LATER_TOKEN + 1) * per_frame)
            for given, other in ((a, planted.B_CHANNEL), (b, planted.A_CHANNEL)):
                given["input_features"][0, [planted.NUISANCE_CHANNEL, other], at] = planted.LOUD
        return a, b

    def graph(self) -> Graph:
        """Of either prompt; the relay word is a group of its own."""
        layout = self.planted.model.layout(self.inputs()[0])
        words = [[self.planted.relay_column(N_TOKENS)]]
        groups = position_groups(layout, seconds=STRETCH_S, words=words)
        return run_graph(self.planted.model, layout, groups)

    def true(self, graph: Graph) -> list[int]:
        """Numbers of the true edges."""
        return [
            graph.edge(self._node(graph, source), self._node(graph, target), slot)
            for source, target, slot in self.edges
        ]

    def marks(self, graph: Graph) -> Bool[np.ndarray, "edges"]:
        """Of each edge whether it is true."""
        found = np.zeros(graph.n_edges, dtype=bool)
        found[self.true(graph)] = True
        return found

    def _node(self, graph: Graph, end: End) -> int:
        kind, place, layer, head = end
        names = [group.name for group in graph.groups]
        relay = self.planted.relay_column(N_TOKENS)
        if place == "last":
            group = names.index("last token")
        elif place == "relay":
            group = [each.columns for each in graph.groups].index((relay,))
        else:
            stream, at = ("frames", LATER_TOKEN) if place == "later" else (place, AT_TOKEN)
            (group,) = [
                number
                for number, each in enumerate(graph.groups)
                if each.stream == stream and each.start_s < at / 10 + 0.05 < each.end_s
            ]
        return graph.find(kind, group, layer, head)


ANSWER: End = ("answer", "last", None, None)


def _sound(stream: Literal["frames", "summary", "later"], layer: int | None = None) -> End:
    return ("sound", stream, layer, None)


def _head(layer: int, head: int, place: Place = "last") -> End:
    return ("head", place, layer, head)


def _read(sound: End, layer: int, head: int) -> tuple[tuple[End, End, Slot], ...]:
    """A head at the last token reads sound, and writes the answer."""
    mine = _head(layer, head)
    return (sound, mine, "v"), (mine, ANSWER, "answer")


def _weights(made: Planted, layer: int) -> Any:
    return raw(made.model.model.decoder.layers[layer])


def give(made: Planted, layer: int, head: int, key: int, writes: float) -> None:
    """A role as `planted._Roles` gives: where the last token stands, the class at this key."""
    attention = raw(_weights(made, layer).self_attn)
    first, root = head * planted.D_HEAD, planted.D_HEAD**0.5
    sink = planted.GAP * root / (planted.C * planted.UNIT)
    raw(attention.q_proj).weight[first + planted.SINK_KEY, planted.CONSTANT] = sink
    asked = 2 * planted.GAP * root / planted.UNIT
    raw(attention.q_proj).weight[first + key, planted.IS_LAST] = asked
    raw(attention.o_proj).weight[planted.ANSWER, first + planted.CLASS_VALUE] = writes


WRITES = planted.WRITTEN / planted.UNIT


def inhibitor() -> Known:
    """A second head reads the same sound, higher up, and writes half of it against the answer."""
    made = plant("lal")
    with torch.no_grad():
        give(made, 2, 2, planted.EVENT_KEY, -WRITES / 2)
    first, second = _read(_sound("frames", 1), 1, 1), _read(_sound("frames", 2), 2, 2)
    return Known("inhibitor", made, (*first, *second), {(1, 1): 1, (2, 2): -1})


def grouped() -> Known:
    """Two heads of one group read the same key and value; one of them alone writes."""
    made = plant("lal")
    with torch.no_grad():
        give(made, 1, 0, planted.EVENT_KEY, 0.0)
    return Known("grouped", made, _read(_sound("frames", 1), 1, 1), {(1, 1): 1})


def both_streams() -> Known:
    """The event stands in both streams; one head reads it through LAL, one in the summary."""
    made = plant("lal")
    in_summary, key = 10, 1  # a mark of its own, and a place for it in keys that hardly turns
    with torch.no_grad():
        linear: Any = raw(raw(made.model.model.connector.input_projectors["summary"])[0])
        linear.weight[in_summary, planted.EVENT_CHANNEL] = 1 / planted.LOUD
        linear.weight[planted.CLASS, planted.A_CHANNEL] = 1 / planted.LOUD
        linear.weight[planted.CLASS, planted.B_CHANNEL] = -1 / planted.LOUD
        for layer in range(planted.LAYERS):
            keys = raw(raw(_weights(made, layer).self_attn).k_proj).weight
            for kv_head in range(planted.KV_HEADS):
                keys[kv_head * planted.D_HEAD + key, in_summary] = 1 / planted.UNIT
        give(made, 2, 2, key, WRITES)
    edges = (*_read(_sound("frames", 1), 1, 1), *_read(_sound("summary"), 2, 2))
    return Known("both streams", made, edges, {(1, 1): 1, (2, 2): 1})


def order() -> Known:
    """Two sounds, exchanged: one head reads the first and one the second, for the opposite answer.

    The second sound bears a mark of its own, by which its head finds it.
    """
    made = plant("lal")
    key = 1
    with torch.no_grad():
        summary: Any = raw(raw(made.model.model.connector.input_projectors["summary"])[0])
        summary.weight[planted.NUISANCE] = 0.0  # it stands in frames alone
        for layer in range(planted.LAYERS):
            keys = raw(raw(_weights(made, layer).self_attn).k_proj).weight
            for kv_head in range(planted.KV_HEADS):
                keys[kv_head * planted.D_HEAD + key, planted.NUISANCE] = 1 / planted.UNIT
        give(made, 2, 2, key, -WRITES)
    edges = (*_read(_sound("frames", 1), 1, 1), *_read(_sound("later", 2), 2, 2))
    return Known("order", made, edges, {(1, 1): 1, (2, 2): 1}, later=True)


def fed() -> Known:
    """The head tells the class, and a feed-forward network makes the answer of it."""
    return _through_network("fed", lambda told: (0.0, told))


def saturated() -> Known:
    """As `fed`, but through the network's gate, which is shut, and flat, in the clean run."""
    return _through_network("saturated", lambda told: (told, 0.0))


def either() -> Known:
    """Two heads tell the class to the gate of `saturated`, and it takes both to open it."""
    one = saturated()
    head = 2
    with torch.no_grad():
        give(one.planted, 1, head, planted.EVENT_KEY, 0.0)
        out = raw(raw(_weights(one.planted, 1).self_attn).o_proj).weight
        out[planted.TOLD, head * planted.D_HEAD + planted.CLASS_VALUE] = WRITES
    second = [
        (_sound("frames", 1), _head(1, head), "v"),
        (_head(1, head), ("mlp", "last", 2, None), "mlp"),
    ]
    return Known("either", one.planted, (*one.edges, *second), {})


def _through_network(name: str, at: Callable[[float], tuple[float, float]]) -> Known:
    """Head (1, 1) writes the class as TOLD; the network of layer 2 turns it into the answer.

    Args:
        at: how strongly gate and value hear TOLD, of a strength; who does not hears the constant.
    """
    made = plant("lal")
    gated, valued = at(1.0)
    with torch.no_grad():
        first = planted.D_HEAD
        out = raw(raw(_weights(made, 1).self_attn).o_proj).weight
        out[planted.ANSWER, first + planted.CLASS_VALUE] = 0.0
        out[planted.TOLD, first + planted.CLASS_VALUE] = WRITES
        mlp = raw(_weights(made, 2).mlp)
        gate, value, down = (
            raw(each).weight for each in (mlp.gate_proj, mlp.up_proj, mlp.down_proj)
        )
        steep = 20.0  # of the gate: -50, give or take, where the clean run's class is told
        gate[0, planted.TOLD if gated else planted.CONSTANT] = -steep if gated else 1.0
        value[0, planted.TOLD if valued else planted.CONSTANT] = 1.0
        down[planted.ANSWER, 0] = -0.1 if gated else 1.0
    told, answers = _head(1, 1), ("mlp", "last", 2, None)
    edges = (
        (_sound("frames", 1), told, "v"),
        (told, answers, "mlp"),
        (answers, ANSWER, "answer"),
    )
    return Known(name, made, edges, {(1, 1): 1})


def _existing(pathway: planted.Pathway) -> Known:
    made = plant(pathway)
    if pathway == "relay":
        told, moved = _head(1, 1, "relay"), _head(3, 2)
        edges = (
            (_sound("frames", 1), told, "v"),
            (told, moved, "v"),
            (moved, ANSWER, "answer"),
        )
        return Known(pathway, made, edges, {(1, 1): 1, (3, 2): 1})
    sound = _sound("frames", 1) if pathway in ("lal", "decoy") else _sound(made.stream)
    return Known(pathway, made, _read(sound, 1, 1), {(1, 1): 1})


def known() -> dict[str, Callable[[], Known]]:
    """All of them, made when they are called."""
    pathways: tuple[planted.Pathway, ...] = ("lal", "summary", "plits", "relay", "decoy")
    made = {pathway: (lambda pathway=pathway: _existing(pathway)) for pathway in pathways}
    more = (inhibitor, grouped, both_streams, order, fed, saturated)
    return {**made, **{each.__name__: each for each in more}}
