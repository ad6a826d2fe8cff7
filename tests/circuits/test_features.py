"""Latents as nodes: against the model with dictionaries spliced in, and against themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from palscope._circuits.build import pair_graph
from palscope._circuits.exact import effects_of, exact_effects
from palscope._circuits.firing import firing_features
from palscope._circuits.gradients import attributed, eap
from palscope._circuits.graph import Graph
from palscope._circuits.observed import observe
from palscope._circuits.runs import CircuitRuns
from palscope._circuits.writes import writes_of
from palscope._hooks import HookedAudioModel
from palscope.audio import Waveform
from palscope.features import Dictionary, spliced
from palscope.interventions import Address, Patch, Resample, Sound, Text, intervene
from palscope.measures import Answers
from palscope.pairs import Pair
from palscope.pairs._pair import Segment
from tests.circuits.test_gradients import a_few
from tests.circuits.test_graph import opened
from tests.features.spliced import random_at
from tests.hooks.conftest import noise, tone

LOW, HIGH = "audio_blocks.0.hook_out", "audio_blocks.1.hook_out"
"""In the tiny encoder, whose two layers are both heard: sound comes past the second."""


def transcoder(layer: int) -> Dictionary:
    """Of text, from a network's input to its output."""
    about = {"hook_point_out": f"blocks.{layer}.hook_mlp_out", "streams": ["text"]}
    return random_at(f"blocks.{layer}.mlp.hook_in", 32, d_out=32, **about)


def network(layer: int) -> Dictionary:
    """An autoencoder of what a network writes, of sound and text."""
    streams = ["text", "frames", "summary"]
    return random_at(f"blocks.{layer}.hook_mlp_out", 32, streams=streams)


PLACES: dict[str, tuple[str, list[Dictionary]]] = {
    "heard whole": ("pal", [random_at(LOW, 16)]),
    "passed": ("pal", [random_at(HIGH, 16)]),
    "all frozen": ("frozen", [random_at(HIGH, 16), network(1)]),
    "queries": ("queries", [random_at(LOW, 16), transcoder(2)]),
    "networks": ("pal", [network(0), transcoder(2)]),
    "granite": ("granite", [network(1), transcoder(2)]),
}


@dataclass
class Asked:
    """A tiny model, noise and a tone, and the graph with features."""

    model: HookedAudioModel
    pair: Pair
    dictionaries: Sequence[Dictionary]

    def __post_init__(self) -> None:
        question = self.pair.question
        self.clean, self.corrupt = (
            self.model.inputs(question, clip) for clip in (self.pair.clean, self.pair.corrupt)
        )
        words = self.pair.clean_answer, self.pair.corrupt_answer
        self.answers = Answers.of(self.model.processor, *words)
        self.features = firing_features(self.model, [self.pair], *self.dictionaries)
        self.graph: Graph = pair_graph(self.model, self.pair, features=self.features)
        assert not self.answers.prefix

    @property
    def given(self) -> dict[str, Any]:
        names = ("model", "clean", "corrupt", "graph", "answers")
        return {name: getattr(self, name) for name in names}

    def difference(self, logits: Tensor) -> float:
        assert self.answers.corrupt is not None
        last = logits[0, -1].detach()
        return float(last[self.answers.clean] - last[self.answers.corrupt])


def made_pair() -> Pair:
    segments = (Segment("first", 0.0, 0.4, True), Segment("second", 0.4, 1.0, True))
    clips = (Waveform(each, 16_000, "made") for each in (noise(1.0), tone(1.0)))
    return Pair("made", "made", "which digit?", *clips, "one", "two", segments)


@pytest.fixture(scope="module", params=PLACES)
def asked(request: Any) -> Asked:
    name, dictionaries = PLACES[request.param]
    return Asked(opened(name)[0], made_pair(), dictionaries)


def test_all_edges_are_the_clean_run_and_none_the_corrupt_one(asked: Asked) -> None:
    runs = CircuitRuns(**asked.given)
    whole = torch.ones(asked.graph.n_edges, dtype=torch.bool)
    clean, corrupt = (asked.difference(asked.model(each)) for each in (asked.clean, asked.corrupt))
    assert abs(clean - corrupt) > 0.01
    assert runs.metric(whole) == pytest.approx(clean, abs=1e-4)
    assert runs.metric(~whole) == pytest.approx(corrupt, abs=1e-4)


