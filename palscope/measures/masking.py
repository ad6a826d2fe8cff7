"""Pathway masking: how well questions are answered when a stream of sound is taken away.

Source: the PAL paper (arXiv 2506.10423), Tables 5 and 6: PAL with its LAL tokens masked, or with
its summary tokens masked, by domain. The paper does not say whether other sound may still read what
is masked from text, so there are two ways:

- `knockout`: no text token, generated ones included, reads the stream in any layer. Other streams
  that run still do, and text reads them.
- `reroute`: the stream is absent (`Route.mute`): nothing reads it, and it is not computed.

They give the same logits unless another stream runs and reads the masked one. In the PAL route
summary tokens read the frames in the layers of LAL (`frame_readers="all"`), so masking `frames` by
knockout leaves what the summary took from them; masking `summary` comes to the same both ways,
since frames, being keys only, read nothing. Positions do not move in either: an audio token keeps
its position whether it is read or not.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from palscope.errors import PalscopeError
from palscope.hooks import HookedAudioModel
from palscope.interventions import Address, Knockout, Reroute, Sound, Text
from palscope.interventions.cells import with_encoded
from palscope.measures.bands import bootstrap_interval
from palscope.measures.choices import choice_logprobs, choices_table
from palscope.routing import Route

Way = Literal["knockout", "reroute"]
WAYS: tuple[Way, ...] = ("knockout", "reroute")

NOTHING = "nothing"
"""What is masked in the run that others are compared with; it stands under either way."""

ALL_DOMAINS = "all"


def maskings(route: Route) -> dict[str, tuple[str, ...]]:
    """What can be masked: nothing, every stream of the route by itself, and all of them together.

    By name, which joins the streams by " + ".
    """
    names = [stream.name for stream in route.streams if route.layers(stream.name)]
    sets: list[tuple[str, ...]] = [(name,) for name in names]
    if len(names) > 1:
        sets.append(tuple(names))
    return {NOTHING: (), **{" + ".join(each): each for each in sets}}


def masking(
    model: HookedAudioModel, inputs: Mapping[str, Any], streams: Sequence[str], way: Way
) -> list[Knockout | Reroute]:
    """The interventions that take `streams` away from one prompt, in every layer and clip."""
    if way == "reroute":
        route = model.current_route
        for stream in streams:
            route = route.mute(stream)
        return [Reroute(route)]
    clips = range(len(model.layout(inputs).clip_row))
    return [
        Knockout(Address("pattern", Sound(stream=stream, clip=clip), queries=Text()))
        for stream in streams
        for clip in clips
    ]


def pathway_masking(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    choices: Sequence[str],
    answer: str,
    *,
    ways: Sequence[Way] = WAYS,
) -> pd.DataFrame:
    """Rank the choices of one question with every stream masked in turn.

    The model's current route is taken. It was not trained with anything masked: see
    `palscope.measures.masking` for what that does and does not say.

    Args:
        inputs: of one prompt.
        choices: the answers to rank.
        answer: the right one of them.

    Returns:
        One row a way and masking (`maskings`), that of nothing included: `masked, way, best,
        correct, logprob, margin, chance`; `logprob` is the answer's (nats, its end included),
        `margin` that less the likeliest other choice's, `chance` one over the number of choices.

    Raises:
        PalscopeError: the answer is no choice, or the only one.
    """
    if answer not in choices or len(choices) < 2:
        raise PalscopeError(f"the answer {answer!r} must be one of several choices, got {choices}.")
    right = list(choices).index(answer)
    table: Any = masked_choices(model, inputs, choices, ways=ways)
    rows: list[dict[str, Any]] = []
    for (way, name), group in table.groupby(["way", "masked"], sort=False):
        logprobs = group["logprob"].to_numpy()
        best = choices[int(np.argmax(logprobs))]
        rows.append(
            {
                "masked": name,
                "way": way,
                "best": best,
                "correct": best == answer,
                "logprob": logprobs[right],
                "margin": logprobs[right] - np.delete(logprobs, right).max(),
                "chance": 1 / len(choices),
            }
        )
    return pd.DataFrame(rows)


def masked_choices(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    choices: Sequence[str],
    *,
    ways: Sequence[Way] = WAYS,
) -> pd.DataFrame:
    """How probable each choice is with every stream masked in turn, on the model's current route.

    Args:
        inputs: of one prompt.
        choices: the answers to rank.

    Returns:
        One row a way, masking (`maskings`, that of nothing included) and choice: `way, masked,
        choice`, and `logprob` (nats) of the choice as the whole answer, its end included.

    Raises:
        PalscopeError: there are several prompts.
    """
    given = with_encoded(model, inputs)
    plain = choice_logprobs(model, given, choices)
    parts = [
        choices_table(
            {"way": way, "masked": name},
            choices,
            choice_logprobs(model, given, choices, masking(model, given, streams, way))
            if streams
            else plain,
        )
        for way in ways
        for name, streams in maskings(model.current_route).items()
    ]
    return pd.concat(parts, ignore_index=True)


def masking_scores(
    table: pd.DataFrame, *, item: str = "clip", confidence: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Accuracy by domain and masking, and how much of it each masking takes.

    Args:
        table: `pathway_masking` of many clips, with columns `item` and `domain`.
        item: the column that names the clip.

    Returns:
        One row a (domain, way, masked), domain "all" at the end: `n` clips; `accuracy` with its
        Wilson interval `low, high`; `drop`, the accuracy lost against nothing masked, with a
        percentile bootstrap over clips (paired) `drop_low, drop_high`; `p`, McNemar's exact test of
        it (two-sided); `logprob_drop`, the answer's mean loss of log-probability (nats) with
        `logprob_drop_low, logprob_drop_high`; and `chance`, the mean over clips.
    """
    whole: Any = table
    domains: list[tuple[str, Any]] = list(whole.groupby("domain", sort=False))
    if len(domains) > 1:
        domains.append((ALL_DOMAINS, whole))
    rows: list[dict[str, Any]] = []
    for domain, clips in domains:
        for (way, masked), group in clips.groupby(["way", "masked"], sort=False):
            correct = group["correct"].to_numpy(dtype=bool)
            test = stats.binomtest(int(correct.sum()), len(correct))
            share = test.proportion_ci(confidence_level=confidence, method="wilson")
            lost = _losses(clips, way, masked, item)
            rows.append(
                {
                    "domain": domain,
                    "way": way,
                    "masked": masked,
                    "n": len(correct),
                    "accuracy": correct.mean(),
                    "low": share.low,
                    "high": share.high,
                    **_interval("drop", lost["correct"], confidence, seed),
                    "p": _mcnemar(lost["correct"]),
                    **_interval("logprob_drop", lost["logprob"], confidence, seed),
                    "chance": group["chance"].mean(),
                }
            )
    return pd.DataFrame(rows)


