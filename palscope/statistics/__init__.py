"""Intervals and tests: the one place that says how sure a number is.

Which interval is given for what, and from how many clips on, was decided by simulation
(`benchmarks/coverage.py`; table in `docs/statistics.md`): one is given only where it covers the
truth in 92 % of samples or more. Where it does not, the values themselves are shown (`Values`).
"""

from palscope.statistics.correlation import correlation_interval as correlation_interval
from palscope.statistics.intervals import CLUSTERS as CLUSTERS
from palscope.statistics.intervals import FEWEST as FEWEST
from palscope.statistics.intervals import NO_INTERVAL as NO_INTERVAL
from palscope.statistics.intervals import Interval as Interval
from palscope.statistics.intervals import difference_of as difference_of
from palscope.statistics.intervals import mean_interval as mean_interval
from palscope.statistics.intervals import mean_intervals as mean_intervals
from palscope.statistics.intervals import ratio as ratio
from palscope.statistics.intervals import ratio_interval as ratio_interval
from palscope.statistics.marks import difference_of_scores as difference_of_scores
from palscope.statistics.marks import score_of as score_of
from palscope.statistics.peaks import peak_interval as peak_interval
from palscope.statistics.shares import change_interval as change_interval
from palscope.statistics.shares import share_interval as share_interval
from palscope.statistics.shares import wilson as wilson
from palscope.statistics.significance import false_discovery as false_discovery
from palscope.statistics.significance import least_p as least_p
from palscope.statistics.significance import paired_p as paired_p
from palscope.statistics.tables import Values as Values
from palscope.statistics.tables import interval_columns as interval_columns
from palscope.statistics.tables import mean_band as mean_band
from palscope.statistics.tables import mean_row as mean_row
from palscope.statistics.tables import shown as shown
