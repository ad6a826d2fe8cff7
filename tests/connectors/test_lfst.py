"""LFST against a loop over places; what it reads is local, of the encoder that each layer names."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from palscope._connectors import LFST, LFSTConfig
from palscope.encoders import EncoderOutput
from palscope.encoders._base import EncoderTokens
from palscope.errors import PalscopeError
from tests.connectors.sources import COARSE, FINE, PATCHES, WHOLE, alone, outputs, resample

TINY = LFSTConfig(latents=2, width=16, heads=2, feed_forward=24)


def made(*sources: EncoderTokens, seed: int = 0, **changes: Any) -> LFST:
    """With weights large enough that attention is far from uniform."""
    torch.manual_seed(seed)
    lfst = LFST(sources, replace(TINY, **changes)).eval()
    with torch.no_grad():
        for weight in lfst.parameters():
            weight.normal_(std=0.4)
    return lfst


def one_place(lfst: LFST, tokens: list[list[torch.Tensor]]) -> torch.Tensor:
    """The latents of one place, whose layers read `tokens`, by torch's own attention."""
    latents = lfst.latents
    for layer, own in zip(lfst.layers, tokens, strict=True):
        part: Any = layer
        attention = part.attention
        mixed, _ = nn.functional.multi_head_attention_forward(
            part.attention_norm(latents),
            *[torch.stack(own)] * 2,
            embed_dim_to_check=16,
            num_heads=2,
            in_proj_weight=None,
            in_proj_bias=torch.cat(
                [attention.query.bias, attention.key.bias, attention.value.bias]
            ),
            bias_k=None,
            bias_v=None,
            add_zero_attn=False,
            dropout_p=0.0,
            out_proj_weight=attention.output.weight,
            out_proj_bias=attention.output.bias,
            use_separate_proj_weight=True,
            q_proj_weight=attention.query.weight,
            k_proj_weight=attention.key.weight,
            v_proj_weight=attention.value.weight,
        )
        latents = latents + mixed
        latents = latents + part.feed_forward(part.feed_forward_norm(latents))
    return lfst.norm(latents)


