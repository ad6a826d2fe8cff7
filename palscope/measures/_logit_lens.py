"""Logit lens: which words the residual stream already says, at text and at audio that runs.

Audio that is keys only (LAL) has no residual stream: `palscope.measures._key_writes` reads it by
what it writes.

Source: nostalgebraist, "interpreting GPT: the logit lens" (2020).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from palscope._hooks import HookedAudioModel
from palscope._routing import LayerColumns
from palscope.errors import PalscopeError
from palscope.measures._columns import (
    TEXT_PATHWAY,
    check_they_run,
    column_labels,
    query_columns,
    running_places,
)
from palscope.measures._vocabulary import (
    answer_entries,
    beside,
    check_asked,
    named_tokens,
    top_entries,
    unembed,
)

TOKEN = ["row", "layer", "site", "column", "pathway", "token", "clip", "start_s", "end_s"]
"""Columns of `logit_lens` that name one reading: one token after one layer."""


def logit_lens(
    model: HookedAudioModel,
    inputs: Mapping[str, Any],
    *,
    tokens: Sequence[int] | None = None,
    answers: Sequence[str | int] = (),
    top_k: int = 5,
) -> pd.DataFrame:
    """The decoder's own output, had it ended after each layer, at tokens that run.

    The state after a layer goes through the final norm, the unembedding and, where the family has
    one, the soft cap; after the last layer these are the model's logits. Hooks that are already set
    stay in effect.

    Args:
        inputs: what `model.inputs` gives.
        tokens: columns of `input_ids`, negative ones from each row's end; all that run by default.
        answers: entries to list for every token: vocabulary ids, or words, of which the first
            token counts (see `answer_entries`).
        top_k: that many of the highest entries are listed too.

    Returns:
        One row a (row, layer, site, column, id). `site` is "resid_pre" for what enters layer 0 and
        "resid_post" for what leaves `layer`; `column` of `input_ids`; `pathway, token, clip,
        start_s, end_s` say what stands there, as in `attention_mass`; `id` and `entry`, a word of
        the vocabulary; `logit`; `logprob`, its natural logarithm after softmax; `rank` in the
        vocabulary, 0 the highest. A token has no rows in layers where it does not run.

    Raises:
        PromptError: a token does not exist, is padding, or runs in no layer.
        PalscopeError: neither answers nor a top k are asked for, or an answer is no entry.
    """
    ids = answer_entries(model, answers)
    check_asked(ids, top_k)
    layout = model.layout(inputs)
    route = model.current_route
    columns = [layout.layer_columns(route, layer) for layer in range(route.n_layers)]
    if tokens is None:
        places = [_that_run(columns, row) for row in range(layout.stream.shape[0])]
    else:
        places = query_columns(layout, tokens)
        for row, wanted in enumerate(places):
            check_they_run(layout, route, row, wanted)
    labels = [column_labels(model, layout, inputs["input_ids"], row) for row in range(len(places))]
    parts: list[pd.DataFrame] = []

    def read(layer: int, site: str) -> Any:
        def hook(states: Float[Tensor, "batch running d_model"], hook: Any) -> None:
            for row, wanted in enumerate(places):
                at, found = running_places(columns[layer], row, wanted)
                if not at:
                    continue
                entries = top_entries(
                    model, unembed(model, states[row, at]), ids, top_k, probs=True
                )
                where = named_tokens(labels[row], found, row=row, layer=layer, site=site)
                parts.append(beside(where, entries))

        return hook

    hooks = [("blocks.0.hook_resid_pre", read(0, "resid_pre"))]
    hooks += [
        (f"blocks.{layer}.hook_resid_post", read(layer, "resid_post"))
        for layer in range(route.n_layers)
    ]
    with torch.no_grad():
        model.run_with_hooks(dict(inputs), fwd_hooks=hooks, logits_to_keep=1)
    return pd.concat(parts, ignore_index=True)


def answer_lead(
    table: pd.DataFrame, answer: str, choices: Mapping[str, Sequence[int]]
) -> pd.DataFrame:
    """How far an answer is ahead of the other choices at each token, after each layer.

    Of a choice that can be spelt in several ways the highest entry counts.

    Args:
        table: from `logit_lens`, with all entries of `choices` among its answers.
        answer: the right one, one of `choices`.
        choices: all that may be answered, with their entries: see `spellings`.

    Returns:
        A row a token and layer: the columns of `logit_lens` that name it, `lead`, the answer's
        logit less the highest of the other choices, `leads`, 1.0 where that is above 0, else 0.0,
        and the answer's `logprob` and `rank` in the whole vocabulary.
    """
    joined = _lead(table, answer, choices, ["row", "layer", "site", "column"])
    return joined[[*TOKEN, "lead", "leads", "logprob", "rank"]]


def written_lead(
    table: pd.DataFrame, answer: str, choices: Mapping[str, Sequence[int]]
) -> pd.DataFrame:
    """`answer_lead` of what pathways write: a row a (row, query, layer, pathway).

    Args:
        table: from `written_by_pathway`, with all entries of `choices` among its answers.
        answer: as in `answer_lead`.
        choices: likewise.

    Returns:
        `row, query, layer, pathway`, `lead` in logits, `leads`, and `rank`, the answer's among all
        contributions.
    """
    return _lead(table, answer, choices, ["row", "query", "layer", "pathway"])


def by_depth(lead: pd.DataFrame, written: pd.DataFrame | None = None) -> pd.DataFrame:
    """How readable the answer of one prompt is at each place, by layers passed.

    Args:
        lead: from `answer_lead`: the last token, and any others.
        written: from `written_lead`, of the same prompt.

    Returns:
        `place, depth, lead, leads, rank`: `place` is "last token", a stream ("frames", "summary":
        means over its tokens), "other text", or "written by " a stream, what attention of the layer
        moved from it to the last token; `depth`, 0 for what enters the first layer, else the number
        of layers passed.
    """
    whole: Any = lead
    last = whole["column"] == whole.loc[whole["pathway"] == TEXT_PATHWAY, "column"].max()
    place = whole["pathway"].astype(str).replace({TEXT_PATHWAY: "other text"})
    depth = whole["layer"] + (whole["site"] == "resid_post")
    parts = [whole.assign(place=place.mask(last, "last token"), depth=depth)]
    if written is not None:
        moved: Any = written
        of = "written by " + moved["pathway"].astype(str)
        parts.append(moved.assign(place=of, depth=moved["layer"] + 1))
    both: Any = pd.concat([part[["place", "depth", "lead", "leads", "rank"]] for part in parts])
    return both.groupby(["place", "depth"], sort=True).mean().reset_index()


def readable_from(table: pd.DataFrame) -> pd.DataFrame:
    """The depth from which on one prompt's answer leads at each place, to the end.

    Args:
        table: from `by_depth`. Of a stream the answer leads where it does so at half of its tokens.

    Returns:
        `place, readable_from`: layers passed; NaN where the answer does not lead at the end.
    """
    rows: list[dict[str, Any]] = []
    whole: Any = table
    for place, depths in whole.groupby("place", sort=True):
        ordered = depths.sort_values("depth", ascending=False)
        held = (ordered["leads"] >= 0.5).cummin()
        rows.append({"place": place, "readable_from": ordered.loc[held, "depth"].min()})
    return pd.DataFrame(rows)


def _lead(
    table: pd.DataFrame, answer: str, choices: Mapping[str, Sequence[int]], name: list[str]
) -> Any:
    """The best spelling of `answer` in each group of `name`, and its lead over the others."""
    if answer not in choices or len(choices) < 2:
        raise PalscopeError(
            f"the answer {answer!r} must be one of two choices or more; got {list(choices)}."
        )
    word = {id: choice for choice, ids in choices.items() for id in ids}
    listed: Any = table[table["id"].isin(list(word))]
    right = listed["id"].map(word) == answer
    best: Any = listed[~right].groupby(name, observed=True)["logit"].max().rename("best")
    own: Any = listed[right].sort_values("logit", ascending=False).drop_duplicates(name)
    joined = own.sort_index().merge(best.reset_index(), on=name, validate="one_to_one")
    joined["lead"] = joined["logit"] - joined["best"]
    joined["leads"] = (joined["lead"] > 0).astype(float)
    return joined.drop(columns=["id", "entry", "logit", "best"])


def _that_run(columns: Sequence[LayerColumns], row: int) -> list[int]:
    return sorted({int(c) for layer in columns for c in layer.running[row] if c >= 0})
