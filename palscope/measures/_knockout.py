"""Attention knockout: which edges of attention, in which layers, the answer needs.

Edges from text to sound are cut before softmax in a window of layers that slides up the model, and
the answer is compared with that of the run without cuts. Source: Geva et al. 2023 (arXiv
2304.14767), whose window of neighbouring layers is used: a single layer is easily made up for by
those beside it.

What a window without effect says, and what not. The mask is what is cut: the rest of a row's
attention sums to 1 again, so other tokens are read more. And a token that read the sound *below*
the window carries what it read on, into the window and above it. So where cutting changes nothing,
the sound was not needed *from there*; it may well have been read. Cuts in all layers are the
reference for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from palscope._hooks import HookedAudioModel
from palscope._models.scoring import answer_ids, continued
from palscope._routing import Level, Route, TokenLayout
from palscope._routing.row_columns import text_columns
from palscope._statistics import mean_row
from palscope._whole import whole_number
from palscope.errors import PalscopeError
from palscope.interventions import Address, Filler, Knockout, Sound, Text, resolve
from palscope.interventions._address import Tokens
from palscope.interventions._cells import run_cells, with_encoded
from palscope.measures._metrics import Answers, answer_metrics

Reader = Literal["text", "last"]
"""Who reads: all text (what is generated included), or the token alone that predicts the answer."""

READERS: dict[Reader, Text] = {"text": Text(), "last": Text(-1)}
"""The tokens of each."""

_LEAST_TEXT = 3
"""Text tokens of a prompt whose first and last one stay."""

ALL_AUDIO = "all audio"
"""The pathway of an edge to any stream."""

EFFECTS = ("logprob_change", "logit_diff_change", "kl", "flipped")
"""What a cut does to the answer: columns of `attention_knockout`."""


@dataclass(frozen=True)
class Edges:
    """Edges of attention that are cut together, and what they are called in the table.

    Attributes:
        cuts: (queries, keys): every edge from one of these queries to one of these keys.
        labels: columns of the table.
        heads: query heads in which they are cut; None for all.
    """

    cuts: tuple[tuple[Tokens, Tokens], ...]
    labels: Mapping[str, Any] = field(default_factory=dict[str, Any])
    heads: tuple[int, ...] | None = None


# -- which layers ---------------------------------------------------------------------------------


def sliding_windows(n_layers: int, width: int, step: int) -> list[range]:
    """Windows of `width` neighbouring layers, `step` apart, the last one up to the top layer.

    Raises:
        PalscopeError: `width` is not 1 to `n_layers`, or `step` not 1 to `width`: layers would be
            left out.
    """
    width, step = whole_number(width, "width"), whole_number(step, "step")
    if not 1 <= width <= n_layers or not 1 <= step <= width:
        raise PalscopeError(
            f"windows of {width} layers, {step} apart, do not cover {n_layers} layers; give a "
            f"width from 1 to {n_layers} and a step from 1 to the width."
        )
    last = n_layers - width
    return [range(first, first + width) for first in (*range(0, last, step), last)]


# -- edges ----------------------------------------------------------------------------------------


def text_to_audio(
    route: Route,
    *,
    readers: Iterable[Reader] = ("text", "last"),
    segments: Mapping[str, Sound] | None = None,
) -> list[Edges]:
    """Edges from each reader to each stream of the route, and to all streams where it has several.

    Args:
        segments: stretches of the clip by name, each cut by itself; None for all of the clip.

    Returns:
        Labels are `queries, pathway, segment, start_s, end_s` (the last three missing for a whole
        clip).
    """
    names: list[str | None] = [stream.name for stream in route.streams if route.layers(stream.name)]
    made: list[Edges] = []
    for reader in readers:
        for name in [*names, None] if len(names) > 1 else names:
            for segment, sound in (segments or {None: Sound()}).items():
                labels = {"queries": reader, "pathway": name or ALL_AUDIO, "segment": segment}
                seconds = {"start_s": sound.start, "end_s": sound.end} if segment else {}
                cut = (READERS[reader], replace(sound, stream=name))
                made.append(Edges((cut,), labels | seconds))
    return made


def cuts_of_text(
    route: Route,
    sounds: Iterable[Sound],
    *,
    layers: Iterable[int] | None = None,
    heads: tuple[int, ...] | None = None,
) -> list[Knockout]:
    """Text no longer reads each sound, in those of `layers` in which the route lets it.

    None of `layers` or `heads` stands for all; a sound that none of the layers sees has no cut.
    """
    made: list[Knockout] = []
    for sound in sounds:
        names = [each.name for each in route.streams if sound.stream in (None, each.name)]
        seen = {layer for name in names for layer in route.layers(name)}
        chosen = None if layers is None else tuple(sorted(seen & set(layers)))
        if chosen != ():
            made.append(Knockout(Address("pattern", sound, chosen, heads)))
    return made


def audio_to_audio(model: HookedAudioModel, inputs: Mapping[str, Any]) -> list[Edges]:
    """Edges among audio tokens, for every stream that runs: to itself, and to each other stream.

    In its own stream every token keeps itself. Labels as those of `text_to_audio`, `queries` being
    the stream that reads.
    """
    route = model.current_route
    made: list[Edges] = []
    for reader in route.streams:
        if not route.layers(reader.name, Level.ATTEND, Level.FULL):
            continue
        for read in route.streams:
            if not route.layers(read.name):
                continue
            cuts = ((Sound(stream=reader.name), Sound(stream=read.name)),)
            if reader == read:
                cuts = _to_the_left(_seconds(model, inputs, read.name), read.name)
            if cuts:
                made.append(Edges(cuts, {"queries": reader.name, "pathway": read.name}))
    return made


def through_fillers(model: HookedAudioModel, inputs: Mapping[str, Any]) -> list[Edges]:
    """Edges of the by-way from sound to text over a clip's fillers; none where there are none.

    Labels as those of `text_to_audio`: from text to "filler", and from "filler" to each stream.
    """
    layout = model.layout(inputs)
    if "filler" not in layout.pathways:
        return []
    heard = [
        Edges(
            ((Filler(), Sound(stream=stream.name)),), {"queries": "filler", "pathway": stream.name}
        )
        for stream in model.current_route.streams
        if model.current_route.layers(stream.name)
    ]
    read = Edges(((Text(), Filler()),), {"queries": "text", "pathway": "filler"})
    return [read, *(heard if layout.fillers_hear else ())]


def and_fillers(edges: Sequence[Edges], layout: TokenLayout) -> list[Edges]:
    """Edges that beside all text cut off the fillers, through which it would hear, if there are."""
    if not layout.fillers_hear:
        return list(edges)
    return [
        replace(
            each,
            cuts=(
                *each.cuts,
                *((Filler(), keys) for queries, keys in each.cuts if queries == Text()),
            ),
        )
        for each in edges
    ]


def has_other_text(model: HookedAudioModel, inputs: Mapping[str, Any], answers: Answers) -> bool:
    """Whether a prompt has text that `text_to_text` can cut; a transcriber's has not."""
    return len(text_columns(model.layout(answers.behind(inputs)), 0)) >= _LEAST_TEXT


