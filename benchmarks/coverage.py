"""How often 95 % intervals cover the truth, by method and number of clips: docs/statistics.md.

    python benchmarks/coverage.py
    python benchmarks/coverage.py --knockout runs/knockout/knockout.parquet

Means are of made-up clips and, with --knockout, of the effects that a run of
`analyses/attention_knockout.py` measured: each cut's values are a population, from which clips are
drawn again and again. The seed is fixed. "hull" is palscope's interval, also at numbers of clips of
which it gives none; percentile, BCa and t are for comparison.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from palscope._statistics import (
    FEWEST,
    auroc_interval,
    change_interval,
    ratio_interval,
    share_interval,
    wilson,
)
from palscope._statistics.intervals import _ends as hull

CLIPS = (3, 5, 8, 12, 20, 40)
SAMPLES = 1000
RESAMPLES = 500
BCA_SAMPLES = 100

Draw = Callable[[np.random.Generator, int], np.ndarray]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--knockout", type=Path, help="knockout.parquet of a run on many pairs")
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # BCa says so where it is not defined
    rows = [row for name, (draw, truth) in made_up().items() for row in means(name, draw, truth)]
    if given.knockout:
        rows += measured(given.knockout)
    for table in (rows, [*ratios(), *shares(), *areas()]):
        print(pd.DataFrame(table).to_string(index=False, float_format="%.2f"), flush=True)


def made_up() -> dict[str, tuple[Draw, float]]:
    """Populations of clips' values, with their means."""
    return {
        "normal": (lambda rng, n: rng.normal(size=(SAMPLES, n)), 0.0),
        "t, 3 degrees": (lambda rng, n: rng.standard_t(3, size=(SAMPLES, n)), 0.0),
        "exponential": (lambda rng, n: rng.exponential(size=(SAMPLES, n)), 1.0),
        "log-normal": (lambda rng, n: rng.lognormal(size=(SAMPLES, n)), float(np.exp(0.5))),
        "one in five": (
            lambda rng, n: (rng.random((SAMPLES, n)) < 0.2) * rng.normal(3, 0.5, (SAMPLES, n)),
            0.6,
        ),
    }


def means(name: str, draw: Draw, truth: float) -> list[dict[str, Any]]:
    """Coverage of a population's mean by each method, a row a method."""
    found: dict[str, dict[str, Any]] = {}
    for n in CLIPS:
        values = draw(np.random.default_rng(0), n)
        for method, ends in methods(values).items():
            row = found.setdefault(method, {"values": name, "method": method})
            row[f"n {n}"] = covered(*ends, truth)
    return list(found.values())


