"""The page of circuits, on tiny models: its numbers are those of circuits that are run directly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import streamlit as st
import torch
from streamlit.testing.v1 import AppTest

import palscope
from palscope._circuits.graph import Graph
from palscope.circuits import CircuitRuns, eap_ig, firing_features, pair_graph, ranked
from palscope.features import load_dictionary, save_dictionary
from palscope.measures import Answers
from palscope.pairs import Pair, bundled_pairs
from tests.dashboards.conftest import OTHER, captions, figures, metrics, quiet
from tests.dashboards.dictionary import dictionary_of_noise
from tests.features.spliced import random_at
from tests.published.tiny import qwen2_audio, whisper

PAIRS = [pair for pair in bundled_pairs() if pair.kind == "digit"]
PAIR, REST = PAIRS[0], PAIRS[1:]


def script() -> None:
    from _circuits_view import view  # pyright: ignore[reportMissingImports]

    view()


def opened(folder: Path, **address: str) -> AppTest:
    page = AppTest.from_function(script, default_timeout=600)
    given = {"model": OTHER, "model-folder": str(folder), "pair": PAIR.name} | address
    for name, value in given.items():
        page.query_params[name] = value
    return page.run()


def go(page: AppTest) -> AppTest:
    return page.button(key="run circuits").click().run()


class Direct:
    """What the page should show, from the public functions alone."""

    def __init__(self, folder: Path, **features: Any) -> None:
        self.model = palscope.load(folder)
        self.graph: Graph = pair_graph(self.model, PAIR, **features)

    def scores(self, pair: Pair) -> Any:
        clean, corrupt, answers = self.given(pair)
        return eap_ig(self.model, clean, corrupt, self.graph, answers=answers)

    def given(self, pair: Pair) -> tuple[Any, Any, Answers]:
        clean, corrupt = (self.model.inputs(pair.question, c) for c in (pair.clean, pair.corrupt))
        answers = Answers.of(self.model.processor, pair.clean_answer, pair.corrupt_answer)
        return clean, corrupt, answers

    def runs(self, pair: Pair) -> CircuitRuns:
        clean, corrupt, answers = self.given(pair)
        return CircuitRuns(self.model, clean, corrupt, self.graph, answers=answers)

    def circuit(self, edges: Any, gone: int | None = None) -> Any:
        """A circuit of edges, without those of a node."""
        found = torch.zeros(self.graph.n_edges, dtype=torch.bool)
        for edge in edges:
            ends = self.graph.sources[edge], self.graph.targets[edge]
            found[int(edge)] = gone not in ends
        return found


def held_out(page: AppTest) -> dict[int, float]:
    """Faithfulness by size, as the figure shows it."""
    (trace,) = [each for each in figures(page)[0]["data"] if each.get("name") == "held-out pair"]
    return {round(10**x): y for x, y in zip(trace["x"], trace["y"], strict=True)}


def test_its_numbers_are_those_of_circuits_run_directly(checkpoint: Path) -> None:
    st.cache_resource.clear()
    page = opened(checkpoint, edges="50")
    quiet(page)
    direct = Direct(checkpoint)
    graph = direct.graph
    told = f"{len(graph.nodes):,} nodes at {len(graph.groups)} groups of positions, "
    assert any(f"{told}{graph.n_edges:,} edges" in each for each in captions(page))
    assert not figures(page)
    go(page)
    quiet(page)
    order = ranked(np.mean([direct.scores(pair) for pair in REST], 0))
    runs = direct.runs(PAIR)
    shown = held_out(page)
    assert shown.keys() == {10, 20, 50, 100, 200, 500, graph.n_edges // 1000} - {0}
    for size in (10, 50, 500):
        faithful = runs.faithfulness(direct.circuit(order[:size]))
        assert shown[size] == pytest.approx(faithful, abs=1e-4)

    # A node: its seconds are played; without it the circuit is one without its edges.
    names = page.selectbox(key="node").options
    sound = next(each for each in names if each.endswith("frames, digit"))
    page.selectbox(key="node").set_value(sound).run()
    quiet(page)
    player = json.loads(page.get("bidi_component")[-1].proto.json)
    (node,) = [n for n in range(len(graph.nodes)) if graph.name(n) == sound]
    group = graph.groups[graph.nodes[node].group]
    assert player["plays"]
    assert player["selection"] == pytest.approx([group.start_s, PAIR.clean.seconds], abs=1e-4)
    page.button(key="cut node").click().run()
    quiet(page)
    found = metrics(page)
    without = direct.circuit(order[:50], node)
    assert found["Circuit"] == f"{runs.metric(without):.2f} nats"
    assert found["Faithfulness, held-out pairs"] == f"{runs.faithfulness(without):.2f}"
    everything = direct.circuit(range(graph.n_edges), node)
    assert found["Whole model"] == f"{runs.metric(everything):.2f} nats"
    assert "Whole model, reading cut" in found
    assert held_out(page)[50] == pytest.approx(runs.faithfulness(without), abs=1e-4)
    assert sound not in page.selectbox(key="node").options

    # A head: its attention is shown.
    head = next(each for each in names if " head " in each)
    page.selectbox(key="node").set_value(head).run()
    quiet(page)
    assert any("Attention over the clean clip's prompt" in each for each in captions(page))
    page.button(key="take cut back").click().run()
    assert "Circuit" not in metrics(page) and "without" not in page.query_params
    page.toggle(key="attribution graph").set_value(True).run()
    quiet(page)
    assert any("Clean clip alone, not the circuit above: Of " in each for each in captions(page))


def test_features_of_a_dictionary_are_nodes(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    st.cache_resource.clear()
    folder, _ = dictionary_of_noise(checkpoint, tmp_path_factory.mktemp("features"))
    page = opened(checkpoint, **{"feature nodes": "true", "dictionary": str(folder)}, edges="500")
    quiet(page)
    go(page)
    quiet(page)
    bare = Direct(checkpoint)
    features = firing_features(bare.model, PAIRS[:4], load_dictionary(folder), most=50)
    direct = Direct(checkpoint, features=features)
    assert direct.graph.n_edges > bare.graph.n_edges
    assert any(f"{direct.graph.n_edges:,} edges" in each for each in captions(page))
    order = ranked(np.mean([direct.scores(pair) for pair in REST[:3]], 0))
    faithful = direct.runs(PAIR).faithfulness(direct.circuit(order[:500]))
    assert held_out(page)[500] == pytest.approx(faithful, abs=1e-4)
    assert any("--dictionary" in each.value for each in page.code)

    node = next(each for each in page.selectbox(key="node").options if "feature" in each)
    page.selectbox(key="node").set_value(node).run()
    quiet(page)
    player = json.loads(page.get("bidi_component")[-1].proto.json)
    assert player["plays"] and player["selection"][1] > player["selection"][0]
    page.button(key="cut node").click().run()
    quiet(page)
    assert {"Circuit", "Whole model"} <= metrics(page).keys()


def test_a_dictionary_of_another_model_gives_no_nodes(checkpoint: Path, tmp_path: Path) -> None:
    save_dictionary(random_at("blocks.1.hook_resid_post", 32), tmp_path / "dictionary")
    address = {"feature nodes": "true", "dictionary": str(tmp_path / "dictionary")}
    page = opened(checkpoint, **address)
    assert "cannot give a circuit nodes" in page.exception[0].message  # a sentence, by the frame


def test_held_out_pairs_have_no_say(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import _circuit_runs  # pyright: ignore[reportMissingImports]
    from _models import cached_model  # pyright: ignore[reportMissingImports]

    model = cached_model(str(checkpoint))
    ours: Any = _circuit_runs

    def orders(spoilt: Pair | None) -> list[Any]:
        """The edges' order, chosen by the other pairs and by this one, where one has noise."""
        st.cache_resource.clear()

        def scored(model: Any, clean: Any, corrupt: Any, graph: Graph, **given: Any) -> Any:
            features = next(clean[key] for key in clean if "features" in key)
            salt = int(abs(float(features.double().sum())) * 1e6) % 2**32
            if spoilt is not None:
                own = model.inputs(spoilt.question, spoilt.clean)
                same = own[next(key for key in own if "features" in key)]
                salt += 1 if same.shape == features.shape and bool((same == features).all()) else 0
            return np.random.default_rng(salt).normal(size=graph.n_edges)

        monkeypatch.setattr(ours, "eap_ig", scored)
        asked = ours.request_of(model, model.route, PAIR, 1.0, own=False)
        assert [each.pair.name for each in asked.others] == [pair.name for pair in REST]
        return [asked.order, ours.replace(asked, chooser=ours.THIS).order]

    plain, mine, theirs = orders(None), orders(PAIR), orders(REST[0])
    assert np.array_equal(plain[0], mine[0]) and not np.array_equal(plain[1], mine[1])
    assert np.array_equal(plain[1], theirs[1]) and not np.array_equal(plain[0], theirs[0])


