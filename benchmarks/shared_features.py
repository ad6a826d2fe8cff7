"""Do models that have one encoder need the same features of it?

    python -m benchmarks.shared_features --out benchmarks/shared_features.json

The demo's three models ask about single digits. Of the bundled dictionary's features those that one
model's answer needs most carry the clean clip in another model; beside them those that fire
furthest apart in the two clips, whatever any model makes of them, and features drawn at random.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from benchmarks.core import header, write
from palscope import load
from palscope._circuits.firing import feature_places, firing
from palscope._circuits.graph import Graph
from palscope._hooks import HookedAudioModel
from palscope.circuits import CircuitRuns, eap_ig, feature_shares, pair_graph
from palscope.features import FEATURES_FOLDER, load_dictionary
from palscope.measures import Answers
from palscope.pairs import Pair, bundled_pairs

MODELS = ("demo/plits", "demo/lal", "demo/pal")
COUNTS = (10, 30, 100)

Order = Float[np.ndarray, " d_sae"]
"""What latents are taken by, the least first."""


def main() -> int:
    """Run every model with the features that every one chooses; print and write the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--features", type=int, default=300)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    dictionary = load_dictionary(FEATURES_FOLDER / "dictionary")
    pairs = [pair for pair in bundled_pairs() if pair.kind == "digit"][: given.pairs]
    models = {name: load(name) for name in MODELS}
    one = models[MODELS[0]]  # what fires is the same in all
    fired: dict[str, Any] = {pair.name: firing(one, pair, [dictionary]) for pair in pairs}
    places = feature_places(one, [dictionary], pd.concat(fired.values()), most=given.features)
    rows: list[pd.DataFrame] = []
    for pair in pairs:
        found = {name: asked(model, pair, places) for name, model in models.items()}
        orders = {name: order for name, (_, order) in found.items()}
        table = fired[pair.name]
        apart = np.bincount(table["latent"], table["size"], dictionary.d_sae)
        orders["fires furthest apart"] = -apart
        orders["at random"] = np.random.default_rng(0).random(dictionary.d_sae)
        for (name, (runs, _)), (by, order) in product(found.items(), orders.items()):
            shares = feature_shares(runs, scores_of(runs.graph, order), COUNTS)
            rows.append(shares.assign(pair=pair.name, model=name, chosen_by=by))
        print(pair.name, flush=True)
    every: Any = pd.concat(rows)
    means = every.groupby(["model", "chosen_by", "features"], sort=False)["alone"].mean()
    print(means.unstack().round(2).to_string())
    if given.out is not None:
        report = header("cpu") | {"pairs": [pair.name for pair in pairs]}
        write(report | {"alone": means.reset_index().to_dict("records")}, given.out)
    return 0


def asked(model: HookedAudioModel, pair: Pair, places: Any) -> tuple[CircuitRuns, Order]:
    """The pair's runs with latents as nodes; and what noising each latent does, by EAP-IG."""
    graph = pair_graph(model, pair, features=places)
    answers = Answers.of(model.processor, pair.clean_answer, pair.corrupt_answer)
    clean, corrupt = (model.inputs(pair.question, clip) for clip in (pair.clean, pair.corrupt))
    runs = CircuitRuns(model, clean, corrupt, graph, answers=answers)
    scores = eap_ig(model, clean, corrupt, graph, answers=answers)
    order = np.zeros(graph.features[0].dictionary.d_sae)
    total = np.bincount(graph.sources, scores, len(graph.nodes))
    for node, score in zip(graph.nodes, total, strict=True):
        if node.feature is not None:
            order[node.feature] += score
    return runs, order


def scores_of(graph: Graph, order: Order) -> Float[np.ndarray, "edges"]:
    """Scores of edges by which `feature_shares` takes latents in this order."""
    scores = np.zeros(graph.n_edges)
    _, first = np.unique(graph.sources, return_index=True)
    for edge in first:
        node = graph.nodes[graph.sources[edge]]
        if node.feature is not None:
            scores[edge] = order[node.feature]
    return scores


if __name__ == "__main__":
    raise SystemExit(main())
