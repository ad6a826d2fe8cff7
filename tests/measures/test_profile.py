"""Where a model listens: a planted event is found in its second and its layer, by both views."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from palscope.errors import PalscopeError
from palscope.measures._attention_mass import attention_mass, by_pathway
from palscope.measures._profile import (
    DEPTH,
    KNOCKOUT,
    MASS,
    SECONDS,
    attention_profile,
    profile_bands,
)
from palscope.plots import Caption
from palscope.plots._profile import profiles
from tests.measures.conftest import padded_batch
from tests.planted import LAYERS, plant
from tests.plots.reading import agree, named

AT = 5  # the token of the event: 0.5 to 0.6 s
READ = 2
"""The layer that reads it."""


@pytest.fixture(scope="module")
def planted() -> Any:
    return plant("plits", layer=READ)


def view(table: Any, measure: str, axis: str) -> Any:
    return table[(table["measure"] == measure) & (table["axis"] == axis)].reset_index(drop=True)


def test_both_views_find_the_second_and_the_layer(planted: Any) -> None:
    inputs = planted.inputs("A", AT)
    seconds = float(planted.model.layout(inputs).seconds.nan_to_num().max())
    table = attention_profile(planted.model, inputs, seconds=seconds, step=0.1)
    for measure in (MASS, KNOCKOUT):
        time = view(table, measure, SECONDS)
        found = time.loc[time["value"].idxmax()]
        assert found["start"] == pytest.approx(AT * 0.1)
        assert found["value"] > 2 * time["value"].drop(index=found.name).max()
    # A window that cuts the layer changes the answer, another does not.
    depth = view(table, KNOCKOUT, DEPTH)
    cut = (depth["start"] <= READ / LAYERS) & (depth["end"] >= (READ + 1) / LAYERS)
    assert depth["value"][cut].min() > 0.1
    assert depth["value"][~cut].max() < 1e-6


def test_mass_is_the_measures_own(planted: Any) -> None:
    inputs = planted.inputs("A", AT)
    seconds = float(planted.model.layout(inputs).seconds.nan_to_num().max())
    table = attention_profile(planted.model, inputs, seconds=seconds, step=0.25)
    sums: Any = by_pathway(attention_mass(planted.model, inputs))
    heads = sums[sums["pathway"] != "text"].groupby(["layer", "head"])["mass"].sum()
    layers = heads.groupby("layer").mean()
    depth = view(table, MASS, DEPTH)
    assert depth["value"].to_numpy() == pytest.approx(layers.to_numpy())
    time = view(table, MASS, SECONDS)
    assert time["end"].iloc[-1] == pytest.approx(seconds)
    whole = (time["value"] * (time["end"] - time["start"])).sum()
    assert whole == pytest.approx(layers.mean(), rel=1e-4)


def test_the_clip_is_encoded_once(planted: Any) -> None:
    inputs = planted.inputs("A", AT)
    seconds = float(planted.model.layout(inputs).seconds.nan_to_num().max())
    calls: list[int] = []
    handle = planted.model.model.encoder.register_forward_hook(lambda *_: calls.append(1))
    attention_profile(planted.model, inputs, seconds=seconds, step=0.5)
    handle.remove()
    assert len(calls) == 1


def test_one_clip_at_a_time(pal: Any) -> None:
    with pytest.raises(PalscopeError, match="one prompt with one clip"):
        attention_profile(pal, padded_batch(pal), seconds=1.0, step=0.5)


def test_bands_put_clips_of_different_length_on_one_axis(planted: Any) -> None:
    inputs = planted.inputs("A", AT)
    seconds = float(planted.model.layout(inputs).seconds.nan_to_num().max())
    with pytest.raises(PalscopeError, match="steps of 0 s"):
        attention_profile(planted.model, inputs, seconds=seconds, step=0)
    long = attention_profile(planted.model, inputs, seconds=seconds, step=0.25)
    short = attention_profile(planted.model, inputs, seconds=seconds - 0.05, step=0.25)
    bands = profile_bands([long, short])
    time = view(bands, MASS, SECONDS)
    assert time["n"].tolist() == [2] * len(time)
    assert time["end"].iloc[-1] == pytest.approx(seconds)
    clips = [long.assign(value=long["value"] * f) for f in np.linspace(0.5, 1, 20)]
    many = view(profile_bands(clips), MASS, DEPTH)
    assert many["high"].dropna().max() <= 1
    two = pd.concat([bands.assign(model=name) for name in ("one", "other")])
    figure = profiles(two, caption=Caption("one and other", "which?", 2))
    assert [each["y"][:5] for each in agree(figure)] == ["share", "share", "KL wh", "KL wh"]
    time_line = named(figure, 1)["one"]
    np.testing.assert_allclose(time_line.y, time["mean"])
    assert set(named(figure, 3)) == {"one", "other"}
