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
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from palscope._hooks import HookedAudioModel
from palscope._routing import Route
from palscope._statistics import (
    NO_INTERVAL,
    Interval,
    change_interval,
    difference_of,
    false_discovery,
    interval_columns,
    least_p,
    mean_interval,
    paired_p,
    share_interval,
)
from palscope.errors import PalscopeError
from palscope.interventions import Address, Filler, Knockout, Reroute, Sound, Text
from palscope.interventions._cells import with_encoded
from palscope.measures._choices import best_choices, choices_tables, prompts_choice_logprobs

Way = Literal["knockout", "reroute"]
WAYS: tuple[Way, ...] = ("knockout", "reroute")

MASKING = ("masked", "way")
"""The columns that name one."""

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
    """The interventions that take `streams` away from prompts, in every layer and clip.

    What is cut off from sound is text, and fillers, through which text would hear it.
    """
    if way == "reroute":
        route = model.current_route
        for stream in streams:
            route = route.mute(stream)
        return [Reroute(route)]
    layout = model.layout(inputs)
    readers = [Text(), Filler()] if layout.fillers_hear else [Text()]
    return [
        Knockout(Address("pattern", Sound(stream=stream, clip=clip), queries=queries))
        for stream in streams
        for clip in range(max(Counter(layout.clip_row).values(), default=0))
        for queries in readers
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
    `palscope.measures._masking` for what that does and does not say.

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
    if answer not in choices:
        raise PalscopeError(f"the answer {answer!r} must be one of several choices, got {choices}.")
    if inputs["input_ids"].shape[0] != 1:
        raise PalscopeError("an answer is one prompt's; give inputs of one row.")
    (table,) = masked_choices(model, inputs, [choices], ways=ways)
    return best_choices(table, answer, MASKING)


def masked_choices(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    choices: Sequence[Sequence[str]],
    *,
    ways: Sequence[Way] = WAYS,
) -> list[pd.DataFrame]:
    """How probable each choice is with every stream masked in turn, on the model's current route.

    Args:
        inputs: of prompts, which share passes; each of as many clips.
        choices: each prompt's answers to rank.

    Returns:
        A table a prompt, one row a way, masking (`maskings`, that of nothing included) and choice:
        `way, masked, choice`, and `logprob` (nats) of the choice as the whole answer, its end
        included.
    """
    given = with_encoded(model, inputs)
    plain = prompts_choice_logprobs(model, given, choices)
    found = [
        (
            {"way": way, "masked": name},
            prompts_choice_logprobs(model, given, choices, masking(model, given, streams, way))
            if streams
            else plain,
        )
        for way in ways
        for name, streams in maskings(model.current_route).items()
    ]
    return choices_tables(found, choices)


def masking_scores(
    table: pd.DataFrame, *, item: str = "clip", confidence: float = 0.95
) -> pd.DataFrame:
    """Accuracy by domain and masking, and how much of it each masking takes.

    Args:
        table: `pathway_masking` of many clips, with columns `item` and `domain`.
        item: the column that names the clip.

    Returns:
        One row a (domain, way, masked), domain "all" at the end: `n` questions; `accuracy` with its
        interval over clips `low, high`; `drop`, the accuracy lost against nothing masked, with its
        paired interval `drop_low, drop_high`; `p`, that nothing is lost or won (`paired_p`: with
        one question a clip McNemar's exact test), `least_p`, the least that so few clips that
        change can give, and `q`, `p` corrected for all maskings in the table (false discovery
        rate); `logprob_drop`, the answer's mean loss of log-probability (nats) with
        `logprob_drop_low, logprob_drop_high`; and `chance`, the mean over questions. Where clips
        are too few for an interval (`palscope._statistics`) its ends are NaN, and `drop_values` and
        `logprob_drop_values` have each clip's.
    """
    whole: Any = table
    domains: list[tuple[str, Any]] = list(whole.groupby("domain", sort=False))
    if len(domains) > 1:
        domains.append((ALL_DOMAINS, whole))
    rows: list[dict[str, Any]] = []
    for domain, clips in domains:
        for (way, masked), group in clips.groupby(["way", "masked"], sort=False):
            correct = group["correct"].to_numpy(dtype=bool)
            of_clip = group.groupby(item)["correct"].agg(["sum", "size"])
            share = share_interval(of_clip["sum"], of_clip["size"], confidence=confidence)
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
                    **_lost("drop", lost["correct"], masked, confidence),
                    "p": paired_p(lost["correct"]) if masked != NOTHING else np.nan,
                    "least_p": least_p(lost["correct"]) if masked != NOTHING else np.nan,
                    **_lost("logprob_drop", lost["logprob"], masked, confidence),
                    "chance": group["chance"].mean(),
                }
            )
    scores = pd.DataFrame(rows)
    scores.insert(list(scores).index("least_p") + 1, "q", false_discovery(scores["p"]))
    return scores


def domain_contrasts(
    table: pd.DataFrame, *, item: str = "clip", confidence: float = 0.95
) -> pd.DataFrame:
    """Whether a masking hurts one domain more than another.

    Args:
        table: as for `masking_scores`.

    Returns:
        One row a (way, masked, pair of domains): `one, other`; `drop`, the accuracy lost in `one`
        less that lost in `other`, with its interval (`difference_of`) `drop_low, drop_high`; and
        likewise `logprob_drop` (nats). Where a domain's clips are too few both ends are NaN; what
        each clip loses stands in `masking_scores`.
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
                found = difference_of(
                    a.mean(),
                    _of_losses(name, a, confidence),
                    b.mean(),
                    _of_losses(name, b, confidence),
                )
                row |= {f"{name}_low": found.low, f"{name}_high": found.high}
            rows.append(row)
    return pd.DataFrame(rows)


def _losses(clips: Any, way: Any, masked: Any, item: str) -> dict[str, Any]:
    """What each clip loses: 1 an answer that was right and no longer is, -1 the reverse; nats.

    The mean over its questions, where it has several.
    """
    columns = ["correct", "logprob"]
    of_way = clips[clips["way"] == way].astype({"correct": float})
    before, after = (
        of_way[of_way["masked"] == each].groupby(item, sort=False)[columns].mean()
        for each in (NOTHING, masked)
    )
    return {name: (before[name] - after.loc[before.index, name]).to_numpy() for name in columns}


def _lost(name: str, lost: Any, masked: Any, confidence: float) -> dict[str, Any]:
    if masked == NOTHING:  # it loses nothing by definition, which is no finding
        return {name: 0.0, **interval_columns(NO_INTERVAL, (), name)}
    interval = _of_losses(name, lost, confidence)
    return {name: float(lost.mean()), **interval_columns(interval, lost, name)}


def _of_losses(name: str, lost: Any, confidence: float) -> Interval:
    """Of the mean loss: of a share, which lies between -1 and 1, or in nats."""
    if name == "drop":
        return change_interval(lost, confidence=confidence)
    return mean_interval(lost, confidence=confidence)
