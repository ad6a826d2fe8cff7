"""Costs are ratios of what was measured side by side."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from palscope._routing import Route
from palscope._routing.depths import rerouted_depths
from palscope.measures import _cost as cost
from tests import tiny


class Machine:
    """A clock that calls move on, on a machine that is slower in some turns than in others."""

    def __init__(self) -> None:
        self.now, self.turns = 0.0, {"quick": 0, "slow": 0}

    def perf_counter(self) -> float:
        return self.now

    def call(self, name: str, seconds: float, nbytes: int) -> Any:
        def run() -> Any:
            busy = (1000.0, 1.0, 20.0, 2.0)[min(self.turns[name], 3)]
            self.turns[name] += 1
            self.now += seconds * busy
            torch.empty(nbytes, dtype=torch.uint8)
            return SimpleNamespace(cache=SimpleNamespace(nbytes=nbytes))

        return run


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Any:
    machine = Machine()
    monkeypatch.setattr(cost.time, "perf_counter", machine.perf_counter)
    prefills = {
        "quick": machine.call("quick", 0.5, 1_000_000),
        "slow": machine.call("slow", 1.5, 4_000_000),
    }
    return cost.prefill_costs(prefills, "quick", repeats=3).set_index("placement")


def test_a_ratio_is_between_calls_of_the_same_turn(table: Any) -> None:
    assert table["prefill_ratio"].to_dict() == {"quick": 1.0, "slow": 3.0}
    assert table["prefill_ratio_low"].to_list() == table["prefill_ratio_high"].to_list() == [1, 3]


def test_the_first_turn_only_warms_up(table: Any) -> None:
    assert table["prefill_s"].to_dict() == {"quick": 1.0, "slow": 3.0}  # median of 1, 20, 2 times


def test_memory_is_that_of_the_cache_and_of_the_peak(table: Any) -> None:
    assert table["cache_bytes"].to_list() == [1_000_000, 4_000_000]
    assert table["cache_ratio"].to_list() == [1, 4]
    assert table["peak_ratio"]["slow"] == pytest.approx(4, rel=0.1)
    assert table["peak_bytes"]["slow"] >= 4_000_000


def test_an_unknown_baseline_or_no_repeat_is_refused() -> None:
    with pytest.raises(ValueError, match="the baseline 'other'"):
        cost.prefill_costs({"one": lambda: None}, "other")
    with pytest.raises(ValueError, match="repeats is 0"):
        cost.prefill_costs({"one": lambda: None}, "one", repeats=0)


def test_a_prefill_is_that_of_its_route() -> None:
    """The cache has text in every layer, and the clip where the route lets it in."""
    model = tiny.model(Route.lal(tiny.LAYERS))
    clips = tiny.batch([[300]], streams=model.route.streams)
    frames = 30
    text = clips["input_ids"].shape[1] - frames
    token = 2 * 2 * 8 * 4  # keys and values of two heads of eight float32
    ran: list[int] = []
    projectors: Any = model.connector.layer_projectors["frames"]
    for layer in range(tiny.LAYERS):
        projectors[f"layer_{layer}"].register_forward_hook(lambda *_, at=layer: ran.append(at))
    for placement in rerouted_depths(model.route):
        run = cost.prefill(model, clips, placement.route)
        run()
        ran.clear()
        out = run()
        expected = text * tiny.LAYERS + frames * placement.layers
        assert out.past_key_values.nbytes == expected * token, placement.name
        assert out.logits.shape[1] == 1
        assert sorted(ran) == list(placement.route.layers("frames")), placement.name
    assert model.route == Route.lal(tiny.LAYERS)
