"""Latents as nodes: against the model with dictionaries spliced in, and against themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from palscope._circuits.activations import eap_ig_activations
from palscope._circuits.attribution.graph import attribution_graph
from palscope._circuits.build import pair_graph, run_graph
from palscope._circuits.compared import compared
from palscope._circuits.exact import effects_of, exact_effects
from palscope._circuits.feature_shares import feature_shares
from palscope._circuits.features import FeaturePlace
from palscope._circuits.firing import firing, firing_features
from palscope._circuits.gradients import attributed, eap, eap_ig, on_the_line
from palscope._circuits.graph import Graph
from palscope._circuits.groups import BELOW
from palscope._circuits.observed import observe
from palscope._circuits.runs import CircuitRuns
from palscope._circuits.selection import circuit_of, on_the_way, ranked
from palscope._circuits.writes import writes_of
from palscope._hooks import HookedAudioModel
from palscope.audio import Waveform
from palscope.errors import PalscopeError
from palscope.features import Dictionary, spliced
from palscope.interventions import Address, Patch, Resample, Sound, Text, intervene
from palscope.measures import Answers
from palscope.pairs import Pair
from palscope.pairs._pair import Segment
from tests import planted
from tests.circuits.known import known
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


def test_what_few_features_carry_is_what_patching_them_says(asked: Asked) -> None:
    runs = CircuitRuns(**asked.given)
    table = feature_shares(runs, eap(**asked.given), counts=(1, 3))
    for place, rows in table.groupby("hook_point", sort=False):
        assert rows["features"].tolist()[:2] == [1, 3] and rows["all_of_them"].iloc[-1]
        assert rows["with_rest"].iloc[-1] == pytest.approx(1, abs=1e-3)  # nothing is cut
        assert set(rows["hook_point"]) == {place}
    place = asked.features[0]
    if place.layer is None:
        with torch.no_grad(), spliced(asked.model, place.dictionary):
            every = [Address(site, at=place.hook_point) for site in ("feature", "feature_error")]
            patches = [Patch(each, Resample(asked.corrupt)) for each in every]
            with intervene(asked.model, asked.clean, patches[:1]):
                without = asked.difference(asked.model(asked.clean))
        found = table[table["hook_point"] == place.hook_point]["without"].iloc[-1]
        way = runs.everything - runs.nothing
        assert found == pytest.approx((without - runs.nothing) / way, abs=1e-2)


def test_a_planted_feature_carries_all_of_the_answer() -> None:
    """The network that makes the answer, and a dictionary with the direction that it writes."""
    one = known()["fed"]()
    dictionary = Dictionary(planted.WIDTH, 4, kind="jumprelu", k=1)
    with torch.no_grad():
        for weight in dictionary.parameters():
            weight.zero_()
        for latent, (dimension, sign) in enumerate(
            [(planted.ANSWER, 1.0), (planted.ANSWER, -1.0), (planted.CLASS, 1.0), (0, 1.0)]
        ):
            dictionary.W_enc[dimension, latent] = dictionary.W_dec[latent, dimension] = sign
    dictionary.about = {"hook_point": "blocks.2.hook_mlp_out", "streams": ["text"]}
    place = FeaturePlace(
        dictionary.eval(), "blocks.2.hook_mlp_out", 2, False, latents={"last token": (0, 1, 2)}
    )
    bare = one.graph()
    graph = run_graph(one.planted.model, bare.layout, bare.groups, [place])
    given = (one.planted.model, *one.inputs(), graph)
    answers = Answers((), *one.planted.answers)
    scores = eap_ig(*given, answers=answers)
    runs = CircuitRuns(*given, answers=answers)
    table = feature_shares(runs, scores, counts=(1, 2))
    np.testing.assert_allclose(table["alone"].iloc[1:], 1, atol=1e-3)
    np.testing.assert_allclose(table["without"].iloc[1:], 0, atol=1e-3)
    last = [group.name for group in graph.groups].index("last token")
    answer = graph.find("answer", last)
    told = {f: scores[graph.edge(graph.find("feature", last, 2, feature=f), answer, "answer")]
            for f in range(3)}  # fmt: skip
    assert min(abs(told[0]), abs(told[1])) > 1 and told[2] == 0
    rest = graph.edge(graph.find("mlp", last, 2), answer, "answer")
    assert graph.name(graph.find("mlp", last, 2)) == "L2 rest of mlp at last token"
    assert abs(scores[rest]) < 1e-3


def test_circuits_of_features_lead_from_the_encoder_to_the_answer() -> None:
    mine = Asked(opened("pal")[0], made_pair(), [random_at(HIGH, 16)])
    scores = eap_ig(**mine.given, steps=2)
    way = on_the_way(mine.graph, circuit_of(mine.graph, ranked(scores)[:400])).numpy()
    groups = [mine.graph.groups[node.group] for node in mine.graph.nodes]
    from_below = way & [groups[source].stream in BELOW for source in mine.graph.sources]
    assert from_below.any() and (mine.graph.slots[from_below] == "sound").all()
    heard = {int(target) for target in mine.graph.targets[from_below]}
    sounds = {int(each) for each in mine.graph.sources[way] if mine.graph.nodes[each].stage == -1}
    assert sounds and sounds <= heard  # no sound enters a circuit but by edges from the encoder


def test_the_line_goes_from_one_run_to_the_other(asked: Asked) -> None:
    model, graph, answers = asked.model, asked.graph, asked.answers
    runs = compared(model, asked.clean, asked.corrupt, graph, answers)
    for share, wanted in ((0.0, runs.here.metric), (1.0, runs.there.metric)):
        inputs, within = on_the_line(model, graph, runs, share)
        found = observe(model, inputs, graph, answers, within=within)
        assert found.metric == pytest.approx(wanted, abs=1e-4)


def test_ways_along_stages_sum_to_what_exchanging_the_encoder_does() -> None:
    """EAP-IG on activations: the encoder's stage goes alone, and all that is heard follows it."""
    mine = Asked(opened("pal")[0], made_pair(), [random_at(LOW, 16)])
    scores = eap_ig_activations(**mine.given, steps=40)
    runs = CircuitRuns(**mine.given)
    below = scores[mine.graph.slots == "sound"].sum()
    assert below == pytest.approx(runs.nothing - runs.everything, rel=0.1)


