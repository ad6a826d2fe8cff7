"""Activation patching: which place of one run makes another run answer like it.

Denoising puts values of the clean run into the corrupt one, and asks what suffices; noising puts
values of the corrupt run into the clean one, and asks what is needed. Source: Heimersheim and Nanda
2024 (arXiv 2404.15255), whose terms are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from palscope._hooks import HookedAudioModel
from palscope._models.scoring import greedy_tokens
from palscope._routing.layout import FILLER
from palscope._statistics import interval_columns, ratio, ratio_interval, share_interval
from palscope.audio import Waveform
from palscope.errors import PalscopeError
from palscope.interventions import Address, Filler, Patch, Resample, Sound, capture, edit_waveform
from palscope.interventions._capture import Captured
from palscope.interventions._cells import run_cells
from palscope.measures._metrics import METRICS, Answers, answer_metrics

Direction = Literal["denoising", "noising"]

CONTROLS = {"self": 0.0, "full": 1.0}
"""Runs of which the effect is known: patched from the run itself, and all of the sound patched."""


@dataclass(frozen=True)
class GridCell:
    """One cell of a grid: what is patched together, and what it is called in the table."""

    addresses: tuple[Address, ...]
    labels: Mapping[str, Any] = field(default_factory=dict[str, Any])


def activation_patching(
    model: HookedAudioModel,
    clean: Mapping[str, Any],
    corrupt: Mapping[str, Any],
    cells: Sequence[GridCell],
    *,
    answers: Answers,
    direction: Direction = "denoising",
    other: Mapping[str, Any] | None = None,
    batch_size: int | None = None,
) -> pd.DataFrame:
    """Patch every cell on its own, and measure the answer, under the model's current route.

    Args:
        clean: inputs of the clean prompt, one row.
        corrupt: of the corrupt one: the same text, and a clip of the same length.
        answers: the deciding tokens; their common beginning is put behind both prompts.
        direction: `denoising` patches clean values into the corrupt run, `noising` the reverse.
        other: inputs of an unrelated clip of that length, whose values give the random-clip
            baseline of every cell.
        batch_size: at most so many cells together; by default as many as memory holds.

    Returns:
        One row a run: `direction, run, LABELS…, logit_diff, logprob, kl, rank` (`answer_metrics`;
        `kl` is from the run that values are taken from). `run` is "target" and "source" (both
        unpatched), "self" (every cell at once, from the run itself: must be the target), "full"
        (`all_audio` patched: must be the source), "patch" for the cells, and "other" for the cells
        with the other clip's values. Labels are missing where they do not apply.

    Raises:
        PalscopeError: there are no cells, or the two prompts differ in more than their sound.
    """
    if not cells:
        raise PalscopeError("there are no cells to patch.")
    source, target = source_and_target(clean, corrupt, answers, direction)
    everywhere = tuple(dict.fromkeys(address for cell in cells for address in cell.addresses))
    whole = all_audio(model, source)
    taken = capture(model, source, *everywhere, *whole)
    own = capture(model, target, *everywhere)
    runs: list[tuple[str, Mapping[str, Any], tuple[Address, ...], Captured]] = [
        ("self", {}, everywhere, own),
        ("full", {}, whole, taken),
        *(("patch", cell.labels, cell.addresses, taken) for cell in cells),
    ]
    if other is not None:
        unrelated = capture(model, answers.behind(other), *everywhere)
        runs += [("other", cell.labels, cell.addresses, unrelated) for cell in cells]
    patches = [[Patch(a, Resample(values)) for a in places] for _, _, places, values in runs]
    plain = run_cells(model, source, [[]])
    logits = run_cells(model, target, [[], *patches], batch_size=batch_size)
    named = [(run, labels) for run, labels, _, _ in runs]
    return _measured(direction, answers, plain[0], logits, named)


def all_audio(model: HookedAudioModel, inputs: Mapping[str, Any]) -> tuple[Address, ...]:
    """All that a prompt's words can hear: sound where it leaves the connector.

    And, where a window is crossed whole, what the encoder made of the silence behind the clip.
    """
    layout = model.layout(inputs)
    silence = (layout.stream == FILLER) & (layout.clip >= 0)
    behind = (Address("audio_state", Filler()),) if bool(silence.any()) else ()
    return (Address("connector_output", Sound()), *behind)


def source_and_target(
    clean: Mapping[str, Any], corrupt: Mapping[str, Any], answers: Answers, direction: Direction
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The run that values are taken from and the run that gets them, the answers' beginning behind.

    Raises:
        PalscopeError: there are several prompts, or the two differ in more than their sound.
    """
    if clean["input_ids"].shape[0] != 1 or corrupt["input_ids"].shape[0] != 1:
        raise PalscopeError("give the inputs of one prompt at a time.")
    clean, corrupt = answers.behind(clean), answers.behind(corrupt)
    for name in ("input_ids", "attention_mask"):
        if not torch.equal(clean[name], corrupt[name]):
            raise PalscopeError(
                "the clean and the corrupt prompt differ in text or in the clips' length; both "
                "need the same columns."
            )
    return (clean, corrupt) if direction == "denoising" else (corrupt, clean)


