"""How well a label can be read from stored activations, beside what the probe alone can do.

A probe that is accurate may have learned the task rather than read it. Its *selectivity* (Hewitt
and Liang 2019, arXiv 1909.03368) is its accuracy less that on a control task, in which every type
has a label drawn at random: what is told right there was learned by heart.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from palscope._directions.examples import Examples
from palscope._directions.folds import folds_apart, folds_within
from palscope._directions.logistic import PENALTY, fit_probe
from palscope._statistics import (
    NO_INTERVAL,
    Interval,
    difference_of,
    interval_columns,
    share_interval,
)
from palscope._whole import whole_number
from palscope.errors import PalscopeError

FOLDS = 5


class Guesses(NamedTuple):
    """Of clips that were held out, each once: whether the probe was right, and their recordings."""

    right: np.ndarray
    recordings: np.ndarray

    @property
    def score(self) -> tuple[float, Interval, np.ndarray]:
        """The share that is right, its interval over recordings, and each recording's share."""
        if not len(self.right):
            return float("nan"), NO_INTERVAL, np.zeros(0)
        _, at = np.unique(self.recordings, return_inverse=True)
        got, of = np.bincount(at, self.right), np.bincount(at)
        return float(self.right.mean()), share_interval(got, of), got / of


def probe_scores(
    examples: Examples, *, folds: int = FOLDS, penalty: float = PENALTY, seed: int = 0
) -> pd.DataFrame:
    """Accuracy of a logistic probe for the label on unseen recordings, and its selectivity.

    Each domain has a probe of its own: recording chains alone tell domains apart. Recordings are
    held out whole, each once (`Examples.recordings`); vectors are standardised by training clips.

    The control task gives every pair of label and group (what a probe could learn by heart) a label
    drawn at random as labels are frequent. It must meet the same pairs again, so its folds are
    within them, and clips that are the only one of their pair are left out of its score.

    Args:
        examples: one vector a clip, with labels.
        folds: parts of which each is held out once; fewer where there are fewer recordings.
        penalty: half of this times the squared weights is added to the summed loss.
        seed: of the folds and of the control task.

    Returns:
        One row a domain of two labels or more: `hook_point, start, end` (s; NaN for the clip's
        end), `domain, labels, n, recordings`; `apart`, "recording", or "clip" where the domain has
        one group only, so that clips of one recording may stand on both sides; `accuracy` and
        `control`, each with its interval over recordings (`control_low` …) or its values;
        `selectivity`, the first less the second, with the interval of a difference; `chance`, the
        share of the commonest label. `control` is NaN where no pair has two clips.

    Raises:
        PalscopeError: no domain has two labels, or a domain is of one recording.
    """
    whole_number(folds, "folds", least=2)
    table: Any = examples.clips
    found: list[dict[str, Any]] = []
    for domain in dict.fromkeys(table["domain"]):
        here = examples.of((table["domain"] == domain) & (table["label"] != ""))
        if len(set(here.labels)) < 2:
            continue
        held_out = guesses(here, folds=folds, penalty=penalty, seed=seed)
        control = control_guesses(here, folds=folds, penalty=penalty, seed=seed)
        found.append(_row(examples, here, str(domain), held_out, control))
    if not found:
        raise PalscopeError(
            f"no domain at {examples.hook_point} has clips of two labels; a probe needs them."
        )
    return pd.DataFrame(found)


def guesses(
    examples: Examples, *, folds: int = FOLDS, penalty: float = PENALTY, seed: int = 0
) -> Guesses:
    """What probes for the label say of recordings that they were not fitted on."""
    recordings, labels = examples.recordings, examples.labels
    parts = folds_apart(recordings, labels, folds, seed)
    right = np.zeros(len(examples), dtype=bool)
    for part in np.unique(parts):
        test = parts == part
        right[test] = _told(examples.x, labels, ~test, test, penalty)
    return Guesses(right, recordings)


def control_guesses(
    examples: Examples, *, folds: int = FOLDS, penalty: float = PENALTY, seed: int = 0
) -> Guesses:
    """What probes say in the control task, of clips whose pair they have met."""
    labels = examples.labels
    pairs = np.char.add(np.char.add(labels, "\n"), examples.groups)
    kinds, at = np.unique(pairs, return_inverse=True)
    drawn = np.random.default_rng(seed).choice(labels, len(kinds))[at]
    parts = folds_within(pairs, folds, seed)
    right, scored = np.zeros(len(pairs), dtype=bool), np.zeros(len(pairs), dtype=bool)
    for part in np.unique(parts):
        test = parts == part
        met = test & np.isin(pairs, pairs[~test])
        if met.any() and len(set(drawn[~test])) > 1:
            right[met] = _told(examples.x, drawn, ~test, met, penalty)
            scored |= met
    return Guesses(right[scored], examples.recordings[scored])


def _told(
    x: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray, penalty: float
) -> np.ndarray:
    return fit_probe(x[train], labels[train], penalty=penalty).predict(x[test]) == labels[test]


def _row(
    whole: Examples, here: Examples, domain: str, held_out: Guesses, control: Guesses
) -> dict[str, Any]:
    accuracy, sure, each = held_out.score
    by_heart, control_sure, control_each = control.score
    start, end = whole.seconds
    known = sure.known and control_sure.known
    apart = difference_of(accuracy, sure, by_heart, control_sure) if known else NO_INTERVAL
    return {
        "hook_point": whole.hook_point,
        "start": start,
        "end": float("nan") if end is None else end,
        "domain": domain,
        "labels": len(set(here.labels)),
        "n": len(here),
        "recordings": len(set(here.recordings)),
        "apart": "clip" if domain in whole.one_group else "recording",
        "accuracy": accuracy,
        **interval_columns(sure, each),
        "control": by_heart,
        **interval_columns(control_sure, control_each, "control"),
        "selectivity": accuracy - by_heart,
        "selectivity_low": apart.low,
        "selectivity_high": apart.high,
        "chance": float(np.unique(here.labels, return_counts=True)[1].max() / len(here)),
    }
