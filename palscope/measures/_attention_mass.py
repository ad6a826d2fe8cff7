"""Attention mass: how much of a query's attention goes to text, to each stream, to each moment.

Source: the attention analysis of the PAL paper (arXiv 2506.10423), here for any route.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from palscope._hooks import HookedAudioModel
from palscope.errors import PalscopeError
from palscope.measures._attention_rows import (
    AttentionRows,
    asked_columns,
    check_sums,
    read_attention_rows,
    sum_tolerance,
)
from palscope.measures._columns import HEAD, NO_SOUND, Queries, column_labels, head_columns

_PADDING_TOLERANCE = 1e-6


def attention_mass(
    model: HookedAudioModel, inputs: Mapping[str, Any], *, queries: Queries = (-1,)
) -> pd.DataFrame:
    """Attention of chosen query tokens to every key, under the model's current route.

    Attention stays fused; only the queries' rows of patterns are computed. Hooks that are already
    set on the model stay in effect, so an intervention can be measured. For sums alone,
    `pathway_mass` makes a smaller table.

    Args:
        inputs: what `model.inputs` gives; encoded clips (`audio`) serve as well.
        queries: columns of `input_ids`; a negative one counts each row's real tokens from the
            right: -1 is the last token, which predicts the answer. "text" is every text token.

    Returns:
        One row a (row, query, layer, head, key), padding left out. The columns are `row` of the
        batch; `query` and `key`, columns of `input_ids`; `layer`; `head`; `pathway`, a categorical
        of "text" and the checkpoint's streams; `token`, the text of a text key, else ""; `clip`,
        the clip's number in its row, -1 for text; `start_s`, `end_s`, the key's sound in seconds
        from its clip's start, NaN for text; `mass`, the share of attention, from 0 to 1. The masses
        of one (row, query, layer, head) sum to 1; of an encoder–decoder, those of words and those
        of sound do, which are two attentions of the layer with as many heads. A stream that a layer
        cannot see has no rows there, and a query has none in layers where it does not run.

    Raises:
        PromptError: a query does not exist, is padding, or runs in no layer.
        PalscopeError: the model gave masses that do not sum to 1 (NaN weights, for example).
    """
    layout = model.layout(inputs)
    asked = asked_columns(model, layout, queries)
    found: dict[tuple[int, int, bool], list[_Part]] = {}

    def keep(rows: AttentionRows) -> None:
        keys = rows.columns.on_host.keys[rows.row].numpy()
        part = _Part(rows.queries, keys, rows.weights.cpu().numpy())
        found.setdefault((rows.row, rows.layer, rows.crossed), []).append(part)

    read_attention_rows(model, inputs, asked, keep)
    labels = [column_labels(model, layout, inputs["input_ids"], row) for row in range(len(asked))]
    tolerance = sum_tolerance(model)
    parts = {key: _checked(found[key], *key, tolerance) for key in sorted(found)}
    return _table(parts, labels)


def by_pathway(table: pd.DataFrame, pathways: Sequence[str] | None = None) -> pd.DataFrame:
    """Mass of each pathway: `row, query, layer, head, pathway, mass`.

    Every pathway has a row in every layer. Its mass is NaN where the layer cannot see it: nothing
    there can be given attention, which is not the same as being given none.

    Args:
        table: from `attention_mass`.
        pathways: those to list; by default all: "text", "filler" where there are any, and the
            checkpoint's streams.
    """
    listed = list(pathways or _pathways(table))
    sums: Any = table.groupby([*HEAD, "pathway"], observed=True)["mass"].sum()
    wide = cast(Any, sums.unstack("pathway").reindex(columns=listed))
    names = wide.index.repeat(len(listed)).to_frame(index=False)
    whole = pd.Categorical(np.tile(listed, len(wide)), categories=listed)
    return names.assign(pathway=whole, mass=wide.to_numpy().reshape(-1))


def over_time(table: pd.DataFrame, pathway: str | None = None) -> pd.DataFrame:
    """Mass of each slice of time, averaged over the layers and heads in `table`.

    Take the layers and heads of interest first: `over_time(table[table["layer"] == 3])`. A layer
    that cannot see a stream counts as 0 in its mean.

    Args:
        table: from `attention_mass`.
        pathway: one stream; all of them by default.

    Returns:
        `row, query, pathway, clip, start_s, end_s, mass`, one row an audio token (slices of time
        differ in length between streams), in order of time.
    """
    whole: Any = table
    sound = whole[~whole["pathway"].isin(NO_SOUND)]
    if pathway is not None:
        known = [name for name in _pathways(table) if name not in NO_SOUND]
        if pathway not in known:
            raise PalscopeError(
                f"no stream {pathway!r} in the table; it has: {', '.join(known) or 'none'}."
            )
        sound = sound[sound["pathway"] == pathway]
    slices = ["row", "query", "pathway", "clip", "start_s", "end_s"]
    sums: Any = sound.groupby(slices, observed=True)["mass"].sum().reset_index()
    heads = whole[HEAD].drop_duplicates().groupby(["row", "query"]).size().rename("heads")
    sums = sums.merge(heads.reset_index(), on=["row", "query"])
    sums["mass"] /= sums.pop("heads")
    return sums


def _pathways(table: pd.DataFrame) -> list[str]:
    column: Any = table["pathway"]
    categorical = isinstance(column.dtype, pd.CategoricalDtype)
    found = cast(Any, column.dtype.categories if categorical else column.unique())
    return [str(name) for name in found]


class _Part(NamedTuple):
    """Masses of some queries over one layer's keys; `queries` and `keys` are columns."""

    queries: list[int]
    keys: Int[np.ndarray, " keys"]
    mass: Float[np.ndarray, "heads queries keys"]