def input_patching(
    model: HookedAudioModel,
    question: str,
    clean: Waveform,
    corrupt: Waveform,
    cells: Sequence[GridCell],
    *,
    answers: Answers,
    direction: Direction = "denoising",
    other: Waveform | None = None,
    batch_size: int = 16,
) -> pd.DataFrame:
    """Patch the sound itself: the samples of each cell's seconds come from the other clip.

    What an encoder spreads over its tokens moves with the sound, so this bounds what patching the
    tokens of the same seconds can find. The splice may click: choose seconds that begin and end in
    silence.

    Args:
        clean: a clip at the model's sample rate; `corrupt` and `other` are as long.
        cells: one address each, at the site `waveform`.

    Returns:
        The table of `activation_patching`; its runs "self" and "full" hear the target's and the
        source's own clip, spliced whole.

    Raises:
        PalscopeError: there are no cells, or one has another site or several addresses.
        AudioError: the seconds lie outside of the clips.
    """
    if not cells:
        raise PalscopeError("there are no cells to patch.")
    for cell in cells:
        if len(cell.addresses) != 1 or cell.addresses[0].site != "waveform":
            sites = ", ".join(address.site for address in cell.addresses)
            raise PalscopeError(
                f"input patching swaps sound: a cell is one address at waveform, not {sites}."
            )
    source, target = (clean, corrupt) if direction == "denoising" else (corrupt, clean)

    def spliced(cell: GridCell, donor: Waveform) -> Waveform:
        where = cell.addresses[0].key_tokens
        assert isinstance(where, Sound)
        return edit_waveform(target, where, donor)

    runs: list[tuple[str, Mapping[str, Any], Waveform]] = [
        ("self", {}, edit_waveform(target, Sound(), target)),
        ("full", {}, edit_waveform(target, Sound(), source)),
        *(("patch", cell.labels, spliced(cell, source)) for cell in cells),
    ]
    if other is not None:
        runs += [("other", cell.labels, spliced(cell, other)) for cell in cells]
    clips = [source, target, *(clip for _, _, clip in runs)]
    logits = _logits_of_clips(model, question, clips, answers, batch_size)
    named = [(run, labels) for run, labels, _ in runs]
    return _measured(direction, answers, logits[0], logits[1:], named)


@torch.no_grad()
def _logits_of_clips(
    model: HookedAudioModel,
    question: str,
    clips: Sequence[Waveform],
    answers: Answers,
    batch_size: int,
) -> Tensor:
    """Logits at the deciding token of one question about each of these clips of one length."""
    logits: list[Tensor] = []
    for start in range(0, len(clips), batch_size):
        rows = [
            answers.behind(model.inputs(question, clip))
            for clip in clips[start : start + batch_size]
        ]
        batch = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        logits.append(model(batch, logits_to_keep=1)[:, -1].float().cpu())
    return torch.cat(logits)