def text_to_text(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    count: int,
    *,
    answers: Answers,
    reader: Reader,
    seed: int,
) -> Edges:
    """The control: edges from text to `count` random text tokens instead of as many of sound.

    Fewer where the prompt has no more. Every token keeps itself, and the first of the prompt, on
    which attention rests that has nothing to find (a sink), is kept too. What both answers begin
    with is text of the prompt, as in `attention_knockout`: its last token, which predicts the
    deciding one, is cut off like all others. Labels as those of `text_to_audio`, with pathway
    "text".

    Raises:
        PalscopeError: the prompt has fewer than three text tokens.
    """
    layout = model.layout(answers.behind(inputs))
    text = text_columns(layout, 0)
    if len(text) < _LEAST_TEXT:
        raise PalscopeError("the prompt has no text to cut but its first and last token.")
    spare = text[1:-1]
    order = np.random.default_rng(seed).permutation(len(spare))[:count]
    keys = sorted(spare[int(place)] for place in order)
    labels = {"queries": reader, "pathway": "text"}
    if reader == "last":
        return Edges(((Text(-1), Text(tuple(keys))),), labels)
    # A token's own key must stay: only those to its right are cut off from it.
    cuts = [(Text(tuple(q for q in text if q > key)), Text((key,))) for key in keys]
    return Edges(tuple(cuts), labels)


def _seconds(
    model: HookedAudioModel, inputs: Mapping[str, Any], stream: str
) -> list[tuple[float, float]]:
    table: Any = model.layout(inputs).table(0)
    mine = table[(table["stream"] == stream) & (table["clip"] == 0)]
    return [(float(a), float(b)) for a, b in zip(mine["start_s"], mine["end_s"], strict=True)]


def _to_the_left(
    seconds: Sequence[tuple[float, float]], stream: str
) -> tuple[tuple[Sound, Sound], ...]:
    """From the tokens right of each token to it; the last has none."""
    return tuple(
        (Sound(end, None, stream), Sound(start, end, stream)) for start, end in seconds[:-1]
    )


# -- the measure ----------------------------------------------------------------------------------


