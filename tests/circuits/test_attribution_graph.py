"""Attribution graphs: sums that come out, a second implementation by autograd, planted circuits."""

from __future__ import annotations

import functools
import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit
from torch import Tensor, nn

import palscope
from palscope._circuits.attribution.export import write_graph
from palscope._circuits.attribution.flow import Answer, Flow, Wanted, flow_of
from palscope._circuits.attribution.graph import AttributionGraph, attribution_graph
from palscope._circuits.attribution.held import Held, HeldHeads, HeldNetwork, held_stages
from palscope._circuits.attribution.neurons import main_neurons, taken_apart
from palscope._circuits.attribution.pruned import influence_of
from palscope._circuits.attribution.seconds import by_layer, main_layers, sound_groups
from palscope._circuits.attribution.weights import linear
from palscope._circuits.graph import Graph
from palscope._circuits.observed import Observed, observe
from palscope._circuits.writes import Writes, places, writes_of
from palscope._hooks import HookedAudioModel
from palscope._models.families import family_of, raw
from palscope._routing import Source
from palscope.errors import PalscopeError
from palscope.measures import Answers
from tests import vocabulary
from tests.circuits.known import known
from tests.circuits.test_graph import ROUTES, graph_of
from tests.circuits.test_graph import opened as opened_anew
from tests.hooks.conftest import make_hooked, noise
from tests.published.tiny import moonshine, qwen3_omni

CASES = [*ROUTES, "sliding", "granite", "qwen2_audio", "audio_flamingo3", "whisper", "moonshine"]
ANSWERS = Answers((), 5, 7)
ONE = Answers((), 5, None)


@functools.cache
def opened(name: str) -> tuple[HookedAudioModel, dict[str, Tensor]]:
    """As `test_graph.opened`, two more; all biases are large enough to count."""
    if name == "granite":
        model = make_hooked(vocabulary.tokenizer(), ROUTES["pal"], name)
        inputs = model.inputs("which digit is first?", noise(1.0))
    elif name == "moonshine":
        model = palscope.load(moonshine.model(), processor=moonshine.processor())
        inputs = model.inputs("", noise(1.0))
    else:
        model, inputs = opened_anew(name)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter, weight in model.model.decoder.named_parameters():
            if parameter.endswith("bias"):
                weight.normal_(std=0.3)
    return model, inputs


class Opened:
    """A run, and what is made of it."""

    def __init__(self, name: str, answers: Answers = ANSWERS) -> None:
        self.model, self.inputs = opened(name)
        self.graph: Graph = graph_of(self.model, self.inputs)
        self.run: Observed = observe(self.model, self.inputs, self.graph, answers)
        self.held: list[Held] = held_stages(self.model, self.graph, self.run)
        self.writes: Writes = writes_of(self.model, self.graph, self.run)
        self.answer = Answer.of(self.model, answers, self.run)
        self.wanted = Wanted.of(self.graph, self.held, self.answer)
        self.flow: Flow = flow_of(self.graph, self.held, self.answer, self.wanted, self.writes)

    def kind(self, *kinds: str) -> np.ndarray:
        return np.array([node.kind in kinds for node in self.graph.nodes])


@functools.cache
def made(name: str) -> Opened:
    return Opened(name)


def logits_of(model: HookedAudioModel, inputs: Any) -> Tensor:
    with torch.no_grad():
        return model(dict(inputs), logits_to_keep=1)[0, -1].double()


# -- sums that come out -------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_all_that_entered_sums_to_the_model_s_own_answer(name: str) -> None:
    one = made(name)
    logits = logits_of(one.model, one.inputs)
    _sums_to(one, float(logits[5] - logits[7]))
    if name in ("pal", "whisper"):
        _sums_to(Opened(name, ONE), float(logits[5]))


def _sums_to(one: Opened, value: float) -> None:
    parts = np.append(one.flow.nodes[one.kind("sound", "text")], one.flow.constants.sum())
    assert abs(parts.sum() - value) < 1e-4 * np.abs(parts).sum()
    assert np.abs(parts).max() > 0.01


@pytest.mark.parametrize("name", CASES)
def test_what_enters_a_node_sums_to_what_the_model_made_of_it(name: str) -> None:
    one = made(name)
    assert one.flow.missing(one.graph).max() < 1e-4
    leaving = np.bincount(one.graph.sources, one.flow.edges, len(one.graph.nodes))
    inner = ~one.kind("answer")
    scale = np.abs(one.flow.nodes).max()
    np.testing.assert_allclose(leaving[inner], one.flow.nodes[inner], atol=1e-5 * scale)


