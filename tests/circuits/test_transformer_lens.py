"""EAP against TransformerLens's, where that runs: no grouped queries, and text alone."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
import torch
from transformer_lens.tools.analysis import attribution_patch
from transformer_lens.tools.analysis.attribution_patching import EdgeAttributionConfig

from palscope._circuits.build import run_graph
from palscope._circuits.gradients import attributed
from palscope._circuits.groups import position_groups
from palscope._circuits.observed import observe
from palscope._circuits.writes import writes_of
from palscope.measures import Answers
from tests import tiny, vocabulary
from tests.hooks.conftest import make_hooked

WRITERS = {"embed": "text", "attn_head_out": "head", "mlp_out": "mlp"}
READERS = {"q_input": "q", "k_input": "k", "v_input": "v", "mlp_in": "mlp", "logits": "answer"}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_edges_have_transformer_lens_s_scores() -> None:
    model = make_hooked(vocabulary.tokenizer(), tiny.ROUTES["lal"], num_key_value_heads=4)
    clean, corrupt = torch.tensor([[3, 11, 9, 30, 12]]), torch.tensor([[3, 11, 25, 30, 12]])
    answers = Answers((), 5, 7)
    theirs: dict[Any, float] = defaultdict(float)
    config = EdgeAttributionConfig(granularity="edge")
    found = attribution_patch(model, clean, corrupt, lambda x: x[0, -1, 5] - x[0, -1, 7], config)
    assert found.edge_scores is not None
    for (writer, reader), score in found.edge_scores.items():
        source = WRITERS[writer.kind], writer.position, writer.layer, writer.head
        kind = {"mlp_in": "mlp", "logits": "answer"}.get(reader.kind, "head")
        target = kind, None if kind == "answer" else reader.layer, reader.head
        theirs[source, target, READERS[reader.kind], reader.position] += score

    given = [
        {"input_ids": each, "attention_mask": torch.ones_like(each)} for each in (clean, corrupt)
    ]
    layout = model.layout(given[0])
    groups = position_groups(layout, words=[[column] for column in range(4)])
    graph = run_graph(model, layout, groups)
    here = observe(model, given[1], graph, answers, gradients=True)
    writes = writes_of(model, graph, observe(model, given[0], graph, answers))
    scores = attributed(model, graph, here, writes - writes_of(model, graph, here))
    ours: dict[Any, float] = defaultdict(float)
    for source, target, slot, score in zip(
        graph.sources, graph.targets, graph.slots, scores, strict=True
    ):
        a, b = graph.nodes[source], graph.nodes[target]
        at = a.group if slot in "kv" else b.group  # theirs are not told apart by who asks
        ours[(a.kind, a.group, a.layer, a.head), (b.kind, b.layer, b.head), slot, at] += score
    largest = max(map(abs, theirs.values()))
    assert largest > 0.05
    assert len([each for each in theirs.values() if abs(each) > 1e-3 * largest]) > 100
    for edge in theirs.keys() | ours.keys():
        assert ours[edge] == pytest.approx(theirs[edge], abs=1e-5 * largest + 1e-7), edge
