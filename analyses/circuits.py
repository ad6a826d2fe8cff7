"""Circuits: by which edges does a second of sound reach the word, and how faithful are they?

    python analyses/circuits.py --model demo/pal --kind first_digit --n 20 --out runs/circuits
    python analyses/circuits.py --model demo/lal --audio MANIFEST.csv --split validation \
        --kind first_digit last_digit --n 40 --exact 200 --out runs/circuits

The graph of a run (sound by stretch of seconds and stream, text, heads, feed-forward networks, the
answer, each at a group of positions) follows from route and layout. Every edge of it is scored on
each pair: EAP-IG, EAP, and beside them what knows less (gradient times input, attention mass,
random). The pairs of a kind are two halves. Each half chooses circuits, by the mean of its scores;
they are run on the pairs of the other half, with all other edges from the corrupt clip.
Faithfulness is the share of the way from the corrupt to the clean run that a circuit goes; CPR
(more is better) and CMD (less is) are its areas as the benchmark MIB has them. Stretches of sound
are the pair's segments.

Writes scores.parquet (every edge of every pair), circuits.parquet (a row a pair, method, order and
size), exact.parquet (--exact: exact effects of edges among the 1 % that either method
holds largest), edges.parquet (the largest edges by name), faithfulness.csv, areas.csv,
agreement.csv, strongest.csv, figures (HTML, PNG, SVG, and their numbers as CSV) and run.json. A run
that was stopped goes on with --resume.

Sources: Hanna et al. 2024 (arXiv 2403.17806), Syed et al. 2023 (arXiv 2310.10348), Mueller et al.
2025 (arXiv 2504.13151).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from palscope._circuits.baselines import (
    attention_mass_of_edges,
    gradient_times_input,
    random_scores,
)
from palscope._circuits.build import pair_graph
from palscope._circuits.exact import exact_effects
from palscope._circuits.gradients import eap, eap_ig
from palscope._circuits.graph import Graph
from palscope._circuits.metrics import SIZES, cmd, cpr, faithfulness, seconds_iou
from palscope._circuits.observed import observe
from palscope._circuits.runs import CircuitRuns
from palscope._circuits.selection import circuit_of, counts, leading_to_answer, ranked
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
from palscope.errors import PalscopeError
from palscope.measures import mean_band
from palscope.measures._metrics import Answers
from palscope.pairs import Pair
from palscope.plots import _circuits as figures

Method = Literal["EAP-IG", "EAP", "gradient-input", "attention", "random"]
METHODS: tuple[Method, ...] = get_args(Method)
LARGEST = 30
"""So many edges of each half are named."""


@dataclass(frozen=True, kw_only=True)
class CircuitOptions(PairOptions):
    """How edges are scored."""

    methods: tuple[Method, ...] = option(METHODS, "whose circuits are run")
    steps: int = option(5, "of the line between the runs, in EAP-IG", least=1)
    stretch: float | None = option(
        None, "equal stretches of sound, not the pair's segments", unit="s"
    )
    exact: int = option(0, "of the largest, held against their exact effect", unit="edges", least=0)


CircuitWork = Work[CircuitOptions]
CircuitResults = Results[CircuitOptions, Pair]


@each
def graphs(work: CircuitWork, pair: Pair) -> pd.DataFrame:
    """The size of each pair's graph, before anything of it runs."""
    graph = pair_graph(work.model, pair, seconds=work.options.stretch)
    row = {"kind": pair.kind, "shape": graph.shape, "nodes": len(graph.nodes)}
    return pd.DataFrame([{**row, "edges": graph.n_edges}])


@each
def scored(work: CircuitWork, pair: Pair) -> pd.DataFrame:
    """Every edge's scores of one pair."""
    model, options = work.model, work.options
    graph, given, answers = _prompts(work, pair)
    run = observe(model, answers.behind(given[0]), graph, answers, gradients=True)
    scores = {
        "EAP-IG": eap_ig(model, *given, graph, answers=answers, steps=options.steps),
        "EAP": eap(model, *given, graph, answers=answers),
        "gradient-input": -gradient_times_input(model, graph, run),  # as if it were taken away
        "attention": -attention_mass_of_edges(model, graph, run),
    }
    columns = {name: each.astype(np.float32) for name, each in scores.items()}
    return pd.DataFrame({"edge": np.arange(graph.n_edges, dtype=np.int32), **columns})


