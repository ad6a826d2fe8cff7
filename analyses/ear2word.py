"""Ear2Word: a benchmark of how well scores of edges find the way from seconds of sound to a word.

    python analyses/ear2word.py --model demo/pal --audio MANIFEST.csv --split validation \
        --kind digit first_digit last_digit sound sound_order last_sound instrument \
        --out runs/ear2word
    python analyses/ear2word.py --model demo/pal --submission mine.parquet --out runs/ear2word

Every edge of a pair's graph is scored by each method. The pairs of a task are two halves; the
largest edges by one half's mean scores are a circuit, which is run on the pairs of the other half:
its edges carry the clean run, all others the corrupt one. Circuits have few edges (10 to 3,000), so
that a method must say which heads read which second. Pairs that the model does not answer right for
both clips do not count.

- **faithfulness**: the share of the way from the corrupt to the clean run's logit difference that a
  circuit goes. The *score* of a method is its mean over the six sizes.
- **iou**: seconds of sound in the circuit against those in which the clips differ, where they do
  not differ everywhere.
- **overlap**: the share of edges that the circuits of both halves have in common.

`--submission` takes another method's scores: a parquet file with the columns pair, edge (its number
in `palscope.circuits.pair_graph`) and score (the effect of exchanging the edge for the corrupt
run's: negative where it helps the clean answer), every edge of every pair. `--node-sets` asks for
the smallest sets of heads and networks whose outputs, exchanged together, move 80 % of what all of
the sound moves. `--wordings 2` asks each question in two other wordings, too.

Writes graphs.parquet, scores.parquet (every edge of every pair), circuits.parquet, nodes.parquet,
wordings.parquet, results.csv (a row a task and method), faithfulness.csv, figures (HTML, PNG, SVG,
and their numbers as CSV) and run.json. A run that was stopped goes on with --resume.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from palscope._circuits.gradients import eap
from palscope._circuits.graph import Graph
from palscope._circuits.halves import Asked, answered, halves_of, mean_scores
from palscope._circuits.metrics import overlap
from palscope._circuits.runs import CircuitRuns
from palscope._circuits.selection import circuit_of, ranked
from palscope._circuits.submission import submitted
from palscope._statistics import mean_row, shown
from palscope.analyses import (
    Analysis,
    PairOptions,
    Results,
    Table,
    Work,
    chosen_pairs,
    each,
    main,
    option,
)
from palscope.datasets import _questions as questions
from palscope.errors import PalscopeError
from palscope.measures import mean_band
from palscope.pairs import Pair
from palscope.plots import _circuits as figures

STEPS = 5
"""Of the line between the runs, in EAP-IG."""

EDGES = (10, 30, 100, 300, 1000, 3000)
"""Sizes of circuits."""

NODES = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500)
"""Sizes of sets of nodes."""

TOLD_AT = 100
"""Seconds and overlap in results.csv are of circuits of so many edges."""

MOVED = 0.8


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions(PairOptions):
    """What is asked beside the circuits of palscope's own methods."""

    submission: tuple[Path, ...] = option((), "scores of other methods: parquet files", page=False)
    node_sets: bool = option(False, "find the smallest sets of nodes that move the answer")
    wordings: int = option(0, "other wordings of each question, asked too", least=0)


BenchmarkWork = Work[BenchmarkOptions]
BenchmarkResults = Results[BenchmarkOptions, Pair]


@each
def graphs(work: BenchmarkWork, pair: Pair) -> pd.DataFrame:
    """The size of each pair's graph, and how the model answers."""
    return pd.DataFrame([asked_of(work, pair).told()])


@each
def scored(work: BenchmarkWork, pair: Pair) -> pd.DataFrame:
    """Every edge's scores of one pair that counts."""
    halves_of(work.whole("graphs"), pair)
    asked = asked_of(work, pair)
    others = {
        file.stem: submitted(file, pair.name, asked.graph.n_edges)
        for file in work.options.submission
    }
    return asked.scores(STEPS).assign(**others)