# Llama's norm is computed in float32 whatever it is given.
@pytest.mark.parametrize(("name", "most"), [("pal", 5e-6), ("whisper", 1e-10)])
def test_what_sums_lack_is_rounding_alone(name: str, most: float) -> None:
    """With more digits less is lacking: 1e-4 in float32 hides no part that is left out."""
    model, inputs = opened_anew(name)
    double = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
    model.model.double()
    found = attribution_graph(model, double, graph_of(model, inputs), answers=ANSWERS)
    assert found.added_up < most
    assert abs(found.seconds["nats"].sum() - found.value) < most


@pytest.mark.parametrize("name", CASES)
def test_writes_and_biases_sum_to_the_residual_stream(name: str) -> None:
    one = made(name)
    last = len(one.graph.groups) - 1
    state = one.writes.residual[last][0].clone()
    for number, stage in enumerate(one.held):
        found = one.run.state(one.graph.stages[number])[-1:]
        torch.testing.assert_close(state, found, atol=1e-5, rtol=1e-4)
        for place, node in enumerate(one.graph.written[last]):
            if one.graph.nodes[node].stage == number:
                state = state + one.writes.residual[last][place]
        if isinstance(stage, HeldHeads):
            state = state + stage.bias


@pytest.mark.parametrize("name", ["plits", "pal", "qwen2_audio", "whisper", "moonshine"])
def test_what_enters_a_neuron_sums_to_its_input_in_the_model(name: str) -> None:
    one = made(name)
    networks = np.flatnonzero(one.kind("mlp")).tolist()
    everywhere = np.ones(len(one.graph.nodes))
    neurons = main_neurons(one.graph, one.held, one.wanted, everywhere, networks, 30)
    found = taken_apart(
        one.graph, one.held, one.answer, one.wanted, one.writes, neurons, [len(networks)]
    )
    inputs = neurons_inputs(one)
    for place, neuron in enumerate(neurons):
        node = one.graph.nodes[neuron.node]
        stage = one.held[node.stage]
        assert isinstance(stage, HeldNetwork)
        at = places(stage.columns, one.graph.groups[node.group].columns)
        through = stage.entering(one.wanted.writes[node.stage])[at, neuron.number]
        expected = float(through @ inputs[node.stage][at, neuron.number])
        entering = np.append(found.into[:, place], found.constants[place])
        assert abs(entering.sum() - expected) < 1e-4 * np.abs(entering).sum()
        assert neuron.nats == pytest.approx(expected, rel=1e-3, abs=1e-6)


def neurons_inputs(one: Opened) -> dict[int, Tensor]:
    """What the model's own modules make neurons' inputs, by stage."""
    kept: dict[int, Tensor] = {}
    taken: list[Any] = []
    for number, stage in enumerate(one.graph.stages):
        if stage.part != "mlp":
            continue
        layer = raw(one.model.model.decoder.layers[stage.layer])
        parts = raw(layer.mlp) if hasattr(layer, "mlp") else layer
        module = raw(parts.up_proj if hasattr(parts, "up_proj") else parts.fc1)

        def keep(_: Any, __: Any, out: Tensor, number: int = number) -> None:
            kept[number] = out[0]

        taken.append(module.register_forward_hook(keep))
    logits_of(one.model, one.inputs)
    for each in taken:
        each.remove()
    return kept


# -- autograd in the model itself ---------------------------------------------------------------


@contextmanager
def all_held(model: HookedAudioModel) -> Generator[None, None, None]:
    """Within, norms' scales, gates and ratios keep no gradient: in the model's own modules."""
    decoder = model.model.decoder
    norms = [raw(getattr(decoder, family_of(model.model.text_config).norm))]
    acts: list[tuple[Any, bool]] = []
    for layer in range(model.cfg.n_layers):
        block: Any = model.blocks[layer]
        norms += [raw(getattr(block, n)) for n in ("ln1", "ln_cross", "ln2") if hasattr(block, n)]
        family_layer = raw(decoder.layers[layer])
        parts = raw(family_layer.mlp) if hasattr(family_layer, "mlp") else family_layer
        act = parts.act_fn if hasattr(parts, "act_fn") else parts.activation_fn
        gated = hasattr(parts, "gate_proj") or parts.fc1.out_features > parts.fc2.in_features
        acts.append((raw(act), gated))

    def norm(module: Any, x: Tensor) -> Tensor:
        if isinstance(module, nn.LayerNorm):
            x = x - x.mean(-1, keepdim=True)
            scale = (x.square().mean(-1, keepdim=True) + module.eps).rsqrt().detach()
            bias: Any = module.bias  # None, whatever its annotation says
            return x * scale * module.weight + (0.0 if bias is None else bias)
        scale = (x.square().mean(-1, keepdim=True) + module.variance_epsilon).rsqrt()
        return x * scale.detach() * module.weight

    def act(own: Any, gated: bool, x: Tensor) -> Tensor:
        return own(x).detach() if gated else x * (own(x) / x).detach()

    patched = [(module, functools.partial(norm, module)) for module in norms]
    patched += [(each, functools.partial(act, each.forward, gated)) for each, gated in acts]
    for module, function in patched:
        module.forward = function
    try:
        yield
    finally:
        for module, _ in patched:
            module.__dict__.pop("forward", None)


