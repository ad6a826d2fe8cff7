"""Mass of a stretch of sound against sums made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from palscope import measures
from palscope.errors import PalscopeError
from palscope.measures.columns import HEAD
from tests.measures.conftest import padded_batch

m: Any = measures


def test_a_stretch_takes_the_tokens_that_overlap_it(pal: Any) -> None:
    table = m.attention_mass(pal, padded_batch(pal))
    second = table[table["row"] == 1]  # clips of 0.75 and 0.3 s
    covered = m.tokens_within(second, 0.25, 0.4, clip=0).set_index("pathway")
    assert covered.loc["frames"].tolist() == [2, pytest.approx(0.2), pytest.approx(0.4)]
    assert covered.loc["summary"].tolist() == [2, pytest.approx(0.0), pytest.approx(0.6)]
    masses = m.by_seconds(second, 0.25, 0.4, clip=0)
    assert len(masses) == len(second[HEAD].drop_duplicates())
    own = second[(second["clip"] == 0) & (second["layer"] == 0) & (second["head"] == 2)]
    frames = own[own["pathway"] == "frames"].sort_values("start_s")["mass"].to_numpy()
    summary = own[own["pathway"] == "summary"].sort_values("start_s")["mass"].to_numpy()
    got = masses[(masses["layer"] == 0) & (masses["head"] == 2)]["mass"].item()
    assert got == pytest.approx(frames[2:4].sum() + summary[:2].sum())


def test_stretches_that_tile_a_clip_make_up_all_of_its_mass(pal: Any) -> None:
    table = m.attention_mass(pal, padded_batch(pal))
    first = table[table["row"] == 0]
    whole = m.by_seconds(first, 0, 0.5)["mass"]
    parts = [m.by_seconds(first, a, b)["mass"] for a, b in ((0, 0.3), (0.3, 0.5))]
    np.testing.assert_allclose(whole, parts[0] + parts[1], atol=1e-6)
    assert (whole > 0).all()


def test_layers_that_see_no_such_token_count_as_nothing(pal: Any) -> None:
    table = m.attention_mass(pal, padded_batch(pal))
    frames = table[(table["row"] == 0) & (table["pathway"] != "summary")]
    masses = m.by_seconds(frames, 0, 0.2).set_index("layer")["mass"]
    assert (masses.loc[[1, 3]] == 0).all() and (masses.loc[[0, 2]] > 0).all()


@pytest.mark.parametrize("stretch", [(0.2, 0.2), (0.3, 0.1), (0.9, 1.2), (float("nan"), 1)])
def test_empty_and_foreign_stretches_are_refused(pal: Any, stretch: tuple[float, float]) -> None:
    table = m.attention_mass(pal, padded_batch(pal))
    with pytest.raises(PalscopeError, match=r"stretch of time|overlaps"):
        m.by_seconds(table[table["row"] == 0], *stretch)
