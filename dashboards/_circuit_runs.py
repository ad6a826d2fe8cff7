"""Circuits of a pair: scored, run on pairs that had no part in choosing them, and remembered.

What is measured of a pair serves every visitor and every circuit that it chooses or is run on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
import streamlit as st
import torch
from _answers import Remembered
from _dictionaries import cached_dictionary, version
from _duration import pace
from _models import OpenModel
from jaxtyping import Bool, Float, Int
from torch import Tensor

from palscope._circuits.build import pair_graph
from palscope._circuits.features import FeaturePlace
from palscope._circuits.firing import firing_features
from palscope._circuits.gradients import eap_ig
from palscope._circuits.graph import Graph
from palscope._circuits.metrics import faithfulness
from palscope._circuits.parts import CircuitParts, circuit_parts
from palscope._circuits.runs import CircuitRuns
from palscope._circuits.selection import circuit_of, ranked, without
from palscope._routing import Route, route_to_text
from palscope.measures._metrics import Answers
from palscope.pairs import Pair, bundled_pairs
from palscope.plots import Caption, Figure, circuit
from palscope.plots._joined import Joined, joined

Chooser = Literal["the other pairs", "this pair"]
OTHERS, THIS = "the other pairs", "this pair"
MOST_OTHERS = 3
"""Pairs beside the visitor's own."""
MOST_FEATURES = 50
"""Latents that are nodes, at each stretch of the sound or the text."""
GRID, SHARE = (10, 20, 50, 100, 200, 500), 0.001
"""How many edges circuits have; and the smallest of MIB's shares of all edges."""
SCORED, READY, RUN = 30.0, 3.0, 1.0
"""Plain passes that take as long as scoring a pair, making its runs, and one circuit's run."""


@dataclass(frozen=True)
class PairRuns:
    """One pair under one model and route: its graph, its scores, and circuits run on it."""

    opened: OpenModel
    route: Route
    pair: Pair
    features: tuple[FeaturePlace, ...] = ()
    nodes: str = ""
    """Tells these features from others; empty where there are none."""

    @property
    def key(self) -> tuple[str, ...]:
        """Stands for it wherever results are remembered."""
        return self.opened.version, route_to_text(self.route), self.pair.digest, self.nodes

    @property
    def answers(self) -> Answers:
        """The two answers, at the token in which they part."""
        return Answers.of(
            self.opened.model.processor, self.pair.clean_answer, self.pair.corrupt_answer
        )

    @property
    def inputs(self) -> tuple[Any, Any]:
        """Of the clean and of the corrupt clip."""
        model, pair = self.opened.model, self.pair
        return model.inputs(pair.question, pair.clean), model.inputs(pair.question, pair.corrupt)

    @property
    def graph(self) -> Graph:
        """Raises `PalscopeError` where there is none."""
        return self._once("graph", self._graph)

    def _graph(self) -> Graph:
        return pair_graph(self.opened.model, self.pair, features=self.features)

    @property
    def bare(self) -> PairRuns:
        """The same without features."""
        return replace(self, features=(), nodes="")

    @property
    def scores(self) -> Float[np.ndarray, "edges"]:
        """By EAP-IG, in nats."""
        return self._once("scores", self._scored)

    def _scored(self) -> Float[np.ndarray, "edges"]:
        return eap_ig(self.opened.model, *self.inputs, self.graph, answers=self.answers)

    def metric(self, circuit: Bool[Tensor, "edges"]) -> float:
        """Nats by which the clean answer leads in a circuit's run on this pair."""
        digest = hashlib.sha256(np.packbits(circuit.numpy()).tobytes()).hexdigest()
        return self._once(("metric", digest), lambda: self._run(circuit))

    def _run(self, circuit: Bool[Tensor, "edges"]) -> float:
        runs = self._runs()
        with self.opened.model.turns.passing():  # its layers are run by themselves
            return runs.metric(circuit)

    @property
    def ends(self) -> tuple[float, float]:
        """The metric with no edge, and with all."""
        return self._once("ends", lambda: (self._runs().nothing, self._runs().everything))

    def faithful(self, circuit: Bool[Tensor, "edges"]) -> float:
        """The share of the way from none to all."""
        return faithfulness(self.metric(circuit), *self.ends)

    def _runs(self) -> CircuitRuns:
        """Both runs of the pair, which are large: not remembered with their numbers."""
        place = _runs(*self.key)
        if not place:
            with self.opened.model.route(self.route):
                model, graph = self.opened.model, self.graph
                place.append(CircuitRuns(model, *self.inputs, graph, answers=self.answers))
        return place[0]

    def once(self, key: Any, make: Any) -> Any:
        """What follows from the pair, made once; `key` tells it from others."""
        return self._once(("else", key), make)

    def kept(self, key: Any) -> Any:
        """What `once` has made already; None where it has not."""
        return _remembered(*self.key).kept(("else", key))

    def _once(self, key: Any, make: Any) -> Any:
        def routed() -> Any:
            with self.opened.model.route(self.route):
                return make()

        return _remembered(*self.key).once(key, routed)