def by_autograd(one: Opened) -> dict[int, float]:
    """By group, gradient times value of what entered there, the model run with all held."""
    model, graph = one.model, one.graph
    leaves: list[tuple[Tensor, Tensor]] = []

    def detached(tensor: Tensor, hook: Any) -> Tensor:
        return tensor.detach()

    def leaf(columns: Tensor, tensor: Tensor, hook: Any) -> Tensor:
        new = tensor.detach().requires_grad_()
        leaves.append((columns, new))
        return new

    layers = [graph.layout.layer_columns(graph.route, i) for i in range(graph.route.n_layers)]
    hooks: list[tuple[str, Any]] = [
        ("blocks.0.hook_in", functools.partial(leaf, layers[0].running[0]))
    ]
    for name in model.hook_dict:
        if name.endswith((".q.hook_out", ".k.hook_out", ".hook_audio_k")) and model.can_fire(name):
            hooks.append((name, detached))
    for layer, columns in enumerate(layers):
        name = f"blocks.{layer}.{model.audio_attention}.hook_audio_state"
        own = any(
            graph.route.cell(stream.name, layer).source is Source.PROJECTED
            for stream in graph.route.streams
        )
        if model.can_fire(name) and (own or columns.crossed.shape[1]):
            hooks.append((name, functools.partial(leaf, columns.audio[0])))
    with torch.enable_grad(), all_held(model):
        logits = model.run_with_hooks(dict(one.inputs), fwd_hooks=hooks, logits_to_keep=1)[0, -1]
        (logits[5] - logits[7]).backward()
    found = dict.fromkeys(range(len(graph.groups)), 0.0)
    for columns, values in leaves:
        assert values.grad is not None
        parts = (values.grad * values.detach())[0].sum(-1)
        for group in found:
            mine = torch.isin(columns, torch.tensor(graph.groups[group].columns))
            found[group] += float(parts[mine].sum())
    return found


@pytest.mark.parametrize(
    "name", [*ROUTES, "sliding", "qwen2_audio", "audio_flamingo3", "whisper", "moonshine"]
)
def test_parts_are_those_of_autograd_in_the_model_with_all_held(name: str) -> None:
    one = made(name)
    plain = logits_of(one.model, one.inputs)
    with all_held(one.model):
        torch.testing.assert_close(logits_of(one.model, one.inputs), plain, atol=1e-4, rtol=1e-4)
    expected = by_autograd(one)
    parts = dict.fromkeys(expected, 0.0)
    for node, nats in zip(one.graph.nodes, one.flow.nodes, strict=True):
        if node.kind in ("sound", "text"):
            parts[node.group] += float(nats)
    scale = max(map(abs, expected.values()))
    assert parts == pytest.approx(expected, abs=1e-4 * scale)
    sums = by_layer(one.graph, one.held, one.wanted, one.writes).sum(1)
    heard = [expected[group] for group in sound_groups(one.graph)]
    np.testing.assert_allclose(sums, heard, atol=1e-4 * scale)


# -- planted circuits ---------------------------------------------------------------------------

KNOWN = known()


@functools.cache
def planted_graph(name: str, corrupt: bool = False) -> AttributionGraph:
    one = KNOWN[name]()
    answers = Answers((), *one.planted.answers)
    inputs = one.inputs()[corrupt]
    return attribution_graph(one.planted.model, inputs, one.graph(), answers=answers)