@each
def run_circuits(work: BenchmarkWork, pair: Pair) -> pd.DataFrame:
    """Circuits that the other half of the pairs chose, run on a pair."""
    own, others = halves_of(work.whole("graphs"), pair)
    asked = asked_of(work, pair)
    runs = asked.runs()
    mine, theirs = largest(work.rows, own), largest(work.rows, others)
    rows: list[dict[str, Any]] = []
    for method, size in itertools.product(theirs, EDGES):
        chosen = theirs[method][:size]
        row: dict[str, Any] = {"method": method, "edges": size, **asked.found(chosen)}
        row["faithful"] = _faithful(runs, chosen)
        rows.append({**row, "overlap": overlap(chosen, mine[method][:size])})
    return pd.DataFrame(rows).assign(kind=pair.kind)


@each
def node_sets(work: BenchmarkWork, pair: Pair) -> pd.DataFrame:
    """How much heads and networks that the other half chose move together, up to 80 %.

    A node's score is the sum of its edges': to first order, what exchanging its output does.
    """
    _, others = halves_of(work.whole("graphs"), pair)
    asked = asked_of(work, pair)
    runs = asked.runs()
    rows: list[dict[str, Any]] = []
    for method, scores in mean_scores(work.rows, others).items():
        order = inner_nodes(asked.graph, scores)
        for size in NODES:
            moved = moved_by(runs, order[:size])
            rows.append({"method": method, "nodes": size, "moved": moved})
            if moved >= MOVED:
                break
    return pd.DataFrame(rows).assign(kind=pair.kind)


@each
def wordings(work: BenchmarkWork, pair: Pair) -> pd.DataFrame:
    """Circuits that the other half chose, run on the pair with its question in other words.

    `overlap` is of EAP's largest edges of this pair with both wordings.
    """
    _, others = halves_of(work.whole("graphs"), pair)
    theirs = largest(work.rows, others)
    own = ranked(work.rows("scores", pair.name)["EAP"].to_numpy())
    rows: list[dict[str, Any]] = []
    for question in other_wordings(pair, work.options.wordings):
        asked = asked_of(work, replace(pair, question=question))
        again, runs = ranked(eap(**asked.given)), asked.runs()
        for method, size in itertools.product(theirs, EDGES):
            row: dict[str, Any] = {"question": question, "method": method, "edges": size}
            row["faithful"] = _faithful(runs, theirs[method][:size])
            rows.append({**row, "overlap": overlap(own[:size], again[:size])})
    return pd.DataFrame(rows).assign(kind=pair.kind)


