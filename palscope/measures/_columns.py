"""The tokens of a prompt, as measures name them in their tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
from jaxtyping import Int
from torch import Tensor

from palscope._hooks import HookedAudioModel
from palscope._routing import LayerColumns, Level, Route, TokenLayout
from palscope._routing.row_columns import named_columns, text_columns
from palscope._whole import whole_numbers
from palscope.errors import PromptError

TEXT_PATHWAY = "text"
"""Name of the pathway that is words."""

NO_SOUND = (TEXT_PATHWAY, "filler")
"""Names of pathways that are no streams."""

HEAD = ["row", "query", "layer", "head"]
"""Columns of a table that name one softmax: its masses sum to 1."""


Queries = Sequence[int] | Literal["text"]
"""Which tokens are asked: columns of `input_ids`, or "text", all text tokens of each row.

A negative column counts each row's real tokens from the right: -1 is the last, which predicts the
answer.
"""


def query_columns(layout: TokenLayout, queries: Queries) -> list[list[int]]:
    """The columns asked for in each row.

    Raises:
        PromptError: none is given, or one does not exist or is padding.
    """
    rows = range(layout.stream.shape[0])
    if isinstance(queries, str):
        if queries == "text":
            return [text_columns(layout, row) for row in rows]
        raise PromptError(
            f"queries {queries!r} are unknown; give columns, which are whole numbers, or 'text' "
            "for all text."
        )
    queries = whole_numbers(queries, "queries", error=PromptError)
    if not queries:
        raise PromptError("no query was given; -1 is the last token, which predicts the answer.")
    return [named_columns(layout, row, queries) for row in rows]


def running_places(
    columns: LayerColumns, row: int, wanted: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Places in the layer's sequence, and their columns, of those of `wanted` that run there."""
    stands: list[int] = columns.on_host.running[row].tolist()
    running = {column: place for place, column in enumerate(stands)}
    found = [column for column in wanted if column in running]
    return [running[column] for column in found], found


def check_they_run(layout: TokenLayout, route: Route, row: int, wanted: Sequence[int]) -> None:
    """Raise `PromptError` when one of `wanted` runs in none of the layers."""
    streams = [
        name
        for layer in range(route.n_layers)
        for name in route.streams_at(layer, Level.ATTEND, Level.FULL)
    ]
    here = layout.on_host
    runs = here.words[row]
    for name in streams:
        runs = runs | (here.stream[row] == here.stream_index(name))
    for column in wanted:
        if not bool(runs[column]):
            raise PromptError(
                f"query {column} of row {row} runs in no layer under this route (audio that is "
                "keys only has no queries). Ask a text token, or route its stream to run."
            )


def of_each_row(table: pd.DataFrame, mask: Tensor) -> list[pd.DataFrame]:
    """A batch's table as the table that each of its prompts has alone.

    Args:
        table: with `row`, and any of `query`, `key` and `column`, columns of `input_ids`.
        mask: the batch's `attention_mask`; it begins with the padding.
    """
    found: list[pd.DataFrame] = []
    paddings: list[int] = (mask.cumsum(1) == 0).sum(1).tolist()
    for row, padding in enumerate(paddings):
        own = cast(pd.DataFrame, table[table["row"] == row]).reset_index(drop=True)
        columns = [name for name in ("query", "key", "column") if name in table]
        own[columns] = own[columns] - padding
        own["row"] = 0
        found.append(own)
    return found


def head_columns(
    row: int, layer: int, queries: Sequence[int], heads: int, each: int
) -> dict[str, Int[np.ndarray, " masses"]]:
    """The columns `HEAD` of masses `[heads, queries, each]`, put one behind the other."""
    asked, numbers = np.array(queries), np.array(range(heads))
    size = heads * len(queries) * each
    return {
        "row": np.full(size, row),
        "query": np.tile(asked.repeat(each), heads),
        "layer": np.full(size, layer),
        "head": numbers.repeat(len(queries) * each),
    }


def column_labels(
    model: HookedAudioModel, layout: TokenLayout, input_ids: Tensor, row: int
) -> pd.DataFrame:
    """What each column of a row is: `pathway, token, clip, start_s, end_s`, a row a column.

    `pathway` is a categorical of `TokenLayout.pathways`, missing for padding; `token`
    the text of a text token, else "" (also where it is in a cache, and not in `input_ids`); `clip`
    the clip's number in its row, -1 for text; `start_s` and `end_s` are seconds from the clip's
    start, NaN for text.
    """
    labels: Any = layout.table(row)
    names = list(layout.pathways)
    tokenizer: Any = model.tokenizer
    cached: list[int | None] = [None] * (layout.width - input_ids.shape[1])
    given: list[int] = input_ids[row].tolist()
    ids = [*cached, *given]
    labels["token"] = [
        tokenizer.decode([token]) if stream == TEXT_PATHWAY and token is not None else ""
        for token, stream in zip(ids, labels["stream"], strict=True)
    ]
    known = labels["stream"].isin(names)  # padding has no pathway
    labels["pathway"] = pd.Categorical(labels["stream"].where(known), categories=names)
    return labels[["pathway", "token", "clip", "start_s", "end_s"]]