@pytest.mark.parametrize("name", [name for name in KNOWN if name != "saturated"])
def test_the_true_second_has_the_answer_s_nats_and_the_planted_heads_carry_them(name: str) -> None:
    one, found = KNOWN[name](), planted_graph(name)
    assert found.value > 3
    table: Any = found.by_seconds()
    first = min(layer for layer, _ in one.readers)
    places = table[["start_s", "end_s"]]
    true = np.any([np.isclose(places, each).all(1) for each in one.seconds], 0)
    assert table.loc[true, "nats"].sum() == pytest.approx(found.value, rel=1e-3)
    assert table.loc[~true, "nats"].abs().max() < 1e-3 * found.value
    assert table["nats"].sum() == pytest.approx(found.value, rel=1e-5)
    assert table["nats"].idxmax() in table.index[true]
    assert table.loc[table["nats"].idxmax(), "first_layer"] in {layer for layer, _ in one.readers}
    nodes: Any = found.nodes
    heads = nodes[nodes["kind"] == "head"]
    carried = {
        (row["layer"], row["head"]): np.sign(row["nats"])
        for row in heads.to_dict("records")
        if abs(row["nats"]) > 0.1
    }
    assert carried == one.readers
    if name == "relay":  # text reads the sound in the relay's first layer, not in its second
        assert set(table.loc[true & (table["nats"].abs() > 1), "first_layer"]) == {first}
    if name == "fed":
        (neuron,) = nodes[nodes["kind"] == "neuron"].to_dict("records")
        assert (neuron["layer"], neuron["neuron"]) == (2, 0)
        assert neuron["nats"] == pytest.approx(found.value, rel=1e-3)


def test_what_sound_does_by_a_gate_is_not_seen_since_gates_are_held() -> None:
    table: Any = planted_graph("saturated", corrupt=True).by_seconds()
    value = table["nats"].sum()
    assert abs(value) > 3
    assert table.loc[table["stream"] == "text", "nats"].sum() == pytest.approx(value, rel=1e-3)


# -- what is shown ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pal", "whisper"])
def test_a_graph_that_keeps_all_shows_all(name: str) -> None:
    model, inputs = opened(name)
    found = attribution_graph(
        model, inputs, graph_of(model, inputs), answers=ANSWERS, nodes=9999, edges=99999, neurons=40
    )
    assert found.nodes_kept == pytest.approx(1, abs=1e-5)
    assert found.edges_kept == pytest.approx(1, abs=1e-5)
    inner: Any = found.nodes[~found.nodes["kind"].isin(["sound", "text", "bias"])]
    assert set(inner["kind"]) >= {"head", "mlp", "neuron", "answer"}
    scale = inner["nats"].abs().max()
    np.testing.assert_allclose(inner["shown"], inner["nats"], atol=1e-4 * scale)
    leaving: Any = found.edges.groupby("source")["nats"].sum()
    rest: Any = found.nodes[found.nodes["kind"] != "answer"].set_index("node")["nats"]
    np.testing.assert_allclose(leaving.reindex(rest.index), rest, atol=1e-4 * scale)
    assert str(found).startswith(f"Of {found.value:+.1f} nats for ")


def test_influence_is_the_sum_over_all_paths_of_shares() -> None:
    one = made("whisper")
    n = len(one.graph.nodes)
    shares = np.zeros((n + 1, n + 1))  # into a node, from a node; biases are the last
    source, target = one.graph.sources, one.graph.targets
    np.add.at(shares, (target, source), np.abs(one.flow.edges))
    shares[:n, n] = np.abs(one.flow.constants)
    shares /= np.maximum(shares.sum(1, keepdims=True), 1e-30)
    answer = np.eye(n + 1)[n - 1]
    paths = answer @ np.linalg.inv(np.eye(n + 1) - shares)
    np.testing.assert_allclose(influence_of(one.graph, one.flow), paths[:n], atol=1e-9)


def test_few_nodes_and_edges_are_kept_and_all_lead_from_a_source_to_the_answer() -> None:
    model, inputs = opened("pal")
    found = attribution_graph(
        model, inputs, graph_of(model, inputs), answers=ANSWERS, nodes=20, edges=30, neurons=3
    )
    assert len(found.edges) <= 30 and len(found.nodes) <= 25
    assert 0.1 < found.edges_kept < found.nodes_kept < 1
    inner: Any = found.nodes[~found.nodes["kind"].isin(["sound", "text", "bias"])]
    assert set(inner["node"]) <= set(found.edges["target"])
    others: Any = found.nodes[found.nodes["kind"] != "answer"]
    assert set(others["node"]) == set(found.edges["source"])


def test_layers_that_are_named_carry_three_quarters() -> None:
    assert main_layers(np.array([0.0, 1.0, 3.0, 0.0])) == (2, 2)
    assert main_layers(np.array([1.0, -1.0, -2.0, -2.0])) == (2, 3)
    assert main_layers(np.array([2.0, 2.0, 2.0, 2.0])) == (0, 2)