def test_a_pair_of_ones_own_holds_nothing_out(checkpoint: Path) -> None:
    import _circuit_runs  # pyright: ignore[reportMissingImports]
    from _circuits_view import said_of_pairs  # pyright: ignore[reportMissingImports]
    from _models import cached_model  # pyright: ignore[reportMissingImports]

    model = cached_model(str(checkpoint))
    asked = _circuit_runs.request_of(model, model.route, PAIR, 1.0, own=True)
    assert asked.chooser == "this pair" and not asked.held_out
    assert "nothing can be held out" in said_of_pairs(asked)
    figure, _ = asked.shown(10)
    assert "nothing is held out: faithfulness" in figure.note


def test_what_an_address_asks_for_and_is_not_here_is_said(checkpoint: Path) -> None:
    page = go(opened(checkpoint, without="9999999"))
    assert ["no nodes" in each.value for each in page.error] == [True]
    assert figures(page)


@pytest.mark.parametrize("made", [whisper, qwen2_audio], ids=["whisper", "qwen2_audio"])
def test_published_classes_have_circuits(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import _circuit_runs  # pyright: ignore[reportMissingImports]

    monkeypatch.setattr(_circuit_runs, "GRID", (50, 500))
    monkeypatch.setattr(_circuit_runs, "MOST_OTHERS", 1)
    made.model().save_pretrained(tmp_path)
    made.processor().save_pretrained(tmp_path)
    page = go(opened(tmp_path))
    quiet(page)
    assert figures(page)
    kinds = "cross-attention head" if made is whisper else " head "
    names = [each for each in page.selectbox(key="node").options if kinds in each]
    page.selectbox(key="node").set_value(names[0]).run()
    page.button(key="cut node").click().run()
    quiet(page)
    assert "Whole model" in metrics(page)
