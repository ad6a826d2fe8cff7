"""What units tell of clips: how well each knows each label, and a name that follows by a rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from palscope._features.heard.survey import Survey
from palscope._features.scores import check_groups
from palscope._statistics import aurocs_of_labels

NAMED_FROM = 0.5
"""The average precision on held-out clips from which a name is proposed."""
_UNITS = 256
"""At once."""


@dataclass(frozen=True)
class Knows:
    """How well units tell labels.

    Attributes:
        fires: of each label's clips the share that fires a unit.
        precision_train: average precision among all training clips.
        precision: among all held-out ones.
        auroc: among the held-out clips of the label's own domain.
    """

    fires: Float[np.ndarray, "units labels"]
    precision_train: Float[np.ndarray, "units labels"]
    precision: Float[np.ndarray, "units labels"]
    auroc: Float[np.ndarray, "units labels"]

    def proposed(self) -> tuple[Int[np.ndarray, " units"], Float[np.ndarray, " units"]]:
        """The label of each unit that is best on training clips, or -1, and its held-out score."""
        units = np.arange(len(self.fires))
        if not self.fires.shape[1]:
            return np.full(len(units), -1), np.full(len(units), np.nan)
        chosen = np.where(np.isnan(self.precision_train), -1, self.precision_train)
        best = chosen.argmax(1)
        score = self.precision[units, best]
        best = np.where((chosen[units, best] > 0) & ~np.isnan(score), best, -1)
        return best, np.where(best < 0, np.nan, score)


def labels_of(clips: pd.DataFrame) -> pd.DataFrame:
    """The labels of clips that have rows: `domain, label, clips`, in order."""
    table: Any = clips[(clips["label"] != "") & (clips["left_out"] == "")]
    return table.groupby(["domain", "label"]).size().rename("clips").reset_index()


def named(labels: pd.DataFrame) -> list[str]:
    """Each label as it is told: "sound: dog"."""
    return (labels["domain"] + ": " + labels["label"]).tolist()


def sides_of(clips: pd.DataFrame, train: str, test: str) -> list[Bool[np.ndarray, " clips"]]:
    """Which clips names are chosen on, and on which they are scored.

    Raises `PalscopeError` where a group (speaker, recording) stands on both sides.
    """
    table: Any = clips
    heard = table["left_out"] == ""
    sides = [(heard & (table["split"] == split)).to_numpy() for split in (train, test)]
    if sides[0].any() and sides[1].any():
        check_groups(table[sides[0]], table[sides[1]])
    return sides


def known(found: Survey, clips: pd.DataFrame, labels: pd.DataFrame, train: str, test: str) -> Knows:
    """How well each unit tells each label.

    A clip is the unit's largest value over it, 0 where it does not fire.

    Args:
        found: the units' peaks.
        clips: of the store.
        labels: from `labels_of`.
        train: split on which names are chosen.
        test: split on which they are scored.
    """
    table: Any = clips
    sides, heard = sides_of(clips, train, test), table["left_out"] == ""
    told: Any = labels
    domain_of, label_of = (np.asarray(told[name]) for name in ("domain", "label"))
    domains = np.asarray(table["domain"])
    listed = (domains[:, None] == domain_of) & (np.asarray(table["label"])[:, None] == label_of)
    listed &= np.asarray(heard)[:, None]
    parts = [
        _known(values, listed, sides, domains, domain_of) for values in _largest(found, len(clips))
    ]
    fires, train_, test_, auroc = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Knows(fires, train_, test_, auroc)


def _known(
    values: Float[np.ndarray, "clips units"],
    listed: Bool[np.ndarray, "clips labels"],
    sides: list[Bool[np.ndarray, " clips"]],
    domains: np.ndarray,
    domain_of: np.ndarray,
) -> tuple[np.ndarray, ...]:
    counts = np.maximum(listed.sum(0), 1)
    fires = (values > 0).T.astype(np.float32) @ listed / counts
    precisions = [average_precisions(values[side], listed[side]) for side in sides]
    auroc = np.full((values.shape[1], listed.shape[1]), np.nan)
    for domain in dict.fromkeys(domain_of):
        here, mine = sides[1] & (domains == domain), domain_of == domain
        auroc[:, mine] = aurocs_of_labels(values[here], listed[here][:, mine])
    every: list[Any] = [fires, *precisions, auroc]
    return tuple(each.astype(np.float32) for each in every)


def average_precisions(
    values: Float[np.ndarray, "clips units"], listed: Bool[np.ndarray, "clips labels"]
) -> Float[np.ndarray, "units labels"]:
    """The average precision of each unit for each label; NaN where no clip has it.

    Clips that do not fire a unit share its last place: the label's share of all clips is their
    precision.
    """
    order = np.argsort(-values, axis=0, kind="stable")
    fired = np.take_along_axis(values, order, 0) > 0
    rank = np.arange(1, len(values) + 1)[:, None]
    out = np.full((values.shape[1], listed.shape[1]), np.nan)
    for label in np.flatnonzero(listed.any(0)):
        hit = listed[order, label]
        total = hit[:, 0].sum()
        met = hit & fired
        precision = (met * (np.cumsum(hit, 0) / rank)).sum(0)
        out[:, label] = (precision + (total - met.sum(0)) * total / len(values)) / total
    return out


def _largest(found: Survey, clips: int) -> Any:
    """`[clips, units]`, some units at a time."""
    units = len(found.first) - 1
    for start in range(0, units, _UNITS):
        end = min(start + _UNITS, units)
        some = slice(int(found.first[start]), int(found.first[end]))
        values = np.zeros((clips, end - start), dtype=np.float32)
        unit = np.repeat(np.arange(end - start), np.diff(found.first[start : end + 1]))
        values[found.clip[some], unit] = found.value[some]
        yield values
