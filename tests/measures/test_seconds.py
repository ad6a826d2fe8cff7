"""Mass of a stretch of sound against sums made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palscope import measures
from palscope.errors import PalscopeError
from palscope.measures._columns import HEAD
from palscope.measures._seconds import by_seconds, mass_per_second, tokens_within
from tests.measures.conftest import padded_batch

m: Any = measures


def test_a_stretch_takes_the_tokens_that_overlap_it(pal: Any) -> None:
    table = m.attention_mass(pal, padded_batch(pal))
    second = table[table["row"] == 1]  # clips of 0.75 and 0.3 s
    covered = tokens_within(second, 0.25, 0.4, clip=0).set_index("pathway")
    assert covered.loc["frames"].tolist() == [2, pytest.approx(0.2), pytest.approx(0.4)]
    assert covered.loc["summary"].tolist() == [2, pytest.approx(0.0), pytest.approx(0.6)]
    masses = by_seconds(second, 0.25, 0.4, clip=0)
    assert len(masses) == len(second[HEAD].drop_duplicates())
    own = second[(second["clip"] == 0) & (second["layer"] == 0) & (second["head"] == 2)]
    frames = own[own["pathway"] == "frames"].sort_values("start_s")["mass"].to_numpy()
    summary = own[own["pathway"] == "summary"].sort_values("start_s")["mass"].to_numpy()
    got = masses[(masses["layer"] == 0) & (masses["head"] == 2)]["mass"].item()
    assert got == pytest.approx(frames[2:4].sum() + summary[:2].sum())


def test_stretches_that_tile_a_clip_make_up_all_of_its_mass(pal: Any) -> None:
    table = m.attention_mass(pal, padded_batch(pal))
    first = table[table["row"] == 0]
    whole = by_seconds(first, 0, 0.5)["mass"]
    parts = [by_seconds(first, a, b)["mass"] for a, b in ((0, 0.3), (0.3, 0.5))]
    np.testing.assert_allclose(whole, parts[0] + parts[1], atol=1e-6)
    assert (whole > 0).all()


def test_layers_that_see_no_such_token_have_no_mass(pal: Any) -> None:
    table = m.attention_mass(pal, padded_batch(pal))
    frames = table[(table["row"] == 0) & (table["pathway"] != "summary")]
    masses = by_seconds(frames, 0, 0.2).set_index("layer")["mass"]
    assert masses.loc[[1, 3]].isna().all() and (masses.loc[[0, 2]] > 0).all()


@pytest.mark.parametrize("stretch", [(0.2, 0.2), (0.3, 0.1), (0.9, 1.2), (float("nan"), 1)])
def test_empty_and_foreign_stretches_are_refused(pal: Any, stretch: tuple[float, float]) -> None:
    table = m.attention_mass(pal, padded_batch(pal))
    with pytest.raises(PalscopeError, match=r"stretch of time|overlaps"):
        by_seconds(table[table["row"] == 0], *stretch)


@given(st.integers(0, 200), st.floats(0.15, 2.0), st.sampled_from([0.1, 0.16, 0.25]))
@settings(max_examples=15, deadline=None)
def test_mass_a_second_keeps_the_mass_whatever_the_tokens_length(
    seed: int, seconds: float, step: float
) -> None:
    rng = np.random.default_rng(seed)
    tables = []
    for pathway, token in (("frames", 0.1), ("summary", 0.3)):
        starts = np.arange(0, seconds - 1e-9, token)
        ends = np.minimum(starts + token, seconds)  # the clip's end cuts the last one
        mass = rng.random(len(starts))
        tables.append(
            pd.DataFrame({"pathway": pathway, "start_s": starts, "end_s": ends, "mass": mass})
        )
    tokens = pd.concat(tables)
    edges = np.arange(int(2.2 / step) + 1) * step
    binned = mass_per_second(tokens, edges)
    assert binned.index.is_unique
    for pathway, rows in binned.groupby("pathway"):
        own = tokens[tokens["pathway"] == pathway]
        lasts = np.clip(seconds - rows["start_s"], 0, step)
        assert (rows["mass"].isna() == (lasts < step / 2 - 1e-9)).all()
        kept = float((rows["mass"] * lasts)[rows["mass"].notna()].sum())
        cut = lasts[rows["mass"].isna()].sum()
        if cut == 0:
            assert kept == pytest.approx(own["mass"].sum())
        assert kept <= own["mass"].sum() + 1e-9
    # the same attention a second is one height, whatever a token is long
    even = tokens.assign(mass=0.2 * (tokens["end_s"] - tokens["start_s"]))
    flat = mass_per_second(even, edges)["mass"].dropna()
    np.testing.assert_allclose(flat, 0.2)
