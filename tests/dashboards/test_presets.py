"""Known routes on tiny models: every one is served, different, and what its name says."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoTokenizer

from palscope._models.base_weights import find_base
from palscope._routing import Level, Route
from tests import tiny
from tests.hooks.conftest import make_hooked


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(find_base("HuggingFaceTB/SmolLM2-135M-Instruct"))


def known(tokenizer: Any, route: Route) -> dict[str, Route]:
    from _presets import presets  # pyright: ignore[reportMissingImports]

    model = make_hooked(tokenizer, route, "llama")
    found = presets(model, route)
    for each in found.values():
        model.set_route(each)  # raises where the weights cannot serve it
    assert len(set(found.values()) | {route}) == len(found) + 1
    return found


def test_lal_in_fewer_layers(tokenizer: Any) -> None:
    found = known(tokenizer, Route.lal(tiny.LAYERS))
    assert found["LAL in the first third"].layers("frames", Level.KEYS) == (0,)
    assert found["frames muted"].layers("frames") == ()
    assert "LAL in all layers" not in found  # as trained


def test_plits_frozen_and_queries_alone(tokenizer: Any) -> None:
    found = known(tokenizer, Route.plits(tiny.LAYERS))
    assert found["frames frozen from layer 1"] == Route.plits(tiny.LAYERS).frozen_from(1)
    queries = found["Audio queries without feed-forward"]
    assert queries.layers("frames", Level.ATTEND) == (0, 1, 2, 3)


def test_pal_mutes_each_stream(tokenizer: Any) -> None:
    trained = Route.pal(tiny.LAYERS)
    found = known(tokenizer, trained)
    assert found["frames muted"] == trained.mute("frames")
    assert found["summary muted"] == trained.mute("summary")
    assert all("the rest as trained" in name for name in found if name.startswith("LAL"))