def test_a_file_has_what_circuit_tracer_s_has(tmp_path: Path) -> None:
    found = planted_graph("fed")
    write_graph(found, tmp_path / "fed.json")
    data = json.loads((tmp_path / "fed.json").read_text())
    assert set(data) == {"metadata", "qParams", "nodes", "links"}
    assert {"slug", "scan", "transcoder_list", "prompt_tokens", "prompt"} <= set(data["metadata"])
    assert data["metadata"]["slug"] == "fed"
    assert {"pinnedIds", "supernodes", "linkType", "clickedId", "sg_pos"} <= set(data["qParams"])
    wanted = {"node_id": str, "feature": int, "layer": str, "ctx_idx": int, "feature_type": str}
    wanted |= {"jsNodeId": str, "clerp": str, "influence": float, "activation": float}
    wanted |= {"token_prob": float, "is_target_logit": bool, "run_idx": int, "reverse_ctx_idx": int}
    tokens = data["metadata"]["prompt_tokens"]
    for node in data["nodes"]:
        assert {name: type(node[name]) for name in wanted} == wanted
        assert 0 <= node["ctx_idx"] < len(tokens) and 0 <= node["influence"] <= 1
    ids = [node["node_id"] for node in data["nodes"]]
    assert len(set(ids)) == len(ids)
    assert [each["weight"] for each in data["links"]] == found.edges["nats"].tolist()
    assert {each[end] for each in data["links"] for end in ("source", "target")} <= set(ids)
    (logit,) = [node for node in data["nodes"] if node["feature_type"] == "logit"]
    assert logit["is_target_logit"] and f"(p={logit['token_prob']:.3f})" in logit["clerp"]
    (sound,) = [node for node in data["nodes"] if "frames 0.30" in tokens[node["ctx_idx"]]]
    assert (sound["feature_type"], sound["layer"]) == ("embedding", "1")


# -- what cannot be -----------------------------------------------------------------------------


def test_bfloat16_is_told_in_float32_and_adds_up_as_far_as_its_numbers_reach() -> None:
    model, inputs = opened_anew("lal")
    model.model.to(torch.bfloat16)
    found = attribution_graph(model, inputs, graph_of(model, inputs), answers=ANSWERS)
    plain = made("lal").answer.value
    assert 1e-4 < found.added_up < 0.05
    assert found.by_seconds()["nats"].sum() == pytest.approx(found.value, rel=0.05)
    assert found.value == pytest.approx(plain, rel=0.2)


def test_models_whose_parts_do_not_add_up() -> None:
    normed = make_hooked(vocabulary.tokenizer(), ROUTES["lal"], "gemma2")
    inputs = normed.inputs("what?", noise(0.5))
    with pytest.raises(PalscopeError, match="does not add up"):
        attribution_graph(normed, inputs, graph_of(normed, inputs), answers=ANSWERS)
    experts = palscope.load(qwen3_omni.model(), processor=qwen3_omni.processor())
    inputs = experts.inputs("what?", noise(0.5))
    with pytest.raises(PalscopeError, match="SparseMoeBlock, in which neurons are not known"):
        attribution_graph(experts, inputs, graph_of(experts, inputs), answers=ANSWERS)
    few_bits = Linear4bit(64, 64).to("cpu")
    few_bits.weight.data = few_bits.weight.data.to(torch.uint8)
    with pytest.raises(PalscopeError, match="weights of this decoder are quantised"):
        linear(few_bits)
    model, inputs = opened_anew("lal")
    mlp = raw(raw(model.model.decoder.layers[2]).mlp)
    mlp.down_proj.register_forward_hook(lambda module, given, out: 1.1 * out)
    with pytest.raises(PalscopeError, match="misses them by"):
        attribution_graph(model, inputs, graph_of(model, inputs), answers=ANSWERS)


def test_inputs_that_do_not_fit() -> None:
    model, inputs = opened("pal")
    graph = graph_of(model, inputs)
    longer = Answers((3, 4), 5, 7)
    with pytest.raises(PalscopeError, match=r"columns.*answers\.behind"):
        attribution_graph(model, longer.behind(inputs), graph, answers=longer)
    with pytest.raises(PalscopeError, match="no path from sound or text"):
        attribution_graph(model, inputs, graph, answers=ANSWERS, nodes=1, edges=1)
    with pytest.raises(PalscopeError, match="nodes"):
        attribution_graph(model, inputs, graph, answers=ANSWERS, nodes=0)
