"""Pairs in two halves: what the scores of one half choose is tried on the pairs of the other.

So no circuit is tried on a pair that chose it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from palscope._circuits.baselines import (
    attention_mass_of_edges,
    gradient_times_input,
    random_scores,
)
from palscope._circuits.build import pair_graph
from palscope._circuits.compared import compared
from palscope._circuits.features import FeaturePlace
from palscope._circuits.gradients import attributed, eap_ig
from palscope._circuits.graph import Graph
from palscope._circuits.metrics import seconds_iou
from palscope._circuits.observed import observe
from palscope._circuits.runs import CircuitRuns
from palscope._circuits.selection import circuit_of, leading_to_answer
from palscope._hooks import HookedAudioModel
from palscope.errors import PalscopeError
from palscope.measures._metrics import Answers
from palscope.pairs import Pair

Method = Literal["EAP-IG", "EAP", "gradient-input", "attention", "random"]
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True)
class Asked:
    """A pair as a model is asked about it."""

    model: HookedAudioModel
    pair: Pair
    graph: Graph
    clean: Mapping[str, Any]
    corrupt: Mapping[str, Any]
    answers: Answers

    @classmethod
    def of(
        cls,
        model: HookedAudioModel,
        pair: Pair,
        stretch: float | None = None,
        features: Sequence[FeaturePlace] = (),
    ) -> Asked:
        """Nothing runs yet. `stretch`: equal ones in seconds, in place of the pair's segments."""
        answers = Answers.of(model.processor, pair.clean_answer, pair.corrupt_answer)
        clean, corrupt = (model.inputs(pair.question, clip) for clip in (pair.clean, pair.corrupt))
        graph = pair_graph(model, pair, seconds=stretch, features=features)
        return cls(model, pair, graph, clean, corrupt, answers)

    @property
    def given(self) -> dict[str, Any]:
        """What all scores of edges take: `eap(**asked.given)`."""
        names = ("model", "clean", "corrupt", "graph", "answers")
        return {name: getattr(self, name) for name in names}

    def told(self) -> dict[str, Any]:
        """The graph's size, and how far the clean answer is ahead in both runs, in nats."""
        graph = self.graph
        row: dict[str, Any] = {
            "kind": self.pair.kind,
            "shape": graph.shape,
            "nodes": len(graph.nodes),
        }
        for name in ("clean", "corrupt"):
            run = observe(self.model, self.answers.behind(getattr(self, name)), graph, self.answers)
            row[name] = run.metric
        return {**row, "edges": graph.n_edges}

    def scores(self, steps: int) -> pd.DataFrame:
        """Every edge's score by each method, as the effect of exchanging it: a column a method."""
        model, graph = self.model, self.graph
        runs = compared(**self.given, gradients=True)
        found: dict[Method, Float[np.ndarray, "_edges"]] = {
            "EAP-IG": eap_ig(**self.given, steps=steps),
            "EAP": attributed(model, graph, runs.here, runs.change),
            # As if it were taken away.
            "gradient-input": -gradient_times_input(model, graph, runs.here),
            "attention": -attention_mass_of_edges(model, graph, runs.here),
            "random": random_scores(graph, zlib.crc32(self.pair.name.encode())),
        }
        columns = {name: each.astype(np.float32) for name, each in found.items()}
        return pd.DataFrame({"edge": np.arange(graph.n_edges, dtype=np.int32), **columns})

    def runs(self) -> CircuitRuns:
        """Both runs, for circuits."""
        return CircuitRuns(**self.given)

    def found(self, edges: Int[np.ndarray, "_chosen"]) -> dict[str, Any]:
        """What of a circuit leads to the answer: how many nodes, and which seconds of the sound.

        `iou` compares these with the seconds in which the pair's clips differ; NaN where they
        differ everywhere, so that every second is right.
        """
        graph = self.graph
        inside = leading_to_answer(graph, circuit_of(graph, edges)).numpy()
        ends: list[int] = np.union1d(graph.sources[inside], graph.targets[inside]).tolist()
        sound = {graph.nodes[end].group for end in ends if graph.nodes[end].kind == "sound"}
        heard = [graph.groups[group] for group in sound]
        seconds = [(each.start_s, each.end_s) for each in heard if each.start_s == each.start_s]
        segments = self.pair.segments
        differ = [(each.start, each.end) for each in segments if each.differs]
        somewhere = any(not each.differs for each in segments)
        iou = seconds_iou(seconds, differ) if somewhere else np.nan
        return {"nodes": len(ends), "iou": iou}


def halves_of(told: pd.DataFrame, pair: Pair) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The pairs of this one's kind whose graph is the same: its half of them, and the other one.

    Args:
        told: a row a pair: its name as `pair`, and `Asked.told`.

    Raises:
        PalscopeError: there is no other, so that nothing could be held out; or the model does not
            answer this pair while it answers two others.
    """
    every: Any = told
    mine = every[every["pair"] == pair.name].iloc[0]
    alike = every[(every["kind"] == mine["kind"]) & (every["shape"] == mine["shape"])]
    names: list[str] = alike.loc[_counted(alike), "pair"].tolist()
    if pair.name not in names:
        raise PalscopeError(
            f"the model does not answer both clips of {pair.name} right (the clean answer is "
            f"ahead by {mine['clean']:.1f} nats for the clean clip, and by {mine['corrupt']:.1f} "
            "for the other), so there is no difference to explain."
        )
    if len(names) < 2:
        raise PalscopeError(
            f"no other pair of the kind {pair.kind!r} has the graph of {pair.name} (as many parts "
            "of sound), so no circuit can be held out; give more pairs, or equal stretches."
        )
    first = names.index(pair.name) % 2
    return tuple(names[first::2]), tuple(names[1 - first :: 2])


def answered(told: pd.DataFrame) -> pd.Series:
    """Which pairs the model answers right for both clips."""
    whole: Any = told
    return (whole["clean"] > 0) & (whole["corrupt"] < 0)


def _counted(told: pd.DataFrame) -> pd.Series:
    """Those; if fewer than two are, all of them."""
    right: Any = answered(told)
    return right if right.sum() > 1 else right | True


@lru_cache(maxsize=2)
def mean_scores(
    rows: Callable[[str, str], pd.DataFrame], names: tuple[str, ...]
) -> dict[str, Float[np.ndarray, "edges"]]:
    """Each method's mean scores over some pairs; both halves' are kept for the next pair.

    Args:
        rows: of a table and a pair; of "scores" as `Asked.scores`.
        names: the pairs.
    """
    sums: dict[str, Float[np.ndarray, "_edges"]] = {}
    for name in names:
        for method, scores in rows("scores", name).drop(columns=["pair", "edge"]).items():
            more = scores.to_numpy(dtype=np.float64)
            sums[str(method)] = sums[str(method)] + more if str(method) in sums else more
    return {method: each / len(names) for method, each in sums.items()}
