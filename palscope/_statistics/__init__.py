"""Intervals and tests: the one place that says how sure a number is.

Which interval is given for what, and from how many clips on, was decided by simulation
(`benchmarks/coverage.py`; table in `docs/statistics.md`): one is given only where it covers the
truth in 92 % of samples or more. Where it does not, the values themselves are shown (`Values`).
"""

from palscope._statistics.correlation import correlation_interval
from palscope._statistics.intervals import (
    CLUSTERS,
    FEWEST,
    NO_INTERVAL,
    Interval,
    difference_of,
    mean_interval,
    mean_intervals,
    ratio,
    ratio_interval,
)
from palscope._statistics.peaks import peak_interval
from palscope._statistics.resampling import (
    auroc,
    auroc_interval,
    aurocs,
    aurocs_of_labels,
    resampled,
)
from palscope._statistics.scores import difference_of_scores, score_of
from palscope._statistics.shares import change_interval, share_interval, wilson
from palscope._statistics.significance import false_discovery, least_p, paired_p
from palscope._statistics.tables import (
    Values,
    interval_columns,
    mean_band,
    mean_row,
    shown,
    storable,
)

__all__ = [
    "CLUSTERS",
    "FEWEST",
    "NO_INTERVAL",
    "Interval",
    "Values",
    "auroc",
    "auroc_interval",
    "aurocs",
    "aurocs_of_labels",
    "change_interval",
    "correlation_interval",
    "difference_of",
    "difference_of_scores",
    "false_discovery",
    "interval_columns",
    "least_p",
    "mean_band",
    "mean_interval",
    "mean_intervals",
    "mean_row",
    "paired_p",
    "peak_interval",
    "ratio",
    "ratio_interval",
    "resampled",
    "score_of",
    "share_interval",
    "shown",
    "storable",
    "wilson",
]