@each
def exactly(work: CircuitWork, pair: Pair) -> pd.DataFrame:
    """Exact effects of some edges, drawn from the 1 % that EAP-IG or EAP holds largest."""
    graph, given, answers = _prompts(work, pair)
    scores = work.rows("scores", pair.name)
    largest = [ranked(_of(scores, name))[: graph.n_edges // 100] for name in METHODS[:2]]
    drawn = np.random.default_rng(work.options.seed).permutation(np.union1d(*largest))
    edges: list[int] = sorted(drawn[: work.options.exact].tolist())
    found = exact_effects(work.model, *given, graph, answers=answers, edges=edges)
    named = scores.iloc[edges].drop(columns="edge").reset_index(drop=True)
    exact = {"edge": edges, "exact": found.total[edges], "direct": found.direct[edges]}
    return pd.DataFrame(exact).join(named).assign(kind=pair.kind)


@each
def run_circuits(work: CircuitWork, pair: Pair) -> pd.DataFrame:
    """Circuits that the other half of the pairs chose, run on a pair."""
    graph, given, answers = _prompts(work, pair)
    source, target, _ = graph.ends()
    own, others = (_means(work, half, graph) for half in _halves(work, pair))
    runs = CircuitRuns(work.model, *given, graph, answers=answers)
    rows: list[dict[str, Any]] = []
    for method, order in itertools.product(work.options.methods, ("absolute", "signed")):
        first, second = (ranked(each[method], signed=order == "signed") for each in (others, own))
        for share, count in zip(SIZES, counts(graph), strict=True):
            circuit = circuit_of(graph, first[:count])
            metric = runs.metric(circuit)
            inside = leading_to_answer(graph, circuit).numpy()
            ends = np.union1d(source[inside], target[inside])
            row = {"method": method, "order": order, "share": share, "metric": metric}
            row |= {"faithful": faithfulness(metric, runs.nothing, runs.everything)}
            row |= {"edges": count, "nodes": len(ends), "iou": _iou(graph, ends, pair)}
            both = np.intersect1d(first[:count], second[:count])
            rows.append({**row, "overlap": len(both) / (2 * count - len(both))})
    return pd.DataFrame(rows).assign(kind=pair.kind)


@each
def strongest(work: CircuitWork, pair: Pair) -> pd.DataFrame:
    """A pair's scores of the edges that either half holds largest by EAP-IG."""
    graph = pair_graph(work.model, pair, seconds=work.options.stretch)
    halves = [_means(work, half, graph)["EAP-IG"] for half in _halves(work, pair)]
    edges = np.union1d(*(ranked(each)[:LARGEST] for each in halves))
    own = _of(work.rows("scores", pair.name), "EAP-IG")
    return graph.named(edges).assign(score=own[edges], kind=pair.kind)


def _prompts(
    work: CircuitWork, pair: Pair
) -> tuple[Graph, tuple[Mapping[str, Any], Mapping[str, Any]], Answers]:
    model = work.model
    answers = Answers.of(model.processor, pair.clean_answer, pair.corrupt_answer)
    clean, corrupt = (model.inputs(pair.question, clip) for clip in (pair.clean, pair.corrupt))
    return pair_graph(model, pair, seconds=work.options.stretch), (clean, corrupt), answers


def _halves(work: CircuitWork, pair: Pair) -> tuple[list[str], list[str]]:
    """The pairs of this one's kind whose graph is the same: its half of them, and the other one.

    Raises:
        PalscopeError: there is no other, so that nothing could be held out.
    """
    every: Any = work.whole("graphs")
    mine = every[every["pair"] == pair.name].iloc[0]
    alike = every[(every["kind"] == mine["kind"]) & (every["shape"] == mine["shape"])]
    names: list[str] = alike["pair"].tolist()
    if len(names) < 2:
        raise PalscopeError(
            f"no other pair of the kind {pair.kind!r} has the graph of {pair.name} (as many parts "
            "of sound), so no circuit can be held out; give more pairs, or equal --stretch."
        )
    first = names.index(pair.name) % 2
    return names[first::2], names[1 - first :: 2]


def _means(work: CircuitWork, names: list[str], graph: Graph) -> dict[str, np.ndarray]:
    """Each method's mean scores over some pairs."""
    tables = [work.rows("scores", name) for name in names]
    found = {name: np.mean([_of(each, name) for each in tables], 0) for name in METHODS[:-1]}
    return found | {"random": random_scores(graph, work.options.seed)}


def _of(scores: pd.DataFrame, method: str) -> np.ndarray:
    return scores[method].to_numpy(dtype=np.float64)


def _iou(graph: Graph, nodes: np.ndarray, pair: Pair) -> float:
    """Seconds of sound in a circuit, against those in which the pair's clips differ."""
    groups = [graph.groups[graph.nodes[n].group] for n in nodes if graph.nodes[n].kind == "sound"]
    found = [(each.start_s, each.end_s) for each in groups if each.start_s == each.start_s]
    return seconds_iou(found, [(each.start, each.end) for each in pair.segments if each.differs])


# -- over pairs -----------------------------------------------------------------------------------


def faithful(results: CircuitResults) -> pd.DataFrame:
    """Mean faithfulness and seconds found over pairs, by kind, method, order and size."""
    table: Any = results.rows("circuits")
    by = ["kind", "method", "order", "share"]
    tables = [rows for _, rows in results.each("circuits")]
    found = mean_band(tables, by, value="faithful", limits=(None, None))
    more: Any = table.groupby(by, sort=False)[["edges", "nodes", "iou", "overlap"]].mean()
    return found.merge(more.reset_index(), on=by)


def areas(results: CircuitResults) -> pd.DataFrame:
    """CPR and CMD of each method, and how few edges give 80 %."""
    table: Any = results.rows("circuits")
    rows: list[dict[str, Any]] = []
    for (kind, method), mine in table.groupby(["kind", "method"], sort=False):
        row: dict[str, Any] = {"kind": kind, "method": method}
        for name, order, area in (("cpr", "signed", cpr), ("cmd", "absolute", cmd)):
            of = mine[mine["order"] == order]
            values = [area(each["faithful"].tolist()) for _, each in of.groupby("pair")]
            told = mean_row(values, name)
            row |= {name: told.pop(name)} | {f"{name}_{key}": each for key, each in told.items()}
        curve = mine[mine["order"] == "absolute"].groupby("share")["faithful"].mean()
        row["share_80"] = next((share for share, each in curve.items() if each >= 0.8), np.nan)
        rows.append(row)
    return pd.DataFrame(rows)


def agreement(results: CircuitResults) -> pd.DataFrame:
    """Rank correlation of estimates with exact effects, over the edges of each pair."""
    table: Any = results.rows("exact")
    rows: list[dict[str, Any]] = []
    for kind, mine in table.groupby("kind", sort=False):
        for method in METHODS[:-1]:
            pairs = [
                each[method].abs().corr(each["exact"].abs(), method="spearman")
                if method == "attention"
                else each[method].corr(each["exact"], method="spearman")
                for _, each in mine.groupby("pair", sort=False)
            ]
            row = {"kind": kind, "method": method, "edges": len(mine)}
            rows.append({**row, **mean_row(pairs, "spearman", limits=(-1, 1))})
    return pd.DataFrame(rows)


def named_edges(results: CircuitResults) -> pd.DataFrame:
    """The largest edges of each kind, with their mean score over pairs."""
    by = ["kind", "edge", "source", "target", "slot"]
    tables = [rows for _, rows in results.each("edges")]
    found: Any = mean_band(tables, by, value="score", limits=(None, None))
    return found.sort_values("mean", key=abs, ascending=False, kind="stable")


def summaries(results: CircuitResults) -> dict[str, pd.DataFrame]:
    """Small tables beside the figures."""
    found = {
        "faithfulness": results.derived(faithful),
        "areas": results.derived(areas),
        "strongest": results.derived(named_edges),
    }
    return found | ({"agreement": results.derived(agreement)} if results.options.exact else {})


def drawn(results: CircuitResults) -> dict[str, Any]:
    """Faithfulness by size, of every kind."""
    table: Any = results.derived(faithful)
    found: dict[str, Any] = {}
    for kind, rows in table.groupby("kind", sort=False):
        caption = results.caption(int(rows["n"].max()), only=str(kind))
        found[f"faithfulness_{kind}"] = figures.faithfulness_by_size(rows, caption=caption)
    return found


def notes(results: CircuitResults) -> list[str]:
    """The areas, and what was asked of exact effects."""
    lines = [
        f"{row['kind']}, {row['method']}: CPR {row['cpr']:.3f}, CMD {row['cmd']:.3f}; 80 % of the "
        f"way with {row['share_80']:.1%} of edges"
        for row in results.derived(areas).to_dict("records")
    ]
    if results.options.exact:
        lines += [
            f"{row['kind']}, {row['method']} and exact effects: Spearman {row['spearman']:.2f} "
            f"{shown(row, '.2f')}"
            for row in results.derived(agreement).to_dict("records")
        ]
    return lines


ANALYSIS = Analysis(
    name="circuits",
    title="circuits",
    about="Edges from seconds of sound to the word, scored by gradients; circuits that one half of "
    "the pairs chose are run on the other half.",
    options=CircuitOptions,
    items=chosen_pairs,
    tables=[
        Table("graphs", graphs, ()),
        Table("scores", scored, ("edge",)),
        Table("exact", exactly, ("edge",), lambda options: options.exact > 0),
        Table("circuits", run_circuits, ("method", "order", "share")),
        Table("edges", strongest, ("edge",)),
    ],
    summaries=summaries,
    figures=drawn,
    notes=notes,
    item="pair",
    takes=None,  # one pair by itself has nothing to be held out
)

if __name__ == "__main__":
    raise SystemExit(main(ANALYSIS, __doc__))
