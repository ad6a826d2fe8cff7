"""Scores of nodes against runs without the node's edges; and the two blind spots of AtP."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from palscope._circuits.nodes import atp_star
from palscope._circuits.runs import CircuitRuns
from palscope._models.families import raw
from palscope.measures import Answers
from tests import planted, tiny
from tests.circuits.known import Known, give, known
from tests.circuits.test_runs import ANSWERS, pair_of


def exact(model: Any, clean: Any, corrupt: Any, graph: Any, table: Any, answers: Any) -> np.ndarray:
    """The metric's change in runs without a node's outgoing edges, or without those into a slot."""
    runs = CircuitRuns(model, clean, corrupt, graph, answers=answers)
    source, target, slots = graph.sources, graph.targets, graph.slots
    keys = np.concatenate([np.full(block.size, block.key_group) for block in graph.blocks])
    found: list[float] = []
    for row in table.itertuples():
        if row.slot == "output":
            out = source == row.node
        else:
            out = (target == row.node) & (slots == row.slot) & (keys == row.group)
        found.append(runs.metric(torch.from_numpy(~out)) - runs.everything)
    return np.array(found)


def test_attention_computed_anew_sees_where_a_softmax_is_flat() -> None:
    model, clean, corrupt, graph = pair_of("pal")
    last = model.model.decoder.layers[tiny.LAYERS - 1]
    with torch.no_grad():
        raw(raw(last).self_attn).q_proj.weight.mul_(30.0)
    table: Any = atp_star(model, clean, corrupt, graph, answers=ANSWERS)
    asked = table[table["slot"].isin(["q", "k"])]
    asked = asked[asked["name"].str.contains(f"L{tiny.LAYERS - 1} ")]
    largest = [asked[name].abs().nlargest(6).index for name in ("atp", "fixed")]
    asked = asked.loc[largest[0].union(largest[1]).union(asked.index[::4])]
    true = exact(model, clean, corrupt, graph, asked, ANSWERS)
    off = {name: np.abs(asked[name] - true).max() for name in ("atp", "fixed")}
    assert np.abs(true).max() > 0.01
    assert off["fixed"] < 0.1 * np.abs(true).max()
    assert off["atp"] > 0.5 * np.abs(true).max()


def test_a_dropped_gradient_sees_what_two_heads_cancel() -> None:
    one: Known = known()["inhibitor"]()
    with torch.no_grad():  # the second head takes back all that the first one says
        give(one.planted, 2, 2, planted.EVENT_KEY, -planted.WRITTEN / planted.UNIT)
    graph, answers = one.graph(), Answers((), *one.planted.answers)
    table: Any = atp_star(one.planted.model, *one.inputs(), graph, answers=answers)
    heads = table[(table["slot"] == "output") & table["name"].str.contains("head")]
    assert heads["atp"].abs().nlargest(3).round(1).tolist()[2] == 0  # no third head matters
    sound = table[(table["slot"] == "output") & table["name"].str.contains("frames")]
    whole = sound["atp"].sum()
    assert abs(whole) < 0.1 * heads["atp"].abs().max() < sound["atp_star"].max()