def methods(values: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The ends of each method's intervals, a pair a sample."""
    n = values.shape[1]
    mean, error = values.mean(1), values.std(1, ddof=1) / np.sqrt(n)
    half = stats.t.ppf(0.975, n - 1) * error
    drawn = values[:, np.random.default_rng(1).integers(n, size=(RESAMPLES, n))].mean(-1)
    percentile = np.quantile(drawn, [0.025, 0.975], axis=1)
    bca = np.array([bca_interval(sample) for sample in values[:BCA_SAMPLES]]).T
    return {
        "percentile": (percentile[0], percentile[1]),
        "BCa": (bca[0], bca[1]),
        "t": (mean - half, mean + half),
        "hull": hull(values, np.full(len(values), n), 0.95),
    }


def bca_interval(sample: np.ndarray) -> tuple[float, float]:
    """SciPy's BCa interval of a mean."""
    if np.ptp(sample) == 0:
        return float(sample[0]), float(sample[0])
    found = stats.bootstrap((sample,), np.mean, n_resamples=RESAMPLES, method="BCa", rng=0)
    return found.confidence_interval


def covered(low: np.ndarray, high: np.ndarray, truth: float) -> float:
    """The share of the intervals that there are which hold the truth."""
    known = ~np.isnan(low)
    return float(((low <= truth) & (truth <= high))[known].mean()) if known.any() else float("nan")


def measured(path: Path) -> list[dict[str, Any]]:
    """Means of the demo's own effects: the median over all cuts, and the worst covered one."""
    table: Any = pd.read_parquet(path)
    cuts = table[(table["run"] == "cut") & table["segment"].isna()]
    by = ["queries", "pathway", "first_layer", "last_layer"]
    every = [
        pd.DataFrame(means("", resampled(values), values.mean()))
        for _, group in cuts.groupby(by)
        if np.ptp(values := group["logprob_change"].to_numpy(float)) > 0 and len(values) >= 15
    ]
    whole = pd.concat(every)
    columns = [f"n {n}" for n in CLIPS]
    rows: list[dict[str, Any]] = []
    for what in ("median", "min"):
        part = whole.groupby("method", sort=False)[columns].agg(what).reset_index()
        named = part.assign(values=f"knockout effects, {what} of {len(every)} cuts")
        rows += named.to_dict("records")
    return rows


def resampled(values: np.ndarray) -> Draw:
    """Draws of clips from a population of values."""
    return lambda rng, n: rng.choice(values, size=(SAMPLES // 4, n))


def ratios() -> list[dict[str, Any]]:
    """Coverage of ratios of means, among those that have an interval."""
    rng = np.random.default_rng(0)
    populations = {
        "ratio, even spans": (lambda: rng.normal(3, 1, FEWEST), lambda b: 0.6 * b + noise(), 0.6),
        "ratio, log-normal spans": (
            lambda: rng.lognormal(size=FEWEST),
            lambda b: 0.6 * b + noise(),
            0.6,
        ),
        "ratio, span near nothing": (
            lambda: rng.normal(1, 1.5, FEWEST),
            lambda b: 0.6 * b + noise(),
            0.6,
        ),
        "ratio, log-normal effects": (
            lambda: rng.normal(5, 1, FEWEST),
            lambda b: 0.3 * b + rng.lognormal(size=FEWEST),
            0.3 + np.exp(0.5) / 5,
        ),
    }

    def noise() -> np.ndarray:
        return rng.normal(0, 0.5, FEWEST)

    rows: list[dict[str, Any]] = []
    for name, (bottoms, tops, truth) in populations.items():
        ends = []
        for _ in range(SAMPLES):
            bottom = bottoms()
            ends.append(ratio_interval(tops(bottom), bottom))
        low, high = np.array(ends).T
        rows.append(
            {"what": name, "clips": FEWEST, "covered": covered(low, high, truth)}
            | {"given": float((~np.isnan(low)).mean())}
        )
    return rows


def shares() -> list[dict[str, Any]]:
    """Coverage of shares: of all true shares on average, of the worst, of several questions."""
    rows: list[dict[str, Any]] = []
    for n in (4, 8, 20):
        true = np.linspace(0.005, 0.995, 199)
        ends = np.array([wilson(got, n) for got in range(n + 1)])
        chance = stats.binom.pmf(np.arange(n + 1)[:, None], n, true)
        held = (ends[:, :1] <= true) & (true <= ends[:, 1:])
        by_share = (chance * held).sum(0)
        for what, value in (("mean", by_share.mean()), ("least", by_share.min())):
            rows.append({"what": f"share, {what} over shares", "clips": n, "covered": value})
    rng = np.random.default_rng(0)
    for n in (8, 20):
        hits, moved = [], []
        for _ in range(SAMPLES):
            of = rng.integers(1, 7, size=n)
            low, high = share_interval(rng.binomial(of, rng.beta(0.8, 0.2, size=n)), of)
            hits.append(low <= 0.8 <= high)
            low, high = change_interval(rng.choice([-1, 0, 1], p=[0.3, 0.6, 0.1], size=n))
            moved.append(low <= -0.2 <= high)
        for what, each in (("several questions a clip", hits), ("paired change", moved)):
            rows.append({"what": f"share, {what}", "clips": n, "covered": float(np.mean(each))})
    return rows


def areas() -> list[dict[str, Any]]:
    """Coverage of areas under ROC curves: of a label that few of 150 clips have, by its area."""
    rows: list[dict[str, Any]] = []
    rng = np.random.default_rng(0)
    for area in (0.75, 0.9, 0.97):
        apart = stats.norm.ppf(area) * np.sqrt(2)
        for n in (5, 8, 20):
            listed, hits, others = np.arange(150 + n) < n, [], []
            for _ in range(SAMPLES):
                score = rng.normal(size=150 + n) + apart * listed
                low, high = auroc_interval(score, listed, [""] * len(score))
                hits.append(low <= area <= high)
                low, high = _bootstrapped(score[listed], score[~listed], rng)
                others.append(low <= area <= high)
            for what, each in (("", hits), (", percentile", others)):
                covered = float(np.mean(each))
                rows.append({"what": f"area {area}{what}", "clips": n, "covered": covered})
    return rows


def _bootstrapped(
    mine: np.ndarray, rest: np.ndarray, rng: np.random.Generator
) -> tuple[float, float]:
    above = mine[:, None] > rest
    weights = [rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) for n in above.shape]
    low, high = np.quantile(((weights[0] @ above) * weights[1]).sum(1) / above.size, (0.025, 0.975))
    return float(low), float(high)


if __name__ == "__main__":
    main()
