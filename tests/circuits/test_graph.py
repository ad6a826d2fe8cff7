"""The graph holds the edges that can change something, and no other: tried out, edge by edge."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import palscope
from palscope._circuits.build import run_graph
from palscope._circuits.graph import Graph
from palscope._circuits.groups import Group, position_groups
from palscope._hooks import HookedAudioModel
from palscope._routing import ABSENT, Route
from palscope.errors import PalscopeError
from palscope.interventions._cells import copies_of, with_encoded
from palscope.pairs._pair import Segment
from tests import tiny, vocabulary
from tests.hooks.conftest import make_hooked, noise
from tests.published.tiny import audio_flamingo3, gemma3n, qwen2_audio, whisper

MUTED = Route.plits(tiny.LAYERS).with_cell("frames", [1], ABSENT)
ROUTES = {**tiny.ROUTES, "muted": MUTED}
QUESTION = "which digit is first?"


def opened(name: str) -> tuple[HookedAudioModel, dict[str, Tensor]]:
    if name in ROUTES:
        model = make_hooked(vocabulary.tokenizer(), ROUTES[name])
        return model, model.inputs(QUESTION, noise(1.0))
    if name in ("sliding", "granite"):
        family = {"sliding": "mistral"}.get(name, name)
        model = make_hooked(vocabulary.tokenizer(), ROUTES["pal"], family)
        return model, model.inputs(QUESTION, noise(0.6))
    made: Any = {
        "qwen2_audio": qwen2_audio,
        "audio_flamingo3": audio_flamingo3,
        "whisper": whisper,
    }[name]
    model = palscope.load(made.model(), processor=made.processor())
    question = "" if name == "whisper" else "what?"
    return model, model.inputs(question, noise(1.0))


def graph_of(model: HookedAudioModel, inputs: Any, seconds: float = 0.5) -> Graph:
    layout = model.layout(inputs)
    return run_graph(model, layout, position_groups(layout, seconds=seconds))


class Tried:
    """Which inputs of a node move which outputs, by noise in the model itself.

    A row of the batch has noise in one group of positions; the first has none.
    """

    def __init__(self, model: HookedAudioModel, inputs: Any, groups: tuple[Group, ...]) -> None:
        self.model, self.groups = model, groups
        self.inputs = copies_of(with_encoded(model, inputs), len(groups) + 1)
        layout = model.layout(inputs)
        route = model.current_route
        self.columns = [layout.layer_columns(route, i) for i in range(route.n_layers)]

    def places(self, columns: Tensor, group: int) -> Tensor:
        return torch.isin(columns[0], torch.tensor(self.groups[group].columns)).nonzero()[:, 0]

    @torch.no_grad()
    def moved(self, hook: str, columns: Tensor, seen: str) -> dict[int, tuple[Tensor, bool]]:
        """By group of `columns`: places of `seen` that noise there moves; whether the answer does.

        Args:
            columns: on which axis of `hook` the groups stand.
        """
        at = {group: self.places(columns, group) for group in range(len(self.groups))}
        kept: list[Tensor] = []

        def change(tensor: Tensor, hook: Any) -> Tensor:
            new = tensor.clone()
            generator = torch.Generator().manual_seed(1)
            for group, places in at.items():
                noise = torch.randn(new[0, places].shape, generator=generator)
                new[1 + group, places] += 3 * noise
            return new

        def keep(tensor: Tensor, hook: Any) -> None:
            kept.append(tensor.clone())

        logits = self.model.run_with_hooks(
            self.inputs, fwd_hooks=[(hook, change), (seen, keep)], logits_to_keep=1
        )
        found: dict[int, tuple[Tensor, bool]] = {}
        for group, places in at.items():
            if len(places):
                moved = (kept[0][1 + group] - kept[0][0]).flatten(1).abs().amax(1) > 1e-5
                answers = (logits[1 + group] - logits[0]).abs().max() > 1e-5
                found[group] = moved, bool(answers)
        return found


def tried_edges(tried: Tried) -> tuple[set[Any], set[Any]]:
    """Nodes (layer, part, group), and edges' (layer, part, slot, query group, key group)."""
    nodes: set[Any] = set()
    edges: set[Any] = set()
    for layer, columns in enumerate(tried.columns):
        block = f"blocks.{layer}"
        crosses = bool(columns.crossed.shape[1])
        out = f"{block}.hook_mlp_out"
        fed = tried.moved(out, columns.fed, out)
        nodes |= {(layer, "mlp", group) for group, (_, answer) in fed.items() if answer}
        for part in ("attn", "cross") if crosses else ("attn",):
            name = f"{block}.{'cross_attn' if part == 'cross' else 'attn'}"
            z = f"{name}.hook_z"
            heads = tried.moved(z, columns.running, z)
            alive = [group for group, (_, answer) in heads.items() if answer]
            nodes |= {(layer, part, group) for group in alive}
            inputs = [("q", f"{name}.q.hook_out", columns.running)]
            for slot in "kv":
                read = columns.crossed if part == "cross" else columns.memory
                if read.shape[1]:
                    inputs.append((slot, f"{name}.hook_audio_{slot}", read))
                if part == "attn":
                    inputs.append((slot, f"{name}.{slot}.hook_out", columns.running))
            for slot, hook, axis in inputs:
                for key, (moved, answer) in tried.moved(hook, axis, z).items():
                    for query in alive:
                        if bool(moved[tried.places(columns.running, query)].any()) and answer:
                            edges.add((layer, part, slot, query, key))
    return nodes, edges


