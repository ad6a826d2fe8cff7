"""Nodes as functions give what the run itself gave, in every kind of attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from palscope._circuits.exact import exact_effects
from palscope._circuits.gradients import eap
from palscope._circuits.local import Attention, answered, attend, per_head
from palscope._circuits.networks import fed
from palscope._circuits.observed import FINAL, memory_hook, observe, output_hook
from palscope._circuits.runs import CircuitRuns
from palscope._models.families import raw
from palscope.errors import PalscopeError
from palscope.measures import Answers
from tests.circuits.test_graph import ROUTES, graph_of, opened


@pytest.mark.parametrize("name", [*ROUTES, "sliding", "qwen2_audio", "whisper"])
@torch.no_grad()
def test_a_node_is_the_function_that_the_model_computes(name: str) -> None:
    model, inputs = opened(name)
    graph = graph_of(model, inputs)
    answers = Answers((), 5, 7)
    run = observe(model, inputs, graph, answers)
    for stage in graph.stages:
        given = run.values[output_hook(stage)]
        if stage.part == "mlp":
            columns = graph.layout.layer_columns(graph.route, stage.layer)
            at = torch.isin(columns.running[0], columns.fed[0])
            torch.testing.assert_close(fed(model, stage.layer, run.state(stage)[at]), given)
            continue
        heads = Attention(model, graph, stage)
        query = heads.project(run.state(stage)[None], heads.running)[0][0]
        memory = run.values.get(memory_hook(model, stage.layer)) if heads.n_read else None
        keys, values = (
            per_head(each, model.cfg.n_heads)
            for each in heads.keys_values(run.state(stage), memory)
        )
        made = attend(query, keys, values, heads.seen)
        torch.testing.assert_close(made, given, atol=1e-5, rtol=1e-4)
    last = run.values[FINAL][-1:]
    assert float(answered(model, last, answers)) == pytest.approx(run.metric, abs=1e-4)


@pytest.mark.parametrize("scored", [eap, exact_effects, CircuitRuns])
def test_weights_of_few_bits_are_refused(scored: Any) -> None:
    """Their integers are no numbers to multiply by: with them effects came out, and were wrong."""
    model, inputs = opened("lal")
    o_proj: Any = raw(raw(raw(model.model.decoder.layers[0]).self_attn).o_proj)
    integers = o_proj.weight.data.mul(127).to(torch.int8)
    o_proj.weight = torch.nn.Parameter(integers, requires_grad=False)
    graph = graph_of(model, inputs)
    with pytest.raises(PalscopeError, match="weights of this decoder are quantised"):
        scored(model, inputs, inputs, graph, answers=Answers((), 5, 7))