def _measured(
    direction: Direction,
    answers: Answers,
    source: Tensor,
    rest: Tensor,
    named: Sequence[tuple[str, Mapping[str, Any]]],
) -> pd.DataFrame:
    """The table of the source's logits and of `rest`: the target's, then those of `named`."""
    labels = pd.DataFrame(
        [
            {"direction": direction, "run": run, **labels}
            for run, labels in (("source", {}), ("target", {}), *named)
        ]
    )
    measured = answer_metrics(torch.cat([source[None], rest]), answers, source)
    return pd.concat([labels, measured], axis=1)


def patching_effects(
    table: pd.DataFrame,
    by: Sequence[str],
    *,
    metric: str = "logit_diff",
    pair: str = "pair",
    confidence: float = 0.95,
) -> pd.DataFrame:
    """The share of the difference between the two runs that each cell restores, over pairs.

    0 is the target run, 1 the source run; it may lie outside. It is a ratio of means over the pairs
    (a mean of ratios would be ruled by pairs whose runs hardly differ), with Fieller's interval
    over pairs (`palscope._statistics.ratio_interval`).

    Args:
        table: of `activation_patching` for several pairs, with the pair's name in column `pair`.
        by: the cells' labels.

    Returns:
        `run, BY…, effect, low, high, values, moved, n`: the rows of runs "self", "full", "patch"
        and "other". `low` and `high` are NaN, and `values` has each pair's share, of too few pairs,
        or where the runs' difference may be nothing on average; `moved` is the mean difference from
        the target run in the metric's own units.

    Raises:
        PalscopeError: the metric does not differ between source and target, or is not known.
    """
    cells = _moved(table, metric, pair)
    cells = cells[~cells["run"].isin(["source", "target"])]
    rows: list[dict[str, Any]] = []
    for labels, group in cells.groupby(["run", *by], dropna=False, sort=False):
        moved, span = (np.asarray(group[name], dtype=float) for name in ("moved", "span"))
        interval = ratio_interval(moved, span, confidence=confidence)
        each = np.divide(moved, span, out=np.full_like(moved, np.nan), where=span != 0)
        names: dict[str, Any] = dict(zip(["run", *by], labels, strict=True))
        rows.append(
            {**names, "effect": ratio(moved, span), **interval_columns(interval, each)}
            | {"moved": float(moved.mean()), "n": len(group)}
        )
    return pd.DataFrame(rows)


def answers_moved(
    table: pd.DataFrame, by: Sequence[str], *, pair: str = "pair", confidence: float = 0.95
) -> pd.DataFrame:
    """The share of pairs in which a cell makes the target run prefer the source run's answer.

    Of the two answers, the one with the larger logit is preferred. Pairs whose source and target
    runs prefer the same one, or that have no corrupt answer, are left out.

    Returns:
        `run, BY…, share, low, high, values, n`, with `share_interval`'s interval.
    """
    cells = _moved(table, "logit_diff", pair)
    source = cells["source"] > 0
    apart = cells[source != (cells["target"] > 0)]
    apart = apart[~apart["run"].isin(["source", "target"])]
    rows: list[dict[str, Any]] = []
    for labels, group in apart.groupby(["run", *by], dropna=False, sort=False):
        like_source = (group["logit_diff"] > 0) == (group["source"] > 0)
        of_pair = like_source.groupby(group[pair], sort=False).agg(["sum", "size"])
        interval = share_interval(of_pair["sum"], of_pair["size"], confidence=confidence)
        names: dict[str, Any] = dict(zip(["run", *by], labels, strict=True))
        shares = of_pair["sum"] / of_pair["size"]
        rows.append(
            {**names, "share": float(like_source.mean())}
            | {**interval_columns(interval, shares), "n": len(group)}
        )
    return pd.DataFrame(rows, columns=["run", *by, "share", "low", "high", "values", "n"])