def attention_knockout(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    edges: Sequence[Edges],
    windows: Sequence[Sequence[int]],
    *,
    answers: Answers,
    batch_size: int | None = None,
) -> pd.DataFrame:
    """Cut each of `edges` in each window of layers, and measure the answer to one prompt.

    The model's current route is taken; a window in which none of the edges stands has no row.

    Args:
        inputs: one prompt. `Text(-1)` is the token that predicts the deciding token: what both
            answers begin with is put behind the prompt.
        windows: of `sliding_windows`, or any layers in order; `range(n_layers)` cuts everywhere.

    Returns:
        First the run without cuts (`run` "plain", its labels missing), then one row a cut ("cut"):
        `run, LABELS…, first_layer, last_layer` (of the window), `layers` (how many of them have
        such edges), `keys` (tokens that are not read), `logit_diff, logprob, kl, rank`
        (`answer_metrics`, `kl` from the run without cuts, in nats), the differences to that run
        `logit_diff_change, logprob_change` (nats), and `flipped`: whether the likeliest token is
        another.

    Raises:
        PalscopeError: there are no edges or no windows, or edges that stand in no layer.
    """
    if not edges or not windows:
        raise PalscopeError("a knockout needs edges to cut and windows of layers to cut them in.")
    inputs = with_encoded(model, answers.behind(inputs))
    rows: list[dict[str, Any]] = [{"run": "plain"}]
    cells: list[list[Knockout]] = [[]]
    for each in edges:
        addresses = [
            Address("pattern", keys, heads=each.heads, queries=queries)
            for queries, keys in each.cuts
        ]
        parts = [resolve(model, inputs, address).parts for address in addresses]
        keys = {int(column) for found in parts for part in found for column in part.columns}
        for window in windows:
            inside = [
                sorted({p.layer for p in found if p.layer is not None and p.layer in window})
                for found in parts
            ]
            cell = [
                Knockout(replace(address, layers=tuple(layers)))
                for address, layers in zip(addresses, inside, strict=True)
                if layers
            ]
            if cell:
                cells.append(cell)
                rows.append(
                    {
                        "run": "cut",
                        **each.labels,
                        "first_layer": window[0],
                        "last_layer": window[-1],
                        "layers": len({layer for layers in inside for layer in layers}),
                        "keys": len(keys),
                    }
                )
    logits = run_cells(model, inputs, cells, batch_size=batch_size)
    table = pd.concat([pd.DataFrame(rows), answer_metrics(logits, answers, logits[0])], axis=1)
    for metric in ("logit_diff", "logprob"):
        table[f"{metric}_change"] = table[metric] - table[metric].iloc[0]
    best = logits.argmax(-1)
    table["flipped"] = (best != best[0]).numpy()
    return table


def generated_knockout(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    windows: Sequence[range],
    *,
    answer: str,
    batch_size: int | None = None,
) -> pd.DataFrame:
    """Cut the edges from the tokens of an answer to sound; the prompt reads it as ever.

    The answer's first token is predicted by the prompt, so this is about the others and the end.

    Returns:
        As `attention_knockout`, `queries` being "generated"; log-probabilities and `kl` are sums
        over the answer's tokens from the second to the end, `flipped` says whether any of them is
        no longer the likeliest that was, and `logit_diff` and `rank` are missing.
    """
    ids = answer_ids(model.processor, answer)
    width = int(inputs["input_ids"].shape[1])
    tables: list[Any] = []
    for count in range(1, len(ids)):
        written = Text(tuple(range(width, width + count)))
        edges = [
            Edges(
                tuple((written, keys) for _, keys in each.cuts),
                {**each.labels, "queries": "generated"},
            )
            for each in text_to_audio(model.current_route, readers=("text",))
        ]
        tables.append(
            attention_knockout(
                model,
                continued(inputs, ids[:count]),
                edges,
                windows,
                answers=Answers((), ids[count], None),
                batch_size=batch_size,
            )
        )
    total = tables[0].copy()
    for name in ("logprob", "logprob_change", "kl"):
        total[name] = sum(table[name] for table in tables)
    total["flipped"] = np.logical_or.reduce([table["flipped"] for table in tables])
    return total.assign(rank=float("nan"))


# -- over clips -----------------------------------------------------------------------------------


def knockout_effects(
    table: pd.DataFrame,
    by: Sequence[str],
    *,
    effect: str = "logprob_change",
    item: str = "clip",
    confidence: float = 0.95,
) -> pd.DataFrame:
    """The mean effect of each cut over clips, with its interval.

    Args:
        table: of `attention_knockout` for several clips.
        by: labels, `first_layer` and `last_layer`, as far as they are to be kept apart.
        effect: one of `EFFECTS`. The mean of `flipped` is the share of clips.
        item: the column that names the clip; several rows of one are averaged first.

    Returns:
        `BY…, effect, low, high, values, n`; of too few clips (`palscope._statistics`) `low` and
        `high` are NaN, and `values` has each clip's.

    Raises:
        PalscopeError: the effect is not known, or is missing in every row.
    """
    if effect not in EFFECTS:
        raise PalscopeError(f"no effect {effect!r}; there are: {', '.join(EFFECTS)}.")
    whole: Any = table
    cuts = whole[whole["run"] == "cut"].dropna(subset=[effect])
    if not len(cuts):
        raise PalscopeError(f"{effect} is missing in every row; choose another effect.")
    rows: list[dict[str, Any]] = []
    for labels, group in cuts.groupby(list(by), dropna=False, sort=False):
        values = group[effect].astype(float).groupby(group[item], sort=False).mean().to_numpy()
        limits = (0, 1) if effect == "flipped" else (None, None)
        names: dict[str, Any] = dict(zip(by, labels, strict=True))
        rows.append({**names, **mean_row(values, "effect", confidence=confidence, limits=limits)})
    return pd.DataFrame(rows)