@pytest.mark.parametrize("name", [*ROUTES, "sliding", "qwen2_audio", "audio_flamingo3", "whisper"])
def test_an_edge_is_there_if_and_only_if_it_can_change_something(name: str) -> None:
    model, inputs = opened(name)
    graph = graph_of(model, inputs, 0.3 if name == "sliding" else 0.5)
    nodes, edges = tried_edges(Tried(model, inputs, graph.groups))
    stages = [(stage.layer, stage.part) for stage in graph.stages]
    assert {(*stages[n.stage], n.group) for n in graph.nodes if n.kind in INSIDE} == nodes
    blocks = [b for b in graph.blocks if b.slot in "qkv"]
    assert {(*stages[b.stage], b.slot, b.group, b.key_group) for b in blocks} == edges
    for block in graph.blocks:  # and each reads all that was written there below, or what enters
        below = {i for i, n in enumerate(graph.nodes) if n.group == block.key_group}
        inside = {i for i in below if graph.nodes[i].kind in INSIDE}
        if block.own:
            assert len(block.sources) == 1 and graph.nodes[block.sources[0]].kind == "sound"
        else:
            found = {i for i in inside if graph.nodes[i].stage < block.stage}
            assert set(block.sources) - inside == {block.sources[0]}
            assert set(block.sources) & inside == found


INSIDE = ("head", "cross_head", "mlp")


def test_projected_sound_enters_each_layer_by_itself_and_crossed_sound_once() -> None:
    model, inputs = opened("lal")
    graph = graph_of(model, inputs)
    sound = [node for node in graph.nodes if node.kind == "sound"]
    assert {node.layer for node in sound} == set(range(tiny.LAYERS))
    assert len(sound) == tiny.LAYERS * 2
    model, inputs = opened("whisper")
    sound = [node for node in graph_of(model, inputs).nodes if node.kind == "sound"]
    assert [node.layer for node in sound] == [None] * 3  # two stretches, and the silence behind


def test_its_size_is_told_and_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = opened("pal")
    layout = model.layout(inputs)
    monkeypatch.setattr(type(model), "forward", None)
    graph = run_graph(model, layout, position_groups(layout, seconds=0.5))
    assert f"{graph.n_edges} edges" in str(graph)
    assert graph.n_edges == sum(block.size for block in graph.blocks) == len(graph.sources)
    assert sum(node.kind == "head" for node in graph.nodes) % model.cfg.n_heads == 0


def test_an_edge_is_found_by_its_ends() -> None:
    model, inputs = opened("pal")
    graph = graph_of(model, inputs)
    for number, (source, target, slot) in enumerate(
        zip(graph.sources, graph.targets, graph.slots, strict=True)
    ):
        if number % 97 == 0:
            assert graph.edge(int(source), int(target), slot) == number
    with pytest.raises(PalscopeError, match="no edge from"):
        graph.edge(0, 0, "q")


def test_groups_part_the_columns() -> None:
    model, inputs = opened("pal")
    layout = model.layout(inputs)
    groups = position_groups(layout, seconds=0.4, words=[[2], [3]])
    columns = sorted(column for group in groups for column in group.columns)
    assert columns == layout.real[0].nonzero()[:, 0].tolist()
    for group in groups:
        if group.stream is not None:
            spans = layout.seconds[0, list(group.columns)].mean(1)
            assert int(spans.min() / 0.4) == int(spans.max() / 0.4)
    assert groups[-1].columns == (layout.width - 1,)


@pytest.mark.parametrize(
    ("words", "seconds", "told"),
    [([[0], [0]], 1.0, "stands twice"), ([[9999]], 1.0, "no text"), ([], 0.0, "0 s")],
)
def test_groups_that_cannot_be(words: Any, seconds: float, told: str) -> None:
    model, inputs = opened("pal")
    with pytest.raises(PalscopeError, match=told):
        position_groups(model.layout(inputs), seconds=seconds, words=words)


def test_graphs_that_cannot_be() -> None:
    model, inputs = opened("pal")
    layout = model.layout(inputs)
    groups = position_groups(layout)
    with pytest.raises(PalscopeError, match="every real column"):
        run_graph(model, layout, groups[1:])
    joined = Group("end", (*groups[-2].columns, *groups[-1].columns))
    with pytest.raises(PalscopeError, match="its own group"):
        run_graph(model, layout, (*groups[:-2], joined))
    deaf = model.current_route.mute("frames").mute("summary")
    with model.route(deaf), pytest.raises(PalscopeError, match="no sound"):
        run_graph(model, layout, groups)
    shared = palscope.load(gemma3n.model(), processor=gemma3n.processor())
    given = shared.inputs("what ?", noise(1.0))
    with pytest.raises(PalscopeError, match="keys of others"):
        graph_of(shared, given)


def test_a_pair_s_segments_are_groups_by_their_names() -> None:
    model, inputs = opened("pal")
    layout = model.layout(inputs)
    segments = [Segment("first", 0.0, 0.4, True), Segment("pause", 0.4, 0.7, False)]
    groups = position_groups(layout, segments=segments)
    frames = {group.name: group for group in groups if group.stream == "frames"}
    assert list(frames) == ["frames, first", "frames, pause", "frames, elsewhere"]
    for name, (start, end) in zip(frames, [(0, 0.4), (0.4, 0.7), (0.7, 1.1)], strict=True):
        middles = layout.seconds[0, list(frames[name].columns)].mean(1)
        assert bool(((start <= middles) & (middles < end)).all())
    assert [group.name for group in groups if group.stream is None][-2:] == ["text 2", "last token"]
