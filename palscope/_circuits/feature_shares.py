"""How much of the answer passes by a dictionary's features: by few, by all, by what they leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from palscope._circuits.graph import Graph
from palscope._circuits.runs import CircuitRuns
from palscope.errors import PalscopeError

COUNTS = (1, 3, 10, 30, 100)


def feature_shares(
    runs: CircuitRuns, scores: Float[np.ndarray, "edges"], counts: Sequence[int] = COUNTS
) -> pd.DataFrame:
    """Runs in which, of what stands at a dictionary's place, only some carries the clean run.

    All else in the model hears what it would: only edges from the place's own nodes are cut, so the
    numbers are of these, and not of a small circuit above them.

    Args:
        runs: of a pair, whose graph has features.
        scores: effects of noising, by which features are taken: those first whose edges together
            help the clean answer most. Of other pairs, if the numbers are to be of a choice that
            the pair had no part in.
        counts: how many features; "all" is added.

    Returns:
        A row a dictionary and count: `hook_point`, `features` (how many), `all_of_them`, and as
        shares of the way from the corrupt to the clean run `alone` (only these features carry the
        clean run), `with_rest` (they and what no feature holds), `without` (all else of the place).

    Raises:
        PalscopeError: the graph has no features.
    """
    graph = runs.graph
    if not graph.features:
        raise PalscopeError(
            "this graph has no features: make it by pair_graph(…, features=firing_features(…))."
        )
    total = np.bincount(graph.sources, scores, len(graph.nodes))
    rows: list[dict[str, Any]] = []
    for place in graph.features:
        features, rest = _nodes(graph, place.layer)
        order = features[np.argsort(total[features], kind="stable")]
        whole = len(order)
        for count in [*(each for each in counts if each < whole), whole]:
            first, others = order[:count], order[count:]
            rows.append(
                {
                    "hook_point": place.hook_point,
                    "features": count,
                    "all_of_them": count == whole,
                    "alone": _left(runs, np.concatenate([others, rest])),
                    "with_rest": _left(runs, others),
                    "without": _left(runs, first),
                }
            )
    return pd.DataFrame(rows)


def _nodes(
    graph: Graph, layer: int | None
) -> tuple[Int[np.ndarray, "features"], Int[np.ndarray, "rest"]]:
    """A place's features; and what else stands where there are some."""
    mine = [
        number
        for number, node in enumerate(graph.nodes)
        if node.kind in ("feature", "encoder", "mlp")
        and node.layer == layer
        and (layer is None or graph.has_features(layer, node.group))
    ]
    are = np.array([graph.nodes[number].kind == "feature" for number in mine])
    return np.array(mine)[are], np.array(mine)[~are]


def _left(runs: CircuitRuns, cut: Int[np.ndarray, "_nodes"]) -> float:
    """The share of the way when what some nodes write is the corrupt run's."""
    return runs.faithfulness(torch.from_numpy(~np.isin(runs.graph.sources, cut)))
