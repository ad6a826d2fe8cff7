"""Masses of sets are sums of the masses of their keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from palscope import measures as m
from palscope._routing import Route
from palscope.errors import PalscopeError, PromptError
from palscope.measures._columns import HEAD
from palscope.measures._seconds import by_seconds
from tests import tiny
from tests.hooks.conftest import noise
from tests.measures.conftest import PAL, padded_batch

# pandas is typed in part only; what tests do with tables is checked by running them.
attention_mass: Any = m.attention_mass
pathway_mass: Any = m.pathway_mass
set_mass: Any = m.set_mass


@pytest.mark.parametrize("queries", [(-1,), (-3, -1), "text"])
@pytest.mark.parametrize("route", [PAL, PAL.mute("frames"), PAL.mute("frames").mute("summary")])
def test_pathways_sum_their_keys(pal: Any, route: Route, queries: Any) -> None:
    inputs = padded_batch(pal)
    with pal.route(route):
        table = pathway_mass(pal, inputs, queries=queries)
        wanted = m.by_pathway(attention_mass(pal, inputs, queries=queries))
    pd.testing.assert_frame_equal(table, wanted, atol=1e-5, rtol=0, check_dtype=False)
    np.testing.assert_allclose(table.groupby(HEAD)["mass"].sum(), 1, atol=1e-5)


def test_all_text_is_each_row_s_own(pal: Any) -> None:
    inputs = padded_batch(pal)
    table = pathway_mass(pal, inputs, queries="text")
    for row, stream in enumerate(pal.layout(inputs).stream):
        mine = table[table["row"] == row]
        assert sorted(mine["query"].unique()) == (stream == -1).nonzero()[:, 0].tolist()
    first = table[(table["row"] == 0) & (table["query"] == table[table["row"] == 0]["query"].min())]
    assert (first[first["pathway"] == "text"]["mass"] == 1).all()  # before the clip: nothing heard


def test_a_query_has_rows_where_it_runs(make: Any) -> None:
    frozen = make(Route.plits(tiny.LAYERS).frozen_from(2))
    inputs = frozen.inputs("what?", noise(0.5))
    frame = int((frozen.layout(inputs).stream[0] == 0).nonzero()[0])
    assert set(pathway_mass(frozen, inputs, queries=(frame,))["layer"]) == {0, 1}
    pal = make()
    inputs = pal.inputs("what?", noise(0.5))
    frame = int((pal.layout(inputs).stream[0] == 0).nonzero()[0])
    with pytest.raises(PromptError, match="runs in no layer"):
        pathway_mass(pal, inputs, queries=(frame,))
    with pytest.raises(PromptError, match="'words' are unknown"):
        pathway_mass(pal, inputs, queries="words")


@pytest.mark.parametrize(("start_s", "end_s", "clip"), [(0.1, 0.3, 0), (0.05, 0.11, 0), (0, 9, 1)])
def test_seconds_sum_the_tokens_that_overlap(pal: Any, start_s: Any, end_s: Any, clip: int) -> None:
    inputs = padded_batch(pal)
    within = m.seconds_set(pal.layout(inputs), start_s, end_s, clip)
    table = set_mass(pal, inputs, {"stretch": within}, queries=(-1, -2))
    wanted: Any = by_seconds(
        attention_mass(pal, inputs, queries=(-1, -2)), start_s, end_s, clip
    ).sort_values(HEAD, ignore_index=True)
    assert table["set"].unique().tolist() == ["stretch"]
    pd.testing.assert_frame_equal(table.drop(columns="set"), wanted, atol=1e-5, rtol=0)


def test_clips_sum_their_tokens(pal: Any) -> None:
    inputs = padded_batch(pal)
    table = set_mass(pal, inputs, m.clip_sets(pal.layout(inputs)))
    keys = attention_mass(pal, inputs)
    for clip in (0, 1):
        mine = table[table["set"] == f"clip {clip}"].set_index(HEAD)["mass"]
        wanted = keys[keys["clip"] == clip].groupby(HEAD)["mass"].sum().reindex(mine.index)
        np.testing.assert_allclose(mine, wanted, atol=1e-5)
        assert mine.loc[1].min() > 0
    assert table[(table["row"] == 0) & (table["set"] == "clip 1")]["mass"].isna().all()


def test_sets_may_overlap_and_be_empty(pal: Any) -> None:
    inputs = pal.inputs("what?", noise(0.5))
    layout = pal.layout(inputs)
    sets = {"all": layout.real, "frames": layout.stream == 0, "none": layout.stream == 9}
    wide = set_mass(pal, inputs, sets).pivot(index=["layer", "head"], columns="set", values="mass")
    np.testing.assert_allclose(wide["all"], 1, atol=1e-5)
    assert wide["none"].isna().all() and wide["frames"].loc[[1, 3]].isna().all()
    assert (wide["frames"].loc[[0, 2]] > 0).all()


def test_sets_of_another_shape_are_refused(pal: Any) -> None:
    inputs = pal.inputs("what?", noise(0.5))
    layout = pal.layout(inputs)
    with pytest.raises(PalscopeError, match="no set of keys"):
        set_mass(pal, inputs, {})
    with pytest.raises(PalscopeError, match=r"'row' is torch.bool of shape"):
        set_mass(pal, inputs, {"row": layout.real[0]})
    with pytest.raises(PalscopeError, match=r"'ids' is torch.int64"):
        set_mass(pal, inputs, {"ids": layout.stream})
    with pytest.raises(PalscopeError, match=r"clip 0 overlaps 7.00 to 8.00 s.*up to 0.50 s"):
        m.seconds_set(layout, 7, 8)
    with pytest.raises(PalscopeError, match="clip 3 overlaps"):
        m.seconds_set(layout, 0, 1, clip=3)


def test_weights_that_are_nan_are_refused(make: Any) -> None:
    model = make()
    with torch.no_grad():
        model.model.language_model.model.layers[1].self_attn.q_proj.weight.fill_(float("nan"))
    with pytest.raises(
        PalscopeError, match=r"not finite: [\w.]*layers\.1\.self_attn\.q_proj\.weight\. Load"
    ):
        pathway_mass(model, model.inputs("what?", noise(0.5)))
