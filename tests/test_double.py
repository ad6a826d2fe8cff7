"""Within `Double` nothing is single, rounding stays far below `CLOSE`, and faults far above."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from palscope._routing import Route
from palscope._verify.tolerance import PER_LAYER, rounding
from tests import tiny
from tests.double import CLOSE, Double, as_default, doubled

CLIPS = [[37], [52, 30]]


def logits(model: Any, double: bool = False) -> torch.Tensor:
    batch = tiny.batch(CLIPS)
    with torch.no_grad():
        return model(**(as_default(batch) if double else batch)).logits


def shuffled(model: Any) -> Any:
    """The same function, whose sums add the same terms in another order, as other kernels do."""
    with torch.no_grad():
        for layer in model.decoder.layers:
            order = torch.randperm(layer.mlp.up_proj.out_features)
            for name in ("gate_proj", "up_proj"):
                projection = getattr(layer.mlp, name)
                projection.weight.copy_(projection.weight[order])
            layer.mlp.down_proj.weight.copy_(layer.mlp.down_proj.weight[:, order])
    return model


def faulty(model: Any) -> Any:
    """One norm's epsilon, 0.001 in place of 0.000001."""
    model.decoder.layers[1].input_layernorm.variance_epsilon *= 1000
    return model


@pytest.mark.parametrize("double", [False, True])
def test_another_order_of_sums_passes_and_a_small_fault_does_not(double: bool) -> None:
    def made() -> Any:
        return tiny.model(Route.pal(tiny.LAYERS, [0, 2]))

    def compare(change: Any) -> tuple[torch.Tensor, float]:
        if not double:
            wanted = logits(made())
            tolerance = rounding(PER_LAYER * tiny.LAYERS, float(wanted.abs().max()))
            return (logits(change(made())) - wanted).abs(), tolerance["atol"]
        with Double():
            wanted = logits(doubled(made), double)
            got = logits(change(doubled(made)), double)
            assert wanted.dtype == torch.float64
            return (got - wanted).abs(), CLOSE["atol"]

    other, atol = compare(shuffled)
    assert 0 < other.max() < atol / (1000 if double else 2)
    fault, atol = compare(faulty)
    assert fault.max() > atol


def test_single_precision_is_double_within_and_single_behind() -> None:
    x = torch.randn(3)
    with Double():
        assert x.to(torch.float32).dtype == x.float().dtype == torch.float64
        assert torch.softmax(x, 0, dtype=torch.float32).dtype == torch.float64
        assert torch.zeros(2).dtype == torch.float64
        assert doubled(lambda: torch.nn.Linear(2, 2)).weight.dtype == torch.float64
    assert torch.zeros(2).dtype == x.float().dtype == torch.float32
