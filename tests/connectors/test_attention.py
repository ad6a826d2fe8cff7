"""Attention inside connectors: fused and listened to, and where there is nothing to read."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from palscope._connectors.attention import attend


@pytest.mark.parametrize("listened", [False, True])
def test_a_query_that_sees_nothing_reads_nothing_and_has_a_gradient(listened: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(3, 2, 4, 8, generator=generator, requires_grad=True) for _ in range(3)]
    query, key, value = parts
    seen = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)[:, None, None]
    tap = nn.Identity()
    heard: list[torch.Tensor] = []
    if listened:
        tap.register_forward_hook(lambda *call: heard.append(call[2]))
    mixed = attend(query, key, value, seen, tap)
    scores = (query @ key.transpose(-1, -2) / 8**0.5)[:2].masked_fill(~seen[:2], -1e9)
    torch.testing.assert_close(mixed[:2], scores.softmax(-1) @ value[:2])
    assert not mixed[2].any()
    assert len(heard) == listened and not (listened and heard[0][2].any())
    mixed.square().sum().backward()
    for part in parts:
        assert part.grad is not None and part.grad.isfinite().all()
        assert not part.grad[2].any()