@lru_cache(maxsize=2)
def largest(
    rows: Callable[[str, str], pd.DataFrame], names: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """The edges that each method holds largest over some pairs, as many as are asked for."""
    return {
        method: ranked(scores)[: max(EDGES)] for method, scores in mean_scores(rows, names).items()
    }


def asked_of(work: BenchmarkWork, pair: Pair) -> Asked:
    """A pair's parts are its segments; where all of it differs, as in a phrase's notes, it is one.

    So pairs of a kind have one graph.
    """
    whole = all(each.differs for each in pair.segments)
    return Asked.of(work.model, pair, pair.seconds if whole else None)


def _faithful(runs: CircuitRuns, edges: np.ndarray) -> float:
    return runs.faithfulness(circuit_of(runs.graph, edges))


def moved_by(runs: CircuitRuns, nodes: np.ndarray) -> float:
    """The share of the way to the corrupt run that exchanging these nodes' outputs goes."""
    return 1 - _faithful(runs, np.flatnonzero(~np.isin(runs.graph.sources, nodes)))


def inner_nodes(graph: Graph, scores: np.ndarray) -> np.ndarray:
    """Heads and networks, those first whose edges' scores have the largest sum."""
    sums = np.bincount(graph.sources, scores, len(graph.nodes))
    inner = [n for n, node in enumerate(graph.nodes) if node.kind in ("head", "cross_head", "mlp")]
    return np.array(inner)[ranked(sums[inner])]


def other_wordings(pair: Pair, count: int) -> list[str]:
    """Of the training's wordings, the first ones after the pair's.

    Raises:
        PalscopeError: the question has none that are known.
    """
    for templates in questions.TRAIN.values():
        for ordinal in ("", *questions.ORDINALS):
            known = [each.format(ordinal=ordinal) for each in templates if "{options}" not in each]
            if pair.question in known:
                known.remove(pair.question)
                return known[:count]
    raise PalscopeError(
        f"{pair.name} asks {pair.question!r}, of which no other wordings are known; leave "
        "--wordings out."
    )


# -- over pairs -----------------------------------------------------------------------------------


def faithful(results: BenchmarkResults) -> pd.DataFrame:
    """Mean faithfulness over pairs, by task, method and size."""
    tables = (rows for _, rows in results.each("circuits"))
    by = ["kind", "method", "edges"]
    return mean_band(tables, by, value="faithful", limits=(None, None))


def results_table(results: BenchmarkResults) -> pd.DataFrame:
    """A row a task and method: what a leaderboard shows."""
    told = pd.concat([rows() for rows in results.stored["graphs"].values()])  # left out ones, too
    return pd.DataFrame(list(_result_rows(results.rows("circuits"), told)))


def _result_rows(table: Any, told: Any) -> Iterator[dict[str, Any]]:
    for (kind, method), mine in table.groupby(["kind", "method"], sort=False):
        of_pair = mine.groupby("pair", sort=False)["faithful"].mean()
        curve = mine.groupby("edges")["faithful"].mean()
        at = mine[mine["edges"] == TOLD_AT]
        yield {
            "kind": kind,
            "method": method,
            "answered": int(answered(told[told["kind"] == kind]).sum()),
            "pairs": int((told["kind"] == kind).sum()),
            **mean_row(of_pair, "score"),
            "edges_80": next((size for size, each in curve.items() if each >= MOVED), np.nan),
            "iou": at["iou"].mean(),
            "overlap": at["overlap"].mean(),
        }


def smallest_sets(results: BenchmarkResults) -> pd.DataFrame:
    """The smallest sets of nodes that move 80 % of what all of the sound moves."""
    table: Any = results.rows("nodes")
    rows: list[dict[str, Any]] = []
    for (kind, method), mine in table.groupby(["kind", "method"], sort=False):
        last = mine.groupby("pair", sort=False).last()
        sizes = last["nodes"].where(last["moved"] >= MOVED, np.inf)
        row = {"kind": kind, "method": method, "n": len(sizes), "median_nodes": sizes.median()}
        rows.append({**row, "found": float((last["moved"] >= MOVED).mean())})
    return pd.DataFrame(rows)


def of_wordings(results: BenchmarkResults) -> pd.DataFrame:
    """Mean faithfulness with other wordings, and what edges these share."""
    by = ["kind", "method", "edges"]
    every = [rows for _, rows in results.each("wordings")]
    found = mean_band(every, by, value="faithful", limits=(None, None))
    more: Any = pd.concat(every).groupby(by, sort=False)["overlap"].mean()
    return found.merge(more.reset_index(), on=by)


def summaries(results: BenchmarkResults) -> dict[str, pd.DataFrame]:
    """Small tables beside the figures."""
    found = {
        "results": results.derived(results_table),
        "faithfulness": results.derived(faithful),
    }
    if results.options.node_sets:
        found["node_sets"] = results.derived(smallest_sets)
    return found | ({"reworded": of_wordings(results)} if results.options.wordings else {})


def drawn(results: BenchmarkResults) -> dict[str, Any]:
    """Faithfulness by the number of edges, a panel a task."""
    table: Any = results.derived(faithful)
    caption = results.caption(int(table["n"].max()))
    return {"faithfulness_by_edges": figures.faithfulness_by_edges(table, caption=caption)}


def notes(results: BenchmarkResults) -> list[str]:
    """A line a task and method."""
    return [
        f"{row['kind']} ({row['answered']} of {row['pairs']} pairs answered), {row['method']}: "
        f"score {row['score']:.2f} {shown(row, '.2f')}, 80 % with {row['edges_80']:g} edges"
        for row in results.derived(results_table).to_dict("records")
    ]


ANALYSIS = Analysis(
    name="ear2word",
    title="ear2word",
    about="A benchmark: how well do scores of edges find the way from seconds of sound to a word?",
    options=BenchmarkOptions,
    items=chosen_pairs,
    tables=[
        Table("graphs", graphs, ()),
        Table("scores", scored, ("edge",)),
        Table("circuits", run_circuits, ("method", "edges")),
        Table("nodes", node_sets, ("method", "nodes"), lambda options: options.node_sets),
        Table("wordings", wordings, ("question", "method", "edges"), lambda o: o.wordings > 0),
    ],
    summaries=summaries,
    figures=drawn,
    notes=notes,
    item="pair",
    takes=None,  # one pair by itself has nothing to be held out
)

if __name__ == "__main__":
    raise SystemExit(main(ANALYSIS, __doc__))
