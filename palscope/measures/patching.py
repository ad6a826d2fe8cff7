"""Activation patching: which place of one run makes another run answer like it.

Denoising puts values of the clean run into the corrupt one, and asks what suffices; noising puts
values of the corrupt run into the clean one, and asks what is needed. Source: Heimersheim and Nanda
2024 (arXiv 2404.15255), whose terms are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
from scipy import stats

from palscope.errors import PalscopeError
from palscope.hooks import HookedAudioModel
from palscope.interventions import Address, Captured, Patch, Resample, Sound, capture
from palscope.interventions.cells import run_cells
from palscope.measures.metrics import METRICS, Answers, answer_metrics

Direction = Literal["denoising", "noising"]


@dataclass(frozen=True)
class Cell:
    """One cell of a grid: what is patched together, and what it is called in the table."""

    addresses: tuple[Address, ...]
    labels: Mapping[str, Any] = field(default_factory=dict[str, Any])


def activation_patching(
    model: HookedAudioModel,
    clean: Mapping[str, Any],
    corrupt: Mapping[str, Any],
    cells: Sequence[Cell],
    *,
    answers: Answers,
    direction: Direction = "denoising",
    other: Mapping[str, Any] | None = None,
    batch_size: int = 16,
) -> pd.DataFrame:
    """Patch every cell on its own, and measure the answer, under the model's current route.

    Args:
        clean: inputs of the clean prompt, one row.
        corrupt: of the corrupt one: the same text, and a clip of the same length.
        answers: the deciding tokens; their common beginning is put behind both prompts.
        direction: `denoising` patches clean values into the corrupt run, `noising` the reverse.
        other: inputs of an unrelated clip of that length, whose values give the random-clip
            baseline of every cell.

    Returns:
        One row a run: `run, LABELS…, logit_diff, logprob, kl, rank` (`answer_metrics`; `kl` is from
        the run that values are taken from). `run` is "target" and "source" (both unpatched),
        "self" (every cell at once, from the run itself: must be the target), "full" (all audio
        patched where it leaves the connector: must be the source), "patch" for the cells, and
        "other" for the cells with the other clip's values. Labels are missing where they do not
        apply.

    Raises:
        PalscopeError: there are no cells, or the two prompts differ in more than their sound.
    """
    if not cells:
        raise PalscopeError("there are no cells to patch.")
    clean, corrupt = answers.behind(clean), answers.behind(corrupt)
    source, target = (clean, corrupt) if direction == "denoising" else (corrupt, clean)
    for name in ("input_ids", "attention_mask"):
        if source[name].shape != target[name].shape or bool((source[name] != target[name]).any()):
            raise PalscopeError(
                "the clean and the corrupt prompt differ in text or in the clips' length; patching "
                "needs the same columns in both."
            )
    everywhere = tuple(dict.fromkeys(address for cell in cells for address in cell.addresses))
    sound = Address("connector_output", Sound())
    taken = capture(model, source, *everywhere, sound)
    own = capture(model, target, *everywhere)
    runs: list[tuple[str, Mapping[str, Any], tuple[Address, ...], Captured]] = [
        ("self", {}, everywhere, own),
        ("full", {}, (sound,), taken),
        *(("patch", cell.labels, cell.addresses, taken) for cell in cells),
    ]
    if other is not None:
        unrelated = capture(model, answers.behind(other), *everywhere)
        runs += [("other", cell.labels, cell.addresses, unrelated) for cell in cells]
    patches = [[Patch(a, Resample(values)) for a in places] for _, _, places, values in runs]
    plain = run_cells(model, source, [[]])
    logits = run_cells(model, target, [[], *patches], batch_size=batch_size)
    labels = pd.DataFrame(
        [
            {"run": "source"},
            {"run": "target"},
            *({"run": run, **labels} for run, labels, _, _ in runs),
        ]
    )
    measured = [answer_metrics(part, answers, plain[0]) for part in (plain, logits)]
    return pd.concat([labels, pd.concat(measured, ignore_index=True)], axis=1)


def patching_effects(
    table: pd.DataFrame,
    by: Sequence[str],
    *,
    metric: str = "logit_diff",
    pair: str = "pair",
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """The share of the difference between the two runs that each cell restores, over pairs.

    0 is the target run, 1 the source run; it may lie outside. It is a ratio of means over the pairs
    (a mean of ratios would be ruled by pairs whose runs hardly differ), with a percentile bootstrap
    over pairs.

    Args:
        table: of `activation_patching` for several pairs, with the pair's name in column `pair`.
        by: the cells' labels.

    Returns:
        `run, BY…, effect, low, high, n`: the rows of runs "self", "full", "patch" and "other".
        `low` and `high` are NaN for one pair.

    Raises:
        PalscopeError: the metric does not differ between source and target, or is not known.
    """
    if metric not in METRICS:
        raise PalscopeError(f"no metric {metric!r}; there are: {', '.join(METRICS)}.")
    whole: Any = table.dropna(subset=[metric])
    ends: Any = whole[whole["run"].isin(["source", "target"])]
    ends = ends.pivot(index=pair, columns="run", values=metric)
    if not len(ends) or float((ends["source"] - ends["target"]).abs().mean()) == 0:
        raise PalscopeError(
            f"{metric} is the same in source and target; there is no effect to share."
        )
    cells: Any = whole[~whole["run"].isin(["source", "target"])].merge(ends, on=pair)
    cells["moved"] = cells[metric] - cells["target"]
    cells["span"] = cells["source"] - cells["target"]
    rows: list[dict[str, Any]] = []
    for labels, group in cells.groupby(["run", *by], dropna=False, sort=False):
        moved, span = (np.asarray(group[name], dtype=float) for name in ("moved", "span"))
        low = high = float("nan")
        if len(group) > 1:
            interval: Any = stats.bootstrap(
                (moved, span),
                _ratio,
                paired=True,
                n_resamples=2000,
                confidence_level=confidence,
                method="percentile",
                rng=seed,
            ).confidence_interval
            low, high = interval.low, interval.high
        effect = _ratio(moved, span)
        names: dict[str, Any] = dict(zip(["run", *by], cast(Any, labels), strict=True))
        rows.append({**names, "effect": effect, "low": low, "high": high, "n": len(group)})
    return pd.DataFrame(rows)


def _ratio(moved: Any, span: Any, axis: int = -1) -> Any:
    return np.mean(moved, axis=axis) / np.mean(span, axis=axis)


def solved(table: pd.DataFrame, *, pair: str = "pair") -> list[str]:
    """The pairs that the model answers right on both sides, by the sign of the logit difference."""
    ends: Any = table[table["run"].isin(["source", "target"])]
    signs = ends.groupby(pair)["logit_diff"].agg(["min", "max"])
    return [str(name) for name in signs[(signs["min"] < 0) & (signs["max"] > 0)].index]
