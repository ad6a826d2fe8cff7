"""Directions of labels, found on clips, and scored on recordings that they were not found on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float

from palscope._directions.direction import Direction
from palscope._directions.examples import Examples
from palscope._directions.folds import folds_apart
from palscope._directions.logistic import fit_probe
from palscope._directions.probes import FOLDS
from palscope._statistics import NO_INTERVAL, auroc, resampled
from palscope._whole import whole_number
from palscope.errors import PalscopeError

Way = Literal["means", "probe", "pairs"]
"""The difference of the two means; a logistic probe's weight; the leading component of the
differences of pairs."""

WAYS: tuple[Way, ...] = ("means", "probe", "pairs")


def find_direction(
    examples: Examples, label: str, against: str | None = None, *, by: Way = "means"
) -> Direction:
    """The direction in which a label's clips differ from others of its domain.

    Pairs are of clips of the same group (a speaker saying both) as far as there are some, else in
    the clips' order.

    Args:
        examples: one vector a clip; choose training clips alone by `Examples.of`.
        label: what the direction leads to.
        against: the label that it leads from; None for all others of the domain.
        by: how it is found.

    Returns:
        A direction as long as the means of both sides lie apart along it.

    Raises:
        PalscopeError: a label is not there, or in several domains, or nothing tells the sides
            apart.
    """
    both, positive = two_sides(examples, label, against)
    vector, _ = _found(both, positive, by)
    made = {"by": by, "label": label, "against": against, "clips": len(both)}
    made |= {"positives": int(positive.sum()), "seconds": list(examples.seconds)}
    found = torch.from_numpy(vector.astype(np.float32))
    return Direction(found, examples.hook_point, made, examples.record, examples.row_norm)


def direction_scores(
    examples: Examples,
    label: str,
    against: str | None = None,
    *,
    ways: Sequence[Way] = WAYS,
    given: Mapping[str, Direction] | None = None,
    folds: int = FOLDS,
    draws: int = 10,
    seed: int = 0,
) -> pd.DataFrame:
    """How well each way of finding a direction tells a label on unseen recordings.

    A clip's score is its place between the two means of the training clips, along the direction.
    Two controls stand beside each way: `shuffled`, found the same way after the label was dealt out
    anew over pairs of label and group, and `random`, a direction drawn at random and pointed by the
    training means; both of `draws` draws.

    Args:
        examples: one vector a clip.
        label: what is told.
        against: the label that it is told from; None for all others of the domain.
        ways: of finding a direction.
        given: directions that were found elsewhere (a latent's), by a name; scored as they are.
        folds: parts of whole recordings, each held out once; at least as many as there are
            recordings to leave out one at a time.
        draws: of each control.
        seed: of folds and draws.

    Returns:
        `by, control` ("none", "shuffled", "random"), `auroc` (of controls the mean over draws), its
        interval over recordings `low, high` (percentile bootstrap; NaN of fewer than 20 recordings,
        and of controls), `highest` of the draws, `positives, n, recordings`.

    Raises:
        PalscopeError: as `find_direction`; all clips are of one recording; or a given direction is
            of another site.
    """
    whole_number(draws, "draws", least=1)
    both, positive = two_sides(examples, label, against)
    parts = folds_apart(both.recordings, both.labels, whole_number(folds, "folds", least=2), seed)
    rng = np.random.default_rng(seed)
    counted = {"positives": int(positive.sum()), "n": len(both)}
    counted["recordings"] = len(set(both.recordings))
    rows: list[dict[str, Any]] = []
    for by in ways:
        rows.append(
            _row(by, "none", [_held_out(both, positive, positive, parts, by)], both, positive)
        )
        dealt = [_dealt(both, positive, rng) for _ in range(draws)]
        shuffled = [_held_out(both, told, positive, parts, by) for told in dealt]
        rows.append(_row(by, "shuffled", shuffled, both, positive))
    vectors: list[np.ndarray] = list(rng.normal(size=(draws, both.x.shape[1])))
    drawn = [_held_out(both, positive, positive, parts, vector) for vector in vectors]
    rows.append(_row("random", "random", drawn, both, positive))
    for name, direction in (given or {}).items():
        direction.check_site(examples.hook_point, both.x.shape[1])
        score = both.x @ direction.vector.double().cpu().numpy()
        rows.append(_row(name, "none", [score], both, positive))
    return pd.DataFrame(rows).assign(**counted)


def two_sides(
    examples: Examples, label: str, against: str | None
) -> tuple[Examples, Bool[np.ndarray, " clips"]]:
    """The clips of both sides, and which of them have the label.

    Raises `PalscopeError` where a side is empty, or a label is in several domains.
    """
    table: Any = examples.clips
    for each in (label,) if against is None else (label, against):
        domains = sorted(set(table.loc[table["label"] == each, "domain"]))
        if len(domains) != 1:
            known = ", ".join(sorted(set(table["label"]) - {""}))
            told = f"in the domains {', '.join(domains)}" if domains else f"not among {known}"
            raise PalscopeError(f"the label {each!r} is {told}; a direction is of one domain.")
    domain = table.loc[table["label"] == label, "domain"].iloc[0]
    inside = (table["domain"] == domain) & (table["label"] != "")
    if against is not None:
        inside &= table["label"].isin([label, against])
    both = examples.of(inside)
    positive = both.labels == label
    if positive.all():
        others = f"no clip of {against!r}" if against else f"no other label than {label!r}"
        raise PalscopeError(
            f"{others} in the domain {domain!r}; a direction leads from one to one."
        )
    return both, positive


def _found(
    both: Examples, positive: Bool[np.ndarray, " clips"], by: Way | Float[np.ndarray, " width"]
) -> tuple[Float[np.ndarray, " width"], Float[np.ndarray, " width"]]:
    """The direction, as long as the means lie apart along it, and the middle between them."""
    means = both.x[positive].mean(0), both.x[~positive].mean(0)
    apart = means[0] - means[1]
    if isinstance(by, np.ndarray):
        along = by
    elif by == "means":
        along = apart
    elif by == "probe":
        probe = fit_probe(both.x, positive.astype(int).astype(str))
        along = (probe.weights[:, 1] - probe.weights[:, 0]) / probe.scale
    else:
        one, other = _pairs(both, positive)
        along = np.linalg.svd(both.x[one] - both.x[other], full_matrices=False)[2][0]
    along = along / max(float(np.linalg.norm(along)), 1e-300)
    return along * (along @ apart), (means[0] + means[1]) / 2


def _pairs(both: Examples, positive: Bool[np.ndarray, " clips"]) -> tuple[list[int], list[int]]:
    """Numbers of clips with and without the label: of the same group, else in order."""
    table: Any = both.clips
    groups: dict[str, tuple[list[int], list[int]]] = {}
    for number, group in enumerate(table["group"]):
        groups.setdefault(str(group), ([], []))[0 if positive[number] else 1].append(number)
    shared = [sides for group, sides in groups.items() if group and all(sides)]
    if not shared:
        shared = [(np.flatnonzero(positive).tolist(), np.flatnonzero(~positive).tolist())]
    pairs = [pair for sides in shared for pair in zip(*sides, strict=False)]
    return [one for one, _ in pairs], [other for _, other in pairs]


def _held_out(
    both: Examples,
    told: Bool[np.ndarray, " clips"],
    positive: Bool[np.ndarray, " clips"],
    parts: np.ndarray,
    by: Way | Float[np.ndarray, " width"],
) -> Float[np.ndarray, " clips"]:
    """Each clip's place between the means of clips of other recordings: ±½ at the means.

    The direction is found by what was `told` of the training clips.
    """
    score = np.zeros(len(both))
    for part in np.unique(parts):
        test = parts == part
        if len(set(told[~test])) < 2:
            continue  # all alike: nothing to find
        vector, middle = _found(both.of(~test), told[~test], by)
        squared = float(vector @ vector)
        score[test] = (both.x[test] - middle) @ vector / max(squared, 1e-300)
    return score


def _dealt(
    both: Examples, positive: Bool[np.ndarray, " clips"], rng: np.random.Generator
) -> Bool[np.ndarray, " clips"]:
    """The label dealt out anew over pairs of label and group: clips of one stay together."""
    pairs = np.char.add(np.char.add(both.labels, "\n"), both.groups)
    _, first, at = np.unique(pairs, return_index=True, return_inverse=True)
    return rng.permutation(positive[first])[at]


def _row(
    by: str,
    control: str,
    scores: list[Float[np.ndarray, " clips"]],
    both: Examples,
    positive: Bool[np.ndarray, " clips"],
) -> dict[str, Any]:
    found = [auroc(score, positive) for score in scores]
    sure = _interval(scores[0], positive, both.recordings) if control == "none" else NO_INTERVAL
    row: dict[str, Any] = {"by": by, "control": control, "auroc": float(np.mean(found))}
    return row | {"low": sure.low, "high": sure.high, "highest": max(found)}


def _interval(
    score: Float[np.ndarray, " clips"], positive: Bool[np.ndarray, " clips"], recordings: np.ndarray
) -> Any:
    """Over recordings, each with all of its clips."""
    names, at = np.unique(recordings, return_inverse=True)
    clips: list[np.ndarray] = [np.flatnonzero(at == number) for number in range(len(names))]

    def statistic(drawn: Any) -> float:
        mine: list[np.ndarray] = [clips[number] for number in drawn]
        chosen = np.concatenate(mine)
        found = auroc(score[chosen], positive[chosen])
        return 0.5 if found != found else found

    return resampled(statistic, len(names))