def domain_contrasts(
    table: pd.DataFrame, *, item: str = "clip", confidence: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Whether a masking hurts one domain more than another.

    Args:
        table: as for `masking_scores`.

    Returns:
        One row a (way, masked, pair of domains): `one, other`; `drop`, the accuracy lost in `one`
        less that lost in `other`, with a percentile bootstrap over the clips of each `drop_low,
        drop_high`; and likewise `logprob_drop` (nats).
    """
    whole: Any = table
    rows: list[dict[str, Any]] = []
    for (way, masked), _ in whole.groupby(["way", "masked"], sort=False):
        if masked == NOTHING:
            continue
        losses = {
            str(domain): _losses(clips, way, masked, item)
            for domain, clips in whole.groupby("domain", sort=False)
        }
        for one, other in itertools.combinations(losses, 2):
            row: dict[str, Any] = {"way": way, "masked": masked, "one": one, "other": other}
            for name, column in (("drop", "correct"), ("logprob_drop", "logprob")):
                a, b = losses[one][column], losses[other][column]
                row[name] = a.mean() - b.mean()
                row |= dict(
                    zip(
                        (f"{name}_low", f"{name}_high"),
                        bootstrap_interval((a, b), _difference, confidence=confidence, seed=seed),
                        strict=True,
                    )
                )
            rows.append(row)
    return pd.DataFrame(rows)


def _losses(clips: Any, way: Any, masked: Any, item: str) -> dict[str, Any]:
    """What each clip loses: 1 an answer that was right and no longer is, -1 the reverse; nats."""
    of_way = clips[clips["way"] == way]
    before = of_way[of_way["masked"] == NOTHING].set_index(item)
    after = of_way[of_way["masked"] == masked].set_index(item).loc[before.index]
    return {
        name: before[name].to_numpy(dtype=float) - after[name].to_numpy(dtype=float)
        for name in ("correct", "logprob")
    }


def _interval(name: str, lost: Any, confidence: float, seed: int) -> dict[str, float]:
    low, high = bootstrap_interval((lost,), np.mean, confidence=confidence, seed=seed)
    return {name: float(lost.mean()), f"{name}_low": low, f"{name}_high": high}


def _difference(a: Any, b: Any, axis: int = -1) -> Any:
    return np.mean(a, axis=axis) - np.mean(b, axis=axis)


def _mcnemar(lost: Any) -> float:
    """McNemar's exact test: of the answers that changed, were as many lost as won?"""
    changed = int(np.count_nonzero(lost))
    if not changed:
        return 1.0
    return float(stats.binomtest(int((lost > 0).sum()), changed).pvalue)
