"""Low-rank adapters in a projection count where its rows or its weight are used alone."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from palscope._models.adapted import effective_weight, projected_rows
from palscope.errors import CheckpointError

ROWS = slice(3, 7)


def adapted(**changes: Any) -> Any:
    """A linear map of 5 to 8 with two adapters, of which "second" is active."""
    torch.manual_seed(0)
    holder = nn.Sequential(nn.Linear(5, 8))
    for name in ("first", "second"):
        config = LoraConfig(r=2, target_modules=["0"], init_lora_weights=False, **changes)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # it is the other
            inject_adapter_in_model(config, holder, name)
    holder[0].set_adapter("second")
    return holder[0].eval()


def rows_and_whole(projection: Any) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(1))
    bias = getattr(projection, "base_layer", projection).bias
    by_weight = nn.functional.linear(x, effective_weight(projection), bias)
    return projected_rows(projection, ROWS, x), by_weight, projection(x)


@torch.no_grad()
def test_rows_and_weight_are_those_of_the_adapters_that_are_on() -> None:
    projection = adapted()
    outputs: list[Tensor] = []
    for set_up in (
        lambda: None,
        lambda: projection.set_adapter("first"),
        lambda: projection.set_adapter(["first", "second"]),
        lambda: projection.enable_adapters(False),
    ):
        set_up()
        rows, by_weight, whole = rows_and_whole(projection)
        torch.testing.assert_close(rows, whole[..., ROWS])
        torch.testing.assert_close(by_weight, whole)
        outputs.append(whole)
    for one, other in itertools.pairwise(outputs):
        assert (one - other).abs().max() > 0.1
    projection.enable_adapters(True)
    projection.merge()
    rows, by_weight, whole = rows_and_whole(projection)
    torch.testing.assert_close(whole, outputs[2])
    torch.testing.assert_close(rows, whole[..., ROWS])
    torch.testing.assert_close(by_weight, whole)


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
def test_a_plain_projection_is_itself(bias: bool) -> None:
    rows, by_weight, whole = rows_and_whole(nn.Linear(5, 8, bias=bias))
    torch.testing.assert_close(rows, whole[..., ROWS])
    assert torch.equal(by_weight, whole)


@pytest.mark.parametrize("changes", [{"use_dora": True}, {"lora_bias": True}])
def test_adapters_that_are_no_plain_lora_are_refused(changes: dict[str, bool]) -> None:
    with pytest.raises(CheckpointError, match="second; of adapters only plain LoRA"):
        projected_rows(adapted(**changes), ROWS, torch.zeros(1, 5))


def test_a_projection_of_another_kind_is_refused() -> None:
    class Quantised(nn.Linear):
        pass

    with pytest.raises(CheckpointError, match="is a Quantised"):
        projected_rows(Quantised(5, 8), ROWS, torch.zeros(1, 5))