@pytest.mark.parametrize("reads", [(0, 1, 0), (1, 0, 1), (0, 0, 1, 1)])
@torch.no_grad()
def test_each_place_reads_its_regions_alone(reads: tuple[int, ...]) -> None:
    regions_s = (0.96, 0.4, 0.33, 2.0)[: len(reads)]
    lfst = made(PATCHES, COARSE, reads=reads, regions_s=regions_s)
    batch = outputs([PATCHES, COARSE], [1.5])
    frames = resample(lfst, batch)
    assert frames.shape == (1, 2 * math.ceil(1.5 / 0.32), 16)
    assert lfst.grid.tokens(1.5) == lfst.tokens(batch[0][0].shape[1]) == frames.shape[1]
    for place in range(frames.shape[1] // 2):
        centre = 0.32 * (place + 0.5)
        tokens: list[list[torch.Tensor]] = []
        for number, region in zip(reads, regions_s, strict=True):
            grid, states = (PATCHES, COARSE)[number].grid, batch[number][0][0]
            start, end = max(0.0, centre - region / 2), centre + region / 2
            spans = [grid.span(i) for i in range(len(states))]
            tokens.append(
                [states[i] for i, (a, b) in enumerate(spans) if min(b, end) - max(a, start) > 1e-6]
            )
        wanted = one_place(lfst, tokens)
        got = frames[0, 2 * place : 2 * place + 2]
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_change_of_sound_reaches_latents_whose_regions_hold_it_alone() -> None:
    lfst = made(PATCHES, COARSE)
    batch = outputs([PATCHES, COARSE], [3.2])
    before = resample(lfst, batch)
    batch[0][0][0, 4 * 10] += 1  # a patch of 1.60 to 1.76 s
    moved = (resample(lfst, batch) - before).abs().amax(-1)[0].view(10, 2).amax(1)
    # Regions of 0.96 s around places 0.32 s apart: those of steps 4, 5 and 6 hold it.
    assert (moved > 1e-4).tolist() == [step in (4, 5, 6) for step in range(10)]


@torch.no_grad()
def test_any_two_or_more_encoders_can_be_fused() -> None:
    for sources in ([FINE, PATCHES], [COARSE, COARSE], [PATCHES, FINE, WHOLE]):
        reads = (0, 1, len(sources) - 1)
        steps: dict[str, Any] = {"step_s": 0.3125} if sources[0] is COARSE else {}
        lfst = made(*sources, reads=reads, **steps)
        batch = outputs(sources, [0.5, 2.1, 0.01])
        frames = resample(lfst, batch)
        assert frames.isfinite().all()
        for clip in range(3):
            own = resample(lfst, alone(batch, clip))
            torch.testing.assert_close(frames[clip, : own.shape[1]], own[0], rtol=1e-4, atol=1e-5)
            assert not frames[clip, own.shape[1] :].any()


def test_a_listener_sees_the_pattern_and_changes_no_more_than_rounding() -> None:
    lfst = made(PATCHES, COARSE)
    batch = outputs([PATCHES, COARSE], [1.5, 0.7])
    before = resample(lfst, batch)
    patterns: list[torch.Tensor] = []
    taps: list[Any] = [attention.pattern for attention in lfst.attentions]
    for tap in taps:
        tap.register_forward_hook(lambda *call: patterns.append(call[2]))
    torch.testing.assert_close(resample(lfst, batch), before, rtol=1e-4, atol=1e-5)
    for pattern, reads in zip(patterns, lfst.reads([40, 10]), strict=True):
        rows = pattern.view(2, 5, 2, 2, -1)[0]
        assert rows.shape[-1] == reads.token.shape[1] == len(reads.encoder)
        assert ((rows > 0) == (reads.token >= 0)[:, None, None]).all()
    assert [int(reads.encoder[0]) for reads in lfst.reads([40, 10])] == [0, 1, 0]


def test_gradients_reach_every_parameter_and_are_finite_beside_padding() -> None:
    lfst = made(PATCHES, COARSE).train()
    resample(lfst, outputs([PATCHES, COARSE], [0.5, 2.1])).square().sum().backward()
    for name, weight in lfst.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), name
        if not name.endswith("key.bias"):  # moves all of a query's scores alike
            assert weight.grad.any(), name


def test_a_layer_that_finds_no_token_reads_nothing() -> None:
    """As of an encoder that ends before the clip does: no NaN, and nothing of the padding."""
    lfst = made(PATCHES, COARSE)
    batch = outputs([PATCHES, COARSE], [3.2])
    short = [batch[0], EncoderOutput(batch[1].states, torch.tensor([2]))]
    frames = resample(lfst, short)
    assert frames.isfinite().all()
    other = outputs([PATCHES, COARSE], [3.2], seed=1)[1].states
    other[:, :2] = batch[1].states[:, :2]
    another = EncoderOutput(other, torch.tensor([2]))
    assert torch.equal(resample(lfst, [batch[0], another]), frames)


def test_what_would_leave_an_encoder_or_sound_unread_is_refused() -> None:
    with pytest.raises(PalscopeError, match="two or more encoders"):
        made(PATCHES, reads=(0, 0, 0))
    with pytest.raises(PalscopeError, match="each read by some layer: there are 3"):
        made(PATCHES, COARSE, FINE)
    with pytest.raises(PalscopeError, match="each read by some layer: there are 2"):
        made(PATCHES, COARSE, reads=(0, 1, 2))
    with pytest.raises(PalscopeError, match="leave sound unread"):
        LFSTConfig(regions_s=(0.96, 0.1, 0.96))
    with pytest.raises(PalscopeError, match="one value for each layer"):
        LFSTConfig(reads=(0, 1))
    with pytest.raises(PalscopeError, match=r"step_s is 0.2 s, .* every 0.16 s"):
        made(PATCHES, COARSE, step_s=0.2)