def _checked(
    blocks: Sequence[_Part], row: int, layer: int, crossed: bool, tolerance: float
) -> _Part:
    """One attention's blocks in one, its keys in order of the columns, without padding."""
    queries = [query for block in blocks for query in block.queries]
    mass = np.concatenate([block.mass for block in blocks], axis=1)
    keys: Any = blocks[0].keys
    real = keys >= 0
    # A query that is cut off from all that is crossed reads an empty key, which is no padding.
    if not crossed and np.abs(mass[..., ~real]).max(initial=0) > _PADDING_TOLERANCE:
        raise PalscopeError(
            f"layer {layer}, row {row}: attention went to padding; this is a fault of palscope's."
        )
    check_sums(mass.sum(-1), row, layer, tolerance)
    # The layer's keys are its audio memory first; the table goes by column.
    order = np.argsort(keys)[int((~real).sum()) :]
    return _Part(queries, keys[order], mass[..., order])


def _table(
    parts: Mapping[tuple[int, int, bool], _Part], labels: Sequence[pd.DataFrame]
) -> pd.DataFrame:
    """All parts, by (row, layer, attention), as one table; `labels` of each row's columns."""
    columns: dict[str, list[Any]] = {name: [] for name in [*HEAD, "key", "place", "mass"]}
    width = len(labels[0])
    for (row, layer, _), (queries, keys, mass) in parts.items():
        heads, n_queries, n_keys = mass.shape
        for name, values in head_columns(row, layer, queries, heads, n_keys).items():
            columns[name].append(values)
        columns["key"].append(np.tile(keys, heads * n_queries))
        columns["place"].append(columns["key"][-1] + row * width)
        columns["mass"].append(mass.reshape(-1))
    whole = {name: np.concatenate(values) for name, values in columns.items()}
    each: Any = pd.concat(labels, ignore_index=True).iloc[whole.pop("place")]
    each = each.reset_index(drop=True)
    for at, name in enumerate([*HEAD, "pathway", "key"]):
        if name != "pathway":
            each.insert(at, name, whole[name])
    each["mass"] = whole["mass"]
    return each
