"""Circuits: by which edges does a second of sound reach the word, and how faithful are they?

    python analyses/circuits.py --model demo/pal --kind first_digit --n 20 --out runs/circuits
    python analyses/circuits.py --model demo/lal --audio MANIFEST.csv --split validation \
        --kind first_digit last_digit --n 40 --exact 200 --out runs/circuits

The graph of a run (sound by stretch of seconds and stream, text, heads, feed-forward networks, the
answer, each at a group of positions) follows from route and layout. Every edge of it is scored on
each pair: EAP-IG, EAP, and beside them what knows less (gradient times input, attention mass,
random). The pairs of a kind that the model answers right for both clips are two halves. Each half
chooses circuits, by the mean of its scores; they are run on the pairs of the other half, with all
other edges from the corrupt clip. Faithfulness is the share of the way from the corrupt to the
clean run that a circuit goes; CPR (more is better) and CMD (less is) are its areas as the benchmark
MIB has them. Stretches of sound are the pair's segments.

    python analyses/circuits.py --model demo/pal --kind first_digit --dictionary DICTIONARY \
        --out runs/features

With --dictionary the latents that the pairs' clips fire otherwise are nodes, too, beside what the
dictionary leaves: the edges say what each does, and features.parquet how much of the answer is left
when few of them, all, or only what they leave carry the clean clip.

Writes scores.parquet (every edge of every pair), circuits.parquet (a row a pair, method, order and
size), exact.parquet (--exact: exact effects of edges among the 1 % that either method
holds largest), edges.parquet (the largest edges by name), needs.parquet (--needs: is a circuit
complete, and each of its edges needed), firing.parquet and features.parquet (--dictionary: which
latents fire, and what they carry), faithfulness.csv, areas.csv, agreement.csv, strongest.csv,
completeness.csv, shares.csv, figures (HTML, PNG, SVG, and their numbers as CSV) and run.json. A run
that was stopped goes on with --resume.

Sources: Hanna et al. 2024 (arXiv 2403.17806), Syed et al. 2023 (arXiv 2310.10348), Mueller et al.
2025 (arXiv 2504.13151).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from palscope._circuits.exact import exact_effects
from palscope._circuits.feature_shares import feature_shares
from palscope._circuits.features import FeaturePlace
from palscope._circuits.firing import feature_places, firing
from palscope._circuits.halves import METHODS, Asked, Method, answered, halves_of, mean_scores
from palscope._circuits.metrics import (
    SIZES,
    cmd,
    completeness,
    cpr,
    faithfulness,
    minimality,
    overlap,
)
from palscope._circuits.selection import circuit_of, counts, ranked
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
from palscope.features import Dictionary, load_dictionary
from palscope.measures import mean_band
from palscope.pairs import Pair
from palscope.plots import _circuits as figures

LARGEST = 30
"""So many edges of each half are named."""

TAKEN = 10
"""So many random halves of a circuit are taken out to see whether it is complete."""


@dataclass(frozen=True, kw_only=True)
class CircuitOptions(PairOptions):
    """How edges are scored."""

    methods: tuple[Method, ...] = option(METHODS, "whose circuits are run")
    steps: int = option(5, "of the line between the runs, in EAP-IG", least=1)
    stretch: float | None = option(
        None, "equal stretches of sound, not the pair's segments", unit="s"
    )
    exact: int = option(0, "of the largest, held against their exact effect", unit="edges", least=0)
    needs: int = option(
        0, "of a circuit tested for completeness and minimality", unit="edges", least=0
    )
    dictionary: tuple[Path, ...] = option((), "folders of dictionaries whose latents are nodes")
    features: int = option(
        100, "of each dictionary and stretch that are nodes, by the clips' difference", least=1
    )


CircuitWork = Work[CircuitOptions]
CircuitResults = Results[CircuitOptions, Pair]


@each
def fired(work: CircuitWork, pair: Pair) -> pd.DataFrame:
    """Which latents fire otherwise in each pair's two clips."""
    found = firing(work.model, pair, _dictionaries(work.options), seconds=work.options.stretch)
    return found.assign(kind=pair.kind)


@each
def graphs(work: CircuitWork, pair: Pair) -> pd.DataFrame:
    """The size of each pair's graph, and how the model answers."""
    return pd.DataFrame([_asked(work, pair).told()])


@each
def scored(work: CircuitWork, pair: Pair) -> pd.DataFrame:
    """Every edge's scores of one pair that counts."""
    halves_of(work.whole("graphs"), pair)
    return _asked(work, pair).scores(work.options.steps)