@pytest.mark.parametrize(
    ("dictionaries", "reason"),
    [
        ([], "at least one dictionary"),
        ([network(1), transcoder(1)], "one for each place"),
        ([random_at("blocks.1.hook_resid_post", 32)], r"blocks.1.hook_resid_post \(resid_post\)"),
        ([random_at("audio_projector_frames_0.hook_in", 16)], "cannot give a circuit nodes"),
        ([random_at("blocks.9.hook_mlp_out", 32)], "blocks.9"),
    ],
)
def test_dictionaries_of_other_places_are_refused(dictionaries: Any, reason: str) -> None:
    with pytest.raises(PalscopeError, match=reason):
        firing_features(opened("pal")[0], [made_pair()], *dictionaries)


def test_one_in_training_or_that_hears_the_same_is_refused() -> None:
    model, pair = opened("pal")[0], made_pair()
    with pytest.raises(PalscopeError, match="training mode"):
        firing_features(model, [pair], random_at(LOW, 16).train())
    deaf = random_at(LOW, 16)
    with torch.no_grad():
        deaf.W_enc.zero_()
    with pytest.raises(PalscopeError, match=r"no latent at .* fires otherwise"):
        firing_features(model, [pair], deaf)


def test_an_encoder_that_hears_silence_behind_the_clip_is_refused() -> None:
    model, _ = opened("whisper")
    with pytest.raises(PalscopeError, match="hears the silence behind it"):
        firing_features(
            model, [replace(made_pair(), question="<|notimestamps|>")], random_at(LOW, 16)
        )


def test_of_nothing_or_a_mean_the_encoder_makes_no_sound() -> None:
    mine = Asked(opened("pal")[0], made_pair(), [random_at(LOW, 16)])
    with pytest.raises(PalscopeError, match="a sound of its own"):
        CircuitRuns(**mine.given, outside="zero")
    other = Asked(opened("pal")[0], made_pair(), [network(1)])
    runs = CircuitRuns(**other.given, outside="zero")
    assert np.isfinite(runs.nothing) and runs.nothing != pytest.approx(runs.everything)


def test_attribution_graphs_take_no_features() -> None:
    mine = Asked(opened("pal")[0], made_pair(), [network(1)])
    with pytest.raises(PalscopeError, match="give the graph without them"):
        attribution_graph(mine.model, mine.clean, mine.graph, answers=mine.answers)


def test_the_most_that_differ_are_taken() -> None:
    model, pair = opened("pal")[0], made_pair()
    (every,) = firing_features(model, [pair], random_at(LOW, 16))
    (few,) = firing_features(model, [pair], random_at(LOW, 16), most=2)
    table = firing(model, pair, [random_at(LOW, 16)])
    for group, latents in few.latents.items():
        rows: Any = table[table["group"] == group].sort_values("size", ascending=False)
        assert set(latents) == set(rows["latent"].iloc[:2]) < set(every.latents[group])
    assert {group for group in few.latents} == {"encoder, first", "encoder, second"}
    small = random_at(LOW, 16)
    with torch.no_grad():
        for latents in few.latents.values():
            small.W_dec[list(latents)] *= 1e-3  # they fire as they did, but write little
    (other,) = firing_features(model, [pair], small, most=2)
    for group, latents in few.latents.items():
        assert not set(latents) & set(other.latents[group])
