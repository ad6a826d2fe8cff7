"""Llama in double precision throughout, so that both sides differ by double rounding alone."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding


@pytest.fixture(scope="module", autouse=True)
def exactly() -> Generator[None, None, None]:
    """transformers computes norms and angles in single precision, whatever the weights are."""

    def norm(self: Any, x: Tensor) -> Tensor:
        return (
            self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)
        )

    def angles(self: Any, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        size, base = self.config.head_dim, self.config.rope_parameters["rope_theta"]
        speed = base ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
        angle = (position_ids[..., None] * speed).repeat(1, 1, 2)
        return angle.cos().to(x.dtype), angle.sin().to(x.dtype)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LlamaRMSNorm, "forward", norm)
        patch.setattr(LlamaRotaryEmbedding, "forward", angles)
        yield