def test_nodes_add_up_to_what_the_model_has(asked: Asked) -> None:
    """Features and rest, against the plain model's own hook points and the dictionary's latents."""
    graph, model = asked.graph, asked.model
    run = observe(model, asked.clean, graph, asked.answers)
    writes = writes_of(model, graph, run)
    for place in asked.features:
        stands = place.hook_point if place.layer is None else f"blocks.{place.layer}.hook_mlp_out"
        with torch.no_grad():
            _, cache = model.run_with_cache(asked.clean, names_filter=[stands, place.hook_point])
        latents = place.dictionary.encode(cache[place.hook_point][0])
        axis = None if place.layer is None else graph.columns[place.layer].fed[0].tolist()
        seen = 0
        for group, nodes in enumerate(graph.written):
            mine = [n for n in nodes if graph.nodes[n].kind in ("feature", "encoder", "mlp")]
            mine = [n for n in mine if graph.nodes[n].layer == place.layer]
            features = [n for n in mine if graph.nodes[n].kind == "feature"]
            if not features:
                continue
            columns = graph.groups[group].columns
            at = list(columns) if axis is None else [axis.index(column) for column in columns]
            made = writes.residual[group][[nodes.index(node) for node in mine]]
            torch.testing.assert_close(made.sum(0), cache[stands][0][at], atol=1e-4, rtol=0)
            for node, each in zip(features, made[1:], strict=True):
                number = graph.nodes[node].feature
                wanted = latents[at][:, [number]] * place.dictionary.W_dec[number]
                torch.testing.assert_close(each, wanted, atol=1e-5, rtol=0)
                seen += 1
        assert seen > 4


def test_a_feature_s_edges_out_are_the_feature_patched_in_the_model(asked: Asked) -> None:
    runs, graph = CircuitRuns(**asked.given), asked.graph
    tried = 0
    for place in asked.features:
        mine = [n for n in range(len(graph.nodes)) if graph.nodes[n].kind == "feature"]
        mine = [n for n in mine if graph.nodes[n].layer == place.layer]
        latents = {graph.nodes[node].feature for node in mine}
        for latent in sorted(each for each in latents if each is not None)[:4]:
            cut = [node for node in mine if graph.nodes[node].feature == latent]
            circuit = torch.from_numpy(~np.isin(graph.sources, cut))
            addresses = [Address("feature", at=place.hook_point, features=(latent,))]
            if place.layer is not None:
                streams = place.dictionary.about["streams"]
                heard = [Sound()] if "frames" in streams else []
                addresses = [
                    Address("feature", at_, at=place.hook_point, features=(latent,))
                    for at_ in (Text(), *heard)
                ]
            patches = [Patch(each, Resample(asked.corrupt)) for each in addresses]
            with (
                torch.no_grad(),
                spliced(asked.model, place.dictionary),
                intervene(asked.model, asked.clean, patches),
            ):
                wanted = asked.difference(asked.model(asked.clean))
            assert runs.metric(circuit) == pytest.approx(wanted, abs=1e-4)
            tried += abs(wanted - runs.everything) > 1e-4
    assert tried > 1


def test_a_circuit_without_one_edge_is_the_edge_exchanged(asked: Asked) -> None:
    runs, graph = CircuitRuns(**asked.given), asked.graph
    whole = torch.ones(graph.n_edges, dtype=torch.bool)
    scores = np.abs(eap(**asked.given))
    kinds = [
        (graph.slots == "sound") if below else np.isin(graph.targets, features(graph))
        for below in (True, False)
    ]
    kinds.append(np.isin(graph.sources, features(graph)))
    edges = {int(edge) for kind in kinds for edge in np.argsort(-scores * kind)[:3] if kind[edge]}
    exact = exact_effects(**asked.given, edges=sorted(edges)).total
    moved = 0
    for edge in edges:
        circuit = whole.clone()
        circuit[edge] = False
        change = runs.metric(circuit) - runs.everything
        assert change == pytest.approx(exact[edge], abs=1e-4 + 1e-2 * abs(exact[edge]))
        moved += abs(change) > 1e-3
    assert len(edges) > 2 and moved


def features(graph: Graph) -> list[int]:
    return [number for number, node in enumerate(graph.nodes) if node.kind == "feature"]


def test_an_estimate_is_the_slope_of_the_exact_effect(asked: Asked) -> None:
    model, graph, answers = asked.model, asked.graph, asked.answers
    run = observe(model, asked.clean, graph, answers, gradients=True)
    writes = a_few(writes_of(model, graph, run), 0)
    step = 1e-3  # latents of a TopK may take turns over longer ones
    up, down = (
        effects_of(model, asked.clean, graph, run, writes.scaled(sign * step), answers).total
        for sign in (1, -1)
    )
    slope = (up - down) / (2 * step)
    found = attributed(model, graph, run, writes)
    for some in (graph.slots == "sound", np.isin(graph.targets, features(graph))):
        if some.any() and np.abs(found[some]).max() > 0:
            wanted = found[some]
            assert np.abs(slope[some] - wanted).max() < 0.02 * np.abs(wanted).max() + 1e-3
    assert np.abs(slope - found).max() < 0.02 * np.abs(found).max()