def check_controls(
    table: pd.DataFrame,
    *,
    metric: str = "logit_diff",
    pair: str = "pair",
    tolerance: float = 1e-3,
) -> pd.DataFrame:
    """The runs whose effect is known, in every pair: patching from itself 0, all of the sound 1.

    A pair's deviation is in units of the mean difference between source and target over the pairs,
    so that a pair whose runs hardly differ does not count for more. Ranks are whole numbers, which
    rounding moves by one: with metric `rank`, log-probabilities are checked.

    Returns:
        `control, expected, worst, pair, n`: the largest deviation, and the pair that has it.

    Raises:
        PalscopeError: a control is missing, or off by more than `tolerance`: what was measured
            must not be believed.
    """
    cells = _moved(table, "logprob" if metric == "rank" else metric, pair)
    unit = float(cells["span"].abs().mean())
    rows: list[dict[str, Any]] = []
    for control, expected in CONTROLS.items():
        runs = cells[cells["run"] == control]
        if set(runs[pair]) != set(cells[pair]):
            raise PalscopeError(f"control {control!r} is not there for every pair; measure it.")
        off: Any = (runs["moved"] - expected * runs["span"]).abs() / unit
        worst = float(off.max())
        name: Any = runs.loc[off.idxmax(), pair]
        if worst > tolerance:
            raise PalscopeError(
                f"control {control!r} of pair {name} is {worst:.2g} off its effect of "
                f"{expected:g}, more than {tolerance:g}: the patching is broken, and its results "
                "are not shown. Please report it."
            )
        row = {"control": control, "expected": expected, "worst": worst, "pair": name}
        rows.append({**row, "n": len(runs)})
    return pd.DataFrame(rows)


def greedy_answers(
    model: HookedAudioModel,
    clean: Mapping[str, Any],
    corrupt: Mapping[str, Any],
    clean_answer: str,
    corrupt_answer: str | None,
) -> pd.DataFrame:
    """What the model answers to both prompts of a pair, left to itself.

    A model that cannot tell which of two digits is first may still prefer the one that it hears to
    one that it does not: only its own answer shows whether it can do what the pair is about.

    Returns:
        `side, answer, expected, right`, for "clean" and "corrupt". `right` takes no account of case
        and a full stop; without a corrupt answer nothing is expected, and it is True.
    """
    rows: list[dict[str, Any]] = []
    for side, inputs, expected in (
        ("clean", clean, clean_answer),
        ("corrupt", corrupt, corrupt_answer),
    ):
        new = greedy_tokens(model.model, model.processor, inputs)[0]
        answer = str(model.processor.tokenizer.decode(new, skip_special_tokens=True)).strip()
        right = expected is None or _plain(answer) == _plain(expected)
        rows.append({"side": side, "answer": answer, "expected": expected, "right": right})
    return pd.DataFrame(rows)


def _plain(answer: str) -> str:
    return answer.strip().rstrip(".").casefold()


def solved_pairs(table: pd.DataFrame, *, pair: str = "pair") -> list[str]:
    """The pairs of which the model prefers the right one of the two answers on both sides.

    Preferred is the larger logit; where there is no corrupt answer, the clean answer must be the
    most probable token of the clean run. See `greedy_answers` for what a model says by itself.
    """
    ends: Any = table[table["run"].isin(["source", "target"])]
    is_clean = (ends["run"] == "source") == (ends["direction"] == "denoising")
    sign = ends["logit_diff"].where(is_clean, -ends["logit_diff"])
    right = (sign > 0).where(sign.notna(), ~is_clean | (ends["rank"] == 0))
    whole: Any = right.groupby(ends[pair], sort=False).all()
    names: list[str] = whole.index[whole].astype(str).tolist()
    return names


def _moved(table: pd.DataFrame, metric: str, pair: str) -> Any:
    """The table's rows with `moved`, from the target's value of `metric`, and the pair's `span`."""
    if metric not in METRICS:
        raise PalscopeError(f"no metric {metric!r}; there are: {', '.join(METRICS)}.")
    whole: Any = table.dropna(subset=[metric])
    if not len(whole):
        raise PalscopeError(
            f"{metric} is missing in every row: without a corrupt answer there is no logit "
            "difference. Use logprob, kl or rank."
        )
    by = [pair, "direction"]
    ends: Any = whole[whole["run"].isin(["source", "target"])]
    ends = ends.pivot(index=by, columns="run", values=metric)
    if float((ends["source"] - ends["target"]).abs().mean()) == 0:
        raise PalscopeError(
            f"{metric} is the same in source and target; there is no effect to share."
        )
    cells = whole.merge(ends, on=by)
    cells["moved"] = cells[metric] - cells["target"]
    cells["span"] = cells["source"] - cells["target"]
    return cells