@st.cache_resource(max_entries=24, show_spinner=False)
def _remembered(*key: str) -> Remembered:
    return Remembered()


@st.cache_resource(max_entries=4, show_spinner=False)
def _runs(*key: str) -> list[CircuitRuns]:
    return []


@dataclass(frozen=True)
class CircuitRequest:
    """A visitor's pair, other pairs of its kind with the same graph, and who chooses.

    Attributes:
        mine: the visitor's pair, whose circuit is drawn.
        others: at most `MOST_OTHERS`.
        chooser: whose mean scores choose the circuit; the circuit is run on the rest.
        pass_s: how long the model took for one of the pair's clips.
        own: whether the pair is the visitor's own.
    """

    mine: PairRuns
    others: tuple[PairRuns, ...]
    chooser: Chooser
    pass_s: float
    own: bool = False

    def with_features(self, name: str) -> CircuitRequest:
        """The same with latents of a dictionary as nodes, alike in all pairs.

        Raises:
            PalscopeError: they can be no nodes of a circuit (`firing_features`).
        """
        pairs = [each.pair for each in (self.mine, *self.others)]
        model, dictionary = self.mine.opened.model, cached_dictionary(name)
        told = ("features", name, version(name), *(pair.digest for pair in pairs))
        found = self.mine.bare.once(
            told, lambda: firing_features(model, pairs, dictionary, most=MOST_FEATURES)
        )
        nodes = hashlib.sha256(repr(told).encode()).hexdigest()[:12]
        mine, *others = (
            replace(each, features=found, nodes=nodes) for each in (self.mine, *self.others)
        )
        return replace(self, mine=mine, others=tuple(others))

    @property
    def choosers(self) -> tuple[PairRuns, ...]:
        """Whose scores choose."""
        return self.others if self.chooser == OTHERS else (self.mine,)

    @property
    def held_out(self) -> tuple[PairRuns, ...]:
        """On which the circuit is run, without a say in it."""
        return (self.mine,) if self.chooser == OTHERS else self.others

    @property
    def graph(self) -> Graph:
        return self.mine.graph

    @cached_property
    def written(self) -> str:
        """As the address names its results."""
        told = ("circuits", *self.mine.key, self.chooser, *(each.key for each in self.others))
        return hashlib.sha256(repr(told).encode()).hexdigest()[:12]

    @property
    def sizes(self) -> list[int]:
        """How many edges the circuits have, from which the visitor chooses."""
        edges = self.graph.n_edges
        return sorted({each for each in (*GRID, int(SHARE * edges)) if 0 < each <= edges})

    @property
    def seconds(self) -> float:
        """How long it should take, for what is not measured yet."""
        new = sum(_remembered(*each.key).kept("scores") is None for each in self.choosers)
        on = {each.key for each in (self.mine, *self.held_out)}
        passes = SCORED * new + len(on) * (READY + RUN * len(self.sizes))
        return passes * self.pass_s * pace("circuits", self.mine.opened.version).factor

    @property
    def measured(self) -> bool:
        """Whether all circuits of the grid are run."""
        return self.mine.kept(("table", self.written, ())) is not None

    @property
    def scores(self) -> Float[np.ndarray, "edges"]:
        """The choosers' mean."""
        return np.mean([each.scores for each in self.choosers], axis=0)

    @property
    def order(self) -> Int[np.ndarray, "edges"]:
        """Edges, those of the largest mean effect first."""
        key = ("order", *(each.key for each in self.choosers))
        return self.mine.once(key, lambda: ranked(self.scores))

    def circuit(self, size: int, cut: Sequence[int] = ()) -> Bool[Tensor, "edges"]:
        """The circuit of so many edges, without those of nodes that were cut."""
        return without(self.graph, circuit_of(self.graph, self.order[:size]), cut)

    def faithful(self, cut: tuple[int, ...] = ()) -> pd.DataFrame:
        """Of every size, on every pair: `pair, edges, faithful, held_out`."""
        return self.mine.once(("table", self.written, cut), lambda: self._faithful(cut))

    def _faithful(self, cut: tuple[int, ...]) -> pd.DataFrame:
        on = [(each, True) for each in self.held_out]
        on += [(self.mine, False)] if self.chooser == THIS else []
        return pd.DataFrame(
            [
                {"pair": each.pair.name, "edges": size,
                 "faithful": each.faithful(self.circuit(size, cut)), "held_out": held}
                for each, held in on
                for size in self.sizes
            ]
        )  # fmt: skip

    def parts(self, size: int, cut: tuple[int, ...] = ()) -> CircuitParts:
        """The circuit as tables."""
        edges = np.flatnonzero(self.circuit(size, cut).numpy())
        made = circuit_parts(self.graph, edges, self.scores)
        return replace(made, size=size)

    def shown(self, size: int, cut: tuple[int, ...] = ()) -> tuple[Figure, Joined]:
        """The circuit's figure, and the nodes in it."""
        return self.mine.once(("shown", self.written, size, cut), lambda: self._shown(size, cut))

    def _shown(self, size: int, cut: tuple[int, ...]) -> tuple[Figure, Joined]:
        parts = self.parts(size, cut)
        figure = circuit(parts, self.faithful(cut), caption=self.caption(cut))
        return figure, joined(parts.nodes, parts.edges)

    def caption(self, cut: tuple[int, ...] = ()) -> Caption:
        """Model, question, pair, and who chose."""
        opened, pair = self.mine.opened, self.mine.pair
        changed = self.mine.route != opened.route
        route = f" {route_to_text(self.mine.route)}" if changed else ""
        gone = "".join(f", without {self.graph.name(node)}" for node in cut)
        asked = f"“{pair.question}”" if opened.model.processor.takes_questions else "its transcript"
        said = f"{asked}, {pair.name}, chosen by {self.chooser}{gone}"
        return Caption(opened.name + route, said, len(self.choosers) + len(self.held_out), "pairs")


def request_of(
    opened: OpenModel, route: Route, pair: Pair, pass_s: float, *, own: bool
) -> CircuitRequest:
    """The visitor's pair with others of its kind that have the same graph, which choose.

    Raises:
        PalscopeError: the pair has no graph.
    """
    mine = PairRuns(opened, route, pair)
    alike = () if own else mine.once("others", lambda: _alike(mine))
    return CircuitRequest(mine, alike, OTHERS if alike else THIS, pass_s, own)


def _alike(mine: PairRuns) -> tuple[PairRuns, ...]:
    found: list[PairRuns] = []
    for pair in bundled_pairs():
        if len(found) == MOST_OTHERS:
            break
        if pair.kind == mine.pair.kind and pair.name != mine.pair.name:
            other = replace(mine, pair=replace(pair, question=mine.pair.question))
            if other.graph.shape == mine.graph.shape:
                found.append(other)
    return tuple(found)


def whole(graph: Graph, cut: Sequence[int]) -> Bool[Tensor, "edges"]:
    """All edges but those of some nodes: the model, with these as in the corrupt run."""
    return without(graph, torch.ones(graph.n_edges, dtype=torch.bool), cut)