@each
def exactly(work: CircuitWork, pair: Pair) -> pd.DataFrame:
    """Exact effects of some edges, drawn from the 1 % that EAP-IG or EAP holds largest."""
    asked, scores = _asked(work, pair), work.rows("scores", pair.name)
    largest = [ranked(scores[name].to_numpy())[: len(scores) // 100] for name in METHODS[:2]]
    drawn = np.random.default_rng(work.options.seed).permutation(np.union1d(*largest))
    edges: list[int] = sorted(drawn[: work.options.exact].tolist())
    found = exact_effects(**asked.given, edges=edges)
    named = scores.iloc[edges].drop(columns=["pair", "edge"]).reset_index(drop=True)
    exact = {"edge": edges, "exact": found.total[edges], "direct": found.direct[edges]}
    return pd.DataFrame(exact).join(named).assign(kind=pair.kind)


@each
def run_circuits(work: CircuitWork, pair: Pair) -> pd.DataFrame:
    """Circuits that the other half of the pairs chose, run on a pair."""
    own, others = (mean_scores(work.rows, half) for half in halves_of(work.whole("graphs"), pair))
    asked = _asked(work, pair)
    runs = asked.runs()
    rows: list[dict[str, Any]] = []
    for method, order in itertools.product(work.options.methods, ("absolute", "signed")):
        first, second = (ranked(each[method], signed=order == "signed") for each in (others, own))
        for share, count in zip(SIZES, counts(asked.graph), strict=True):
            metric = runs.metric(circuit_of(asked.graph, first[:count]))
            row = {"method": method, "order": order, "share": share, "metric": metric}
            row |= {"faithful": faithfulness(metric, runs.nothing, runs.everything)}
            row |= {"edges": count, **asked.found(first[:count])}
            rows.append({**row, "overlap": overlap(first[:count], second[:count])})
    return pd.DataFrame(rows).assign(kind=pair.kind)


@each
def needed(work: CircuitWork, pair: Pair) -> pd.DataFrame:
    """Is a circuit that the other half chose complete, and what is each of its edges needed for?

    `change` is in nats: of a `part` "circuit" how far it is at most from doing as the model does
    when a random half of its edges is taken from both; of an edge, what taking it from the circuit
    changes at most, alone or after a random half of the others.
    """
    _, others = halves_of(work.whole("graphs"), pair)
    asked = _asked(work, pair)
    runs, graph = asked.runs(), asked.graph
    edges = ranked(mean_scores(work.rows, others)["EAP-IG"])[: work.options.needs]
    rng = np.random.default_rng(work.options.seed)
    halves = [frozenset(rng.permutation(edges)[::2].tolist()) for _ in range(TAKEN)]
    circuit, whole = frozenset[int](edges.tolist()), frozenset(range(graph.n_edges))

    def value(of: frozenset[int]) -> float:
        return runs.metric(circuit_of(graph, np.fromiter(of, np.int64))) if of else runs.nothing

    single = minimality(value, circuit, lambda edge: [halves[0] - {edge}])
    named = graph.named(np.array(list(single))).assign(part="edge", change=single.values())
    missing = {"part": "circuit", "edge": -1, "change": completeness(value, circuit, whole, halves)}
    way = {"way": runs.everything - runs.nothing, "kind": pair.kind}
    return pd.concat([pd.DataFrame([missing]), named], ignore_index=True).assign(**way)


@each
def strongest(work: CircuitWork, pair: Pair) -> pd.DataFrame:
    """A pair's scores of the edges that either half holds largest by EAP-IG."""
    halves = halves_of(work.whole("graphs"), pair)
    means = [mean_scores(work.rows, half)["EAP-IG"] for half in halves]
    edges = np.union1d(*(ranked(each)[:LARGEST] for each in means))
    own = work.rows("scores", pair.name)["EAP-IG"].to_numpy()
    graph = _asked(work, pair).graph
    return graph.named(edges).assign(score=own[edges], kind=pair.kind)


@each
def carried(work: CircuitWork, pair: Pair) -> pd.DataFrame:
    """What few features carry, chosen by this pair's scores, and by the other half's."""
    _, others = halves_of(work.whole("graphs"), pair)
    choosers = {
        "this pair": work.rows("scores", pair.name)["EAP-IG"].to_numpy(dtype=np.float64),
        "the other half": mean_scores(work.rows, others)["EAP-IG"],
    }
    runs = _asked(work, pair).runs()
    found = [
        feature_shares(runs, scores).assign(chosen_by=name) for name, scores in choosers.items()
    ]
    return pd.concat(found, ignore_index=True).assign(kind=pair.kind)


def _asked(work: CircuitWork, pair: Pair) -> Asked:
    """A pair, whose graph has the nodes of all of its kind."""
    options = work.options
    places: tuple[FeaturePlace, ...] = ()
    if options.dictionary:
        table: Any = work.whole("firing")
        mine = table[table["kind"] == pair.kind]
        dictionaries = _dictionaries(options)
        places = feature_places(work.model, dictionaries, mine, most=options.features)
    return Asked.of(work.model, pair, options.stretch, places)


def _dictionaries(options: CircuitOptions) -> tuple[Dictionary, ...]:
    return tuple(map(_loaded, options.dictionary))


@lru_cache(maxsize=32)
def _loaded(folder: Path) -> Dictionary:
    return load_dictionary(folder)


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


def complete(results: CircuitResults) -> pd.DataFrame:
    """How incomplete circuits are, and how many of their edges are needed for 1 % of the way."""
    rows: list[dict[str, Any]] = []
    table: Any = results.rows("needs")
    for kind, mine in table.assign(share=table["change"] / table["way"].abs()).groupby("kind"):
        whole, edges = (mine[mine["part"] == part] for part in ("circuit", "edge"))
        needed_edges = (edges["share"] >= 0.01).groupby(edges["pair"]).mean()
        row = {"kind": kind, **mean_row(whole["share"].to_numpy(), "missing", limits=(0, None))}
        rows.append({**row, "needed": float(needed_edges.mean())})
    return pd.DataFrame(rows)


def named_edges(results: CircuitResults) -> pd.DataFrame:
    """The largest edges of each kind, with their mean score over pairs."""
    by = ["kind", "edge", "source", "target", "slot"]
    tables = [rows for _, rows in results.each("edges")]
    found: Any = mean_band(tables, by, value="score", limits=(None, None))
    return found.sort_values("mean", key=abs, ascending=False, kind="stable")


def shares(results: CircuitResults) -> pd.DataFrame:
    """The mean share over pairs that passes by features, by what of a place carries the clean clip.

    Of kind, place, who chose and how many features; `carries` is "alone", "with_rest" or "without".
    """
    by = ["kind", "hook_point", "chosen_by", "carries", "features", "all_of_them"]
    ways = ["alone", "with_rest", "without"]
    tables = [
        rows.melt([name for name in by if name != "carries"], ways, "carries", "share")
        for _, rows in results.each("features")
    ]
    return mean_band(tables, by, value="share", limits=(None, None))


def summaries(results: CircuitResults) -> dict[str, pd.DataFrame]:
    """Small tables beside the figures."""
    found = {
        "faithfulness": results.derived(faithful),
        "areas": results.derived(areas),
        "strongest": results.derived(named_edges),
    }
    if results.options.needs:
        found["completeness"] = results.derived(complete)
    if results.options.dictionary:
        found["shares"] = results.derived(shares)
    return found | ({"agreement": results.derived(agreement)} if results.options.exact else {})


def drawn(results: CircuitResults) -> dict[str, Any]:
    """Faithfulness by size, and what features carry, of every kind."""
    table: Any = results.derived(faithful)
    found: dict[str, Any] = {}
    for kind, rows in table.groupby("kind", sort=False):
        caption = results.caption(int(rows["n"].max()), only=str(kind))
        found[f"faithfulness_{kind}"] = figures.faithfulness_by_size(rows, caption=caption)
    if results.options.dictionary:
        carry: Any = results.derived(shares)
        for kind, rows in carry.groupby("kind", sort=False):
            caption = results.caption(int(rows["n"].max()), only=str(kind))
            found[f"features_{kind}"] = figures.carried_by_features(rows, caption=caption)
    return found


def notes(results: CircuitResults) -> list[str]:
    """How many pairs are answered, the areas, and what was asked of exact effects."""
    told = pd.concat([rows() for rows in results.stored["graphs"].values()])  # left out ones, too
    lines = [f"{answered(told).sum()} of {len(told)} pair(s) are answered right for both clips"]
    lines += [
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


def _with_features(options: CircuitOptions) -> bool:
    return bool(options.dictionary)


ANALYSIS = Analysis(
    name="circuits",
    title="circuits",
    about="Edges from seconds of sound to the word, scored by gradients; circuits that one half of "
    "the pairs chose are run on the other half.",
    options=CircuitOptions,
    items=chosen_pairs,
    tables=[
        Table("firing", fired, ("hook_point", "group", "latent"), _with_features),
        Table("graphs", graphs, ()),
        Table("scores", scored, ("edge",)),
        Table("exact", exactly, ("edge",), lambda options: options.exact > 0),
        Table("circuits", run_circuits, ("method", "order", "share")),
        Table("edges", strongest, ("edge",)),
        Table("needs", needed, ("part", "edge"), lambda options: options.needs > 0),
        Table("features", carried, ("hook_point", "chosen_by", "features"), _with_features),
    ],
    summaries=summaries,
    figures=drawn,
    notes=notes,
    item="pair",
    takes=None,  # one pair by itself has nothing to be held out
)

if __name__ == "__main__":
    raise SystemExit(main(ANALYSIS, __doc__))
